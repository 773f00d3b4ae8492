"""Checkpoints as torchreid and its users write them."""

import pickle

import numpy as np
import pytest
import torch

from reid_edge.errors import CheckpointError, CheckpointMismatchError, CheckpointUnsafeError
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.osnet.network import OSNet
from reid_edge.osnet.torchreid import import_torchreid
from tests.osnet.test_network import obvious_osnet, randomised
from tests.osnet.torchreid_names import to_torchreid


@pytest.fixture
def state():
    torch.manual_seed(0)
    network = randomised(OSNet(OSNetConfig(width=0.3)))
    return to_torchreid(network.state_dict()) | {
        "classifier.weight": torch.zeros(10, 512),
        "classifier.bias": torch.zeros(10),
    }


def _wrapped(state):
    return {
        "state_dict": {f"module.{name}": tensor for name, tensor in state.items()},
        "epoch": 150,
        "rank1": np.float64(0.94),
        "best": np.bool_(True),
        "cmc": np.array([0.9, 0.95], np.float32),
        "images": np.int32(3),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.0015}]},
    }


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        _wrapped,
        lambda state: {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")},
        lambda state: {name: tensor for name, tensor in state.items() if not name.startswith("classifier")},
    ],
    ids=["bare", "wrapped", "module.", "trainer's own", "older than 0.4.1", "without classifier"],
)
@pytest.mark.parametrize("zip_format", [True, False])
def test_every_kind_of_file_computes_what_its_weights_compute(state, tmp_path, wrap, zip_format):
    path = tmp_path / "model.pth.tar"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zip_format)
    checkpoint = import_torchreid(path)
    assert checkpoint.info.width == 0.3
    assert "model.pth.tar sha256:" in checkpoint.info.source
    x = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        assert torch.allclose(checkpoint.network()(x), obvious_osnet(x, state), atol=1e-5)


def test_a_name_neither_begins_a_line_nor_steers_a_terminal(state, tmp_path):
    state["evil\x1b[2J\nname"] = torch.zeros(1)
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match=r"unexpected  evil\\x1b\[2J name \(1,\)$"):
        import_torchreid(tmp_path / "m.pth")


def test_of_very_many_problems_the_first_are_listed(state, tmp_path):
    torch.save({name: value * float("nan") for name, value in state.items()}, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match=r"… and \d+ more$") as caught:
        import_torchreid(tmp_path / "m.pth")
    assert str(caught.value).count("holds NaN") == 20


def test_everything_wrong_is_listed(state, tmp_path):
    del state["conv2.0.conv2b.1.conv2.weight"]
    state["conv4.1.conv2e.0.conv1.weight"] = torch.zeros(2)
    state["conv5.bn.weight"] = torch.zeros(7)
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError) as caught:
        import_torchreid(tmp_path / "m.pth")
    message = str(caught.value)
    assert "1 tensor missing, 1 unexpected, 1 mis-shaped" in message
    assert "missing     conv2.0.streams.1.1.depthwise.weight" in message
    assert "unexpected  conv4.1.conv2e.0.conv1.weight" in message
    assert "mis-shaped  conv5.norm.weight: expected (154,), got (7,)" in message


def test_two_names_for_one_tensor_are_refused(state, tmp_path):
    """Whichever won, the weights could be the wrong ones."""
    state["fc_norm.weight"] = torch.zeros(512)
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match=r"fc\.1\.weight and fc_norm\.weight are both names for"):
        import_torchreid(tmp_path / "m.pth")


@pytest.mark.parametrize("prefix", ["module.", "ema."])
def test_a_tensor_with_a_prefix_of_its_own_is_refused(state, tmp_path, prefix):
    state[f"{prefix}conv1.conv.weight"] = torch.zeros_like(state["conv1.conv.weight"])
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match=rf"unexpected  {prefix}conv1\.conv\.weight"):
        import_torchreid(tmp_path / "m.pth")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda tensor: tensor * float("nan"), "holds NaN"),
        (lambda tensor: tensor.to_sparse(), "sparse"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "quantized"),
        (lambda tensor: tensor.to("meta"), "without data"),
        (lambda tensor: tensor.to(torch.complex64), "complex"),
    ],
)
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_weights_that_are_no_plain_numbers_are_refused(state, tmp_path, spoil, problem):
    state["conv5.conv.weight"] = spoil(state["conv5.conv.weight"])
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match=rf"conv5\.conv\.weight: .*{problem}"):
        import_torchreid(tmp_path / "m.pth")


def test_tensors_that_share_memory_are_saved_apart(state, tmp_path):
    from reid_edge.osnet.checkpoint import load_checkpoint, save_checkpoint

    state["conv5.bn.weight"] = state["conv5.bn.running_var"]
    torch.save(state, tmp_path / "m.pth")
    save_checkpoint(import_torchreid(tmp_path / "m.pth"), tmp_path / "c.safetensors")
    loaded = load_checkpoint(tmp_path / "c.safetensors").state
    assert torch.equal(loaded["conv5.norm.weight"], loaded["conv5.norm.running_var"])


