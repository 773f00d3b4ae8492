"""osnet_ibn_x1_0 as torchreid writes it (torchreid/models/osnet.py: ConvLayer.bn and OSBlock.IN are InstanceNorm2d)."""

import pytest
import torch

from reid_edge.errors import CheckpointMismatchError
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.network import OSNet
from reid_edge.osnet.torchreid import import_torchreid
from tests.osnet.test_variants import unlike_new
from tests.osnet.torchreid_names import to_torchreid
from tests.osnet.variants import Obvious

IBN = NetworkVariant(instance_norm=True)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return unlike_new(OSNet(OSNetConfig(width=0.3, variant=IBN)))


@pytest.fixture
def state(network):
    state = to_torchreid(network.state_dict())
    for number in (0, 1):
        for key in ("weight", "bias"):
            state[f"conv2.{number}.IN.{key}"] = state.pop(f"conv2.{number}.bn.{key}")
    return state | {"classifier.weight": torch.zeros(751, 512), "classifier.bias": torch.zeros(751)}


def test_an_ibn_file_is_found_to_be_one_and_computes_what_its_weights_compute(network, state, tmp_path):
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, tmp_path / "ibn.pth.tar")
    checkpoint = import_torchreid(tmp_path / "ibn.pth.tar")
    assert checkpoint.info.variant == IBN
    assert checkpoint.info.width == 0.3
    x = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        assert torch.allclose(checkpoint.network()(x), Obvious(network.state_dict(), IBN)(x), atol=1e-5)


def test_instance_norms_have_no_running_statistics(state):
    """As in torchreid's file: InstanceNorm2d(affine=True) keeps none."""
    assert [name for name in state if name.startswith("conv1.")] == [
        "conv1.conv.weight",
        "conv1.bn.weight",
        "conv1.bn.bias",
    ]


def test_a_plain_file_is_found_to_be_the_primary_model(tmp_path):
    torch.save(to_torchreid(OSNet(OSNetConfig(width=0.3)).state_dict()), tmp_path / "plain.pth")
    assert import_torchreid(tmp_path / "plain.pth").info.variant == NetworkVariant()


def test_a_file_with_one_of_two_instance_norms_lists_what_is_missing(state, tmp_path):
    del state["conv2.1.IN.weight"]
    torch.save(state, tmp_path / "ibn.pth")
    with pytest.raises(CheckpointMismatchError, match=r"1 tensor missing.*\n.*missing     conv2\.1\.norm\.weight"):
        import_torchreid(tmp_path / "ibn.pth")


def test_instance_norms_in_other_stages_are_refused(state, tmp_path):
    state["conv3.0.IN.weight"] = torch.zeros(115)
    torch.save(state, tmp_path / "ibn.pth")
    with pytest.raises(CheckpointMismatchError, match=r"unexpected  conv3\.0\.IN\.weight"):
        import_torchreid(tmp_path / "ibn.pth")
