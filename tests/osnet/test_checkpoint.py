import dataclasses

import pytest
import safetensors.torch
import torch

from reid_edge.errors import CheckpointError, CheckpointMismatchError, OutputError
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint
from reid_edge.osnet.network import OSNet
from reid_edge.osnet.shipped import find_checkpoint


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
    assert checkpoint.sha256.startswith("6f04f5e51572")


def test_a_width_that_does_not_ship_says_how_to_get_one():
    with pytest.raises(CheckpointError, match=r"width 0.5 .*--checkpoint"):
        find_checkpoint(None, 0.5)


def test_a_checkpoint_of_another_width_is_refused(small, tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(small, path)
    with pytest.raises(CheckpointMismatchError, match=r"width 0\.1, but width 0\.25"):
        find_checkpoint(path, 0.25)