def test_a_missing_batch_counter_among_others_is_an_error(state, tmp_path):
    del state["conv1.bn.num_batches_tracked"]
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match=r"missing     conv1\.norm\.num_batches_tracked"):
        import_torchreid(tmp_path / "m.pth")


def test_another_network_is_said_to_be_one(tmp_path):
    torch.save({"layer1.0.conv1.weight": torch.zeros(64, 64, 3, 3)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointMismatchError, match="not an OSNet"):
        import_torchreid(tmp_path / "resnet.pth")


def test_a_width_that_does_not_match_is_an_error(state, tmp_path):
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match=r"width 0.3, but width 0.25 was asked for"):
        import_torchreid(tmp_path / "m.pth", width=0.25)


class _Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("zip_format", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(state, tmp_path, zip_format):
    marker = tmp_path / "ran"
    torch.save({"state_dict": state, "x": _Evil(marker)}, tmp_path / "m.pth", _use_new_zipfile_serialization=zip_format)
    with pytest.raises(CheckpointUnsafeError, match="Nothing was run"):
        import_torchreid(tmp_path / "m.pth")
    assert not marker.exists()


def test_a_bare_pickle_with_code_is_refused_and_not_run(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "m.pth").write_bytes(pickle.dumps(_Evil(marker)))
    with pytest.raises(CheckpointError):
        import_torchreid(tmp_path / "m.pth")
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02", b"no pickle at all", b"\x00" * 100])
def test_bytes_that_are_no_checkpoint_are_an_error(tmp_path, content):
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.pth is .*"):
        import_torchreid(tmp_path / "m.pth")


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("keep", [0.001, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_an_error(state, tmp_path, keep, zip_format):
    path = tmp_path / "m.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zip_format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(CheckpointError, match="truncated"):
        import_torchreid(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        import_torchreid(tmp_path / "none.pth")


def test_a_file_that_holds_no_state_dict_is_an_error(tmp_path):
    torch.save([1, 2], tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match="expected a state dict"):
        import_torchreid(tmp_path / "m.pth")


def test_a_place_that_torchreid_does_not_use_is_said_and_recorded(state, tmp_path):
    torch.save({"model": {f"backbone.{name}": tensor for name, tensor in state.items()}}, tmp_path / "m.pth")
    said = []
    checkpoint = import_torchreid(tmp_path / "m.pth", say=said.append)
    assert said == [f"{tmp_path / 'm.pth'}: weights found under 'model/backbone'."]
    assert checkpoint.info.source.endswith(" model/backbone")


def test_of_two_networks_the_one_that_is_asked_for_is_imported(state, tmp_path):
    ema = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"model": state, "model_ema": ema}, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match="--weights model_ema"):
        import_torchreid(tmp_path / "m.pth")
    taken = import_torchreid(tmp_path / "m.pth", weights="model_ema").state
    assert torch.equal(taken["conv5.conv.weight"], ema["conv5.conv.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(state, tmp_path, dtype):
    converted = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    torch.save(converted, tmp_path / "m.pth")
    taken = import_torchreid(tmp_path / "m.pth").state
    assert taken["conv5.conv.weight"].dtype == torch.float32
    assert torch.equal(taken["conv5.conv.weight"], converted["conv5.conv.weight"].float())


def test_features_of_another_length_are_named_as_the_reason(state, tmp_path):
    for name in ("fc.0.weight", "fc.0.bias", "fc.1.weight", "fc.1.bias", "fc.1.running_mean", "fc.1.running_var"):
        state[name] = state[name][:256]
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match=r"features of 256 numbers .*features have 512"):
        import_torchreid(tmp_path / "m.pth")


def _without_fc(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith(("fc.", "classifier."))}


def test_a_network_without_fc_is_told_the_reason(state, tmp_path):
    torch.save(_without_fc(state), tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match=r"no fc layer: its feature is the 154 pooled channels"):
        import_torchreid(tmp_path / "m.pth")


def test_fast_reids_osnet_is_known_by_its_heads(state, tmp_path):
    """It has no fc: its feature is the pooled channels, normalised by heads.bottleneck."""
    held = {f"backbone.{name}": tensor for name, tensor in _without_fc(state).items()}
    held |= {"heads.weight": torch.zeros(751, 154), "heads.bottleneck.0.weight": torch.ones(154)}
    torch.save({"model": held, "iteration": 3}, tmp_path / "m.pth")
    with pytest.raises(CheckpointMismatchError, match=r"no fc layer; its heads are fast-reid's"):
        import_torchreid(tmp_path / "m.pth")


@pytest.mark.parametrize("name", ["osnet_x0_25_market1501.pth", "osnet_x0_25_msmt17.pth"])
def test_the_model_zoos_files_import(real_data, name):
    path = real_data / "zoo" / name
    checkpoint = import_torchreid(path, width=0.25)
    raw = torch.load(path, map_location="cpu", weights_only=True)
    raw = {key.removeprefix("module."): value for key, value in raw.get("state_dict", raw).items()}
    x = torch.randn(2, 3, 256, 128)
    with torch.no_grad():
        assert torch.allclose(checkpoint.network()(x), obvious_osnet(x, raw), atol=1e-4)
