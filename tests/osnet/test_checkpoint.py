import dataclasses
import errno
import os

import pytest
import safetensors.torch
import torch

from reid_edge.errors import CheckpointError, CheckpointMismatchError, OutputError
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo, Head, load_checkpoint, save_checkpoint
from reid_edge.osnet.network import OSNet
from reid_edge.osnet.shipped import find_checkpoint, shipped_checkpoints, usual_checkpoints


@pytest.fixture
def small():
    info = CheckpointInfo(width=0.1, dataset="none", metrics={"mAP": 0.1}, mean=(0.5, 0.4, 0.3))
    return Checkpoint(info, OSNet(info.config).state_dict())


def test_a_checkpoint_comes_back_as_it_was_saved(small, tmp_path):
    path = tmp_path / "folder" / "c.safetensors"
    save_checkpoint(small, path)
    loaded = load_checkpoint(path)
    assert loaded.info == small.info
    assert loaded.sha256 == small.sha256
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in small.state.items())
    assert [entry.name for entry in path.parent.iterdir()] == ["c.safetensors"]


def test_the_hash_follows_the_weights_alone(small):
    other = dataclasses.replace(small, info=dataclasses.replace(small.info, dataset="other"))
    assert other.sha256 == small.sha256
    small.state["fc.bias"][0] += 1
    assert other.sha256 == small.sha256  # the same tensors
    assert Checkpoint(small.info, OSNet(small.info.config).state_dict()).sha256 != small.sha256


def test_a_name_that_would_not_be_read_back_is_refused(small, tmp_path):
    with pytest.raises(OutputError, match=r"must end in \.safetensors"):
        save_checkpoint(small, tmp_path / "c.pth")


def test_an_existing_file_is_kept_without_force(small, tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_text("precious")
    with pytest.raises(OutputError, match="--force"):
        save_checkpoint(small, path)
    assert path.read_text() == "precious"
    save_checkpoint(small, path, force=True)
    assert load_checkpoint(path).sha256 == small.sha256


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 1000, -100])
def test_a_truncated_file_is_an_error(small, tmp_path, keep):
    path = tmp_path / "c.safetensors"
    save_checkpoint(small, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(path)


def test_safetensors_of_somebody_else_are_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="metadata"):
        load_checkpoint(path)


def test_a_newer_format_is_refused(small, tmp_path):
    path = tmp_path / "c.safetensors"
    newer = dataclasses.replace(small, info=dataclasses.replace(small.info, format_version=99))
    save_checkpoint(newer, path)
    with pytest.raises(CheckpointError, match="Upgrade"):
        load_checkpoint(path)


def test_metadata_of_the_wrong_kind_names_the_field(small, tmp_path):
    path = tmp_path / "c.safetensors"
    safetensors.torch.save_file(small.state, path, {"reid_edge": '{"width": "wide"}'})
    with pytest.raises(CheckpointError, match="width"):
        load_checkpoint(path)


def test_weights_that_do_not_fit_are_listed(small):
    state = dict(small.state)
    del state["fc.bias"]
    state["extra"] = torch.zeros(3)
    state["conv1.conv.weight"] = torch.zeros(1, 3, 7, 7)
    with pytest.raises(CheckpointMismatchError) as caught:
        Checkpoint(small.info, state).network()
    message = str(caught.value)
    assert "missing     fc.bias (512,)" in message
    assert "unexpected  extra (3,)" in message
    assert "mis-shaped  conv1.conv.weight: expected (6, 3, 7, 7), got (1, 3, 7, 7)" in message


def test_the_shipped_checkpoint_says_what_it_is(checkpoint):
    assert checkpoint.info.width == 0.25
    assert "Market-1501" in checkpoint.info.dataset
    assert checkpoint.sha256.startswith("aaf9de8a2413")


def test_another_checkpoint_ships_for_new_sites(checkpoint):
    other = find_checkpoint(None, 0.25, new_site=True)
    assert "without labels" in other.info.dataset
    assert other.sha256.startswith("48ef00b37700")
    assert {one.sha256 for one in shipped_checkpoints()} == {checkpoint.sha256, other.sha256}
    assert [one.sha256 for one in usual_checkpoints()] == [checkpoint.sha256]
    with pytest.raises(CheckpointError, match=r"width 0\.5 ships for new sites"):
        find_checkpoint(None, 0.5, new_site=True)


def test_a_width_that_does_not_ship_says_how_to_get_one():
    with pytest.raises(CheckpointError, match=r"width 0.5 .*--checkpoint"):
        find_checkpoint(None, 0.5)


def test_a_checkpoint_of_another_width_is_refused(small, tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(small, path)
    with pytest.raises(CheckpointMismatchError, match=r"width 0\.1, but width 0\.25"):
        find_checkpoint(path, 0.25)


@pytest.fixture
def head():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 512, generator=generator)
    return Head(names=("hat", "bag [red]", "größe"), weight=weight, bias=torch.tensor([1.0, -2, 3]), kind="attributes")


def test_the_configuration_of_the_training_run_comes_back(small, tmp_path):
    training = {"recipe": "scratch", "model": {"size": [64, 32], "start": None}, "loss": {"triplet": 0.5}}
    info = dataclasses.replace(small.info, training=training)
    save_checkpoint(dataclasses.replace(small, info=info), tmp_path / "c.safetensors")
    assert load_checkpoint(tmp_path / "c.safetensors").info.training == training


def test_a_file_from_before_the_configuration_was_kept_still_loads(small, tmp_path):
    path = tmp_path / "c.safetensors"
    safetensors.torch.save_file(small.state, path, {"reid_edge": '{"width": 0.1, "recipe": "old"}'})
    loaded = load_checkpoint(path)
    assert (loaded.info.recipe, loaded.info.training, loaded.head) == ("old", {}, None)


def test_a_head_comes_back_and_changes_neither_name_nor_network(small, head, tmp_path):
    path = tmp_path / "c.safetensors"
    with_head = dataclasses.replace(small, head=head)
    save_checkpoint(with_head, path)
    loaded = load_checkpoint(path)
    assert loaded.head.names == ("hat", "bag [red]", "größe")
    assert loaded.head.kind == "attributes"
    assert torch.equal(loaded.head.weight, head.weight)
    assert torch.equal(loaded.head.bias, head.bias)
    assert loaded.sha256 == with_head.sha256 == small.sha256
    assert set(loaded.state) == set(small.state)
    loaded.network()


@pytest.mark.parametrize(
    ("weight", "bias", "names"), [((3, 512), (2,), 3), ((3, 511), (3,), 3), ((3, 512), (3,), 2), ((0, 512), (0,), 0)]
)
def test_a_head_whose_parts_do_not_go_together_is_refused(weight, bias, names):
    with pytest.raises(CheckpointMismatchError, match=f"head of {names} names"):
        Head(names=("n",) * names, weight=torch.zeros(weight), bias=torch.zeros(bias), kind="category")


def test_a_head_that_is_not_finite_is_refused():
    with pytest.raises(CheckpointMismatchError, match=r"head\.weight: holds NaN"):
        Head(names=("n",), weight=torch.full((1, 512), torch.nan), bias=torch.zeros(1), kind="category")


def test_a_head_that_is_promised_and_missing_is_an_error(small, tmp_path):
    path = tmp_path / "c.safetensors"
    about = {"reid_edge": '{"width": 0.1}', "reid_edge_head": '{"names": ["a"], "kind": "category"}'}
    safetensors.torch.save_file(small.state, path, about)
    with pytest.raises(CheckpointError, match=r"no tensor 'head\.weight'"):
        load_checkpoint(path)


def test_half_precision_halves_the_file_and_rounds_once(small, head, tmp_path):
    whole, half, again = (tmp_path / f"{name}.safetensors" for name in ("whole", "half", "again"))
    small.state["conv1.norm.num_batches_tracked"].fill_(100_001)  # no float16 number
    small.state["conv1.norm.running_var"][0] = 1e-9  # of a channel that is nearly constant; 0 as a float16
    small.state["fc.bias"][0] = 1 / 3
    with_head = dataclasses.replace(small, head=head)
    save_checkpoint(with_head, whole)
    save_checkpoint(with_head, half, half=True)
    assert half.stat().st_size < 0.65 * whole.stat().st_size  # the rest is names
    loaded = load_checkpoint(half)
    assert loaded.state["fc.bias"].dtype == loaded.head.weight.dtype == torch.float16
    assert float(loaded.state["fc.bias"][0]) == 0.333251953125  # 1365 / 4096
    assert int(loaded.state["conv1.norm.num_batches_tracked"]) == 100_001
    assert loaded.state["conv1.norm.running_var"][0] == small.state["conv1.norm.running_var"][0] > 0
    assert all(parameter.dtype == torch.float32 for parameter in loaded.network().parameters())
    save_checkpoint(loaded, again)  # full precision of what was rounded: the same name
    assert load_checkpoint(again).sha256 == loaded.sha256 != small.sha256


def test_weights_too_large_for_half_precision_are_refused(small, tmp_path):
    small.state["fc_norm.running_mean"][3] = 70_000.0
    with pytest.raises(OutputError, match=r"65504.*fc_norm\.running_mean"):
        save_checkpoint(small, tmp_path / "c.safetensors", half=True)
    assert list(tmp_path.iterdir()) == []
    save_checkpoint(small, tmp_path / "c.safetensors")


def test_a_write_that_fails_keeps_the_old_file(small, tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"old")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="cannot write"):
        save_checkpoint(small, path, force=True)
    assert [found.name for found in tmp_path.iterdir()] == ["c.safetensors"]
    assert path.read_bytes() == b"old"


def test_a_file_that_changes_after_it_was_read_changes_no_weight(small, tmp_path):
    path = tmp_path / "small.safetensors"
    save_checkpoint(small, path)
    loaded = load_checkpoint(path)
    path.write_bytes(b"\xff" * path.stat().st_size)  # in place: a mapped file would change under the weights
    assert loaded.sha256 == small.sha256
