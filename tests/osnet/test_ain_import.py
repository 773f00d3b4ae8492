"""OSNet-AIN as torchreid writes it (torchreid/models/osnet_ain.py): other names, instance norms inside residuals."""

import re

import pytest
import torch

from reid_edge.errors import CheckpointMismatchError, ConfigError
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.network import OSNet
from reid_edge.osnet.torchreid import import_torchreid
from tests.osnet.test_variants import unlike_new
from tests.osnet.torchreid_names import to_torchreid
from tests.osnet.variants import Obvious

AIN = NetworkVariant(ain=True)
NORMALISED = ("conv2.0", "conv2.1", "conv3.1", "conv4.0")


def to_osnet_ain(state):
    return {_rename(name): tensor for name, tensor in to_torchreid(state).items()}


def _rename(name):
    for block in NORMALISED:
        name = name.replace(f"{block}.conv3.bn.", f"{block}.IN.")
    name = re.sub(r"\.conv2a\.", ".conv2.0.layers.0.", name)
    name = re.sub(r"\.conv2([bcd])\.(\d)\.", lambda found: f".conv2.{'abcd'.index(found[1])}.layers.{found[2]}.", name)
    return re.sub(r"^conv([23])\.2\.0\.", r"pool\1.0.", name)


def made(width, variant=AIN):
    torch.manual_seed(0)
    return unlike_new(OSNet(OSNetConfig(width=width, variant=variant)))


@pytest.fixture
def network():
    return made(0.3)


@pytest.fixture
def state(network):
    return to_osnet_ain(network.state_dict()) | {"classifier.weight": torch.zeros(4101, 512)}


def test_the_names_are_those_of_the_zoos_file(state):
    assert len(made(1.0).state_dict()) == 550, "552 tensors with those of the classifier"
    assert [name for name in state if "IN" in name] == [
        f"{b}.IN.{key}" for b in NORMALISED for key in ("weight", "bias")
    ]
    assert [name for name in state if name.startswith("conv1.")] == [
        "conv1.conv.weight",
        "conv1.bn.weight",
        "conv1.bn.bias",
    ]
    for name in (
        "conv2.0.conv2.0.layers.0.conv1.weight", "conv4.1.conv2.3.layers.3.bn.running_var", "pool2.0.conv.weight",
        "pool3.0.bn.bias", "conv3.0.conv3.bn.running_mean", "conv4.1.conv3.bn.weight", "conv3.0.downsample.bn.weight",
    ):  # fmt: skip
        assert name in state


@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.25, 0.3])
def test_a_file_of_any_width_is_found_to_be_ain_and_computes_what_its_weights_compute(width, tmp_path):
    network = made(width)
    torch.save({"state_dict": to_osnet_ain(network.state_dict())}, tmp_path / "ain.pth.tar")
    checkpoint = import_torchreid(tmp_path / "ain.pth.tar")
    assert (checkpoint.info.variant, checkpoint.info.width) == (AIN, width)
    x = torch.randn(2, 3, 64, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = Obvious(network.double().state_dict(), AIN)(x)
        assert torch.allclose(checkpoint.network().double()(x), expected, rtol=1e-9, atol=1e-12)
    assert expected.std() > 0


def test_plain_blocks_under_the_names_of_ain_are_the_primary_model(tmp_path):
    state = OSNet(OSNetConfig(width=0.3)).state_dict()
    named = {re.sub(r"\.IN\.", ".conv3.bn.", name): tensor for name, tensor in to_osnet_ain(state).items()}
    torch.save(named, tmp_path / "plain.pth")
    assert import_torchreid(tmp_path / "plain.pth").info.variant == NetworkVariant()


@pytest.mark.parametrize(
    ("lost", "listed"),
    [
        ("conv3.1.IN.weight", r"missing     conv3\.1\.restore\.norm\.weight"),
        ("conv3.0.conv3.bn.weight", r"missing     conv3\.0\.restore\.norm\.weight"),
        ("conv2.0.conv2.2.layers.1.conv2.weight", r"missing     conv2\.0\.streams\.2\.1\.depthwise\.weight"),
    ],
)
def test_a_missing_tensor_is_listed(state, tmp_path, lost, listed):
    del state[lost]
    torch.save(state, tmp_path / "ain.pth")
    with pytest.raises(CheckpointMismatchError, match=rf"1 tensor missing, 0 unexpected(.|\n)*{listed}"):
        import_torchreid(tmp_path / "ain.pth")


def test_instance_norms_in_other_blocks_are_refused(state, tmp_path):
    state["conv4.1.IN.weight"] = state["conv4.1.IN.bias"] = torch.zeros(154)
    torch.save(state, tmp_path / "ain.pth")
    with pytest.raises(CheckpointMismatchError, match="both names for"):
        import_torchreid(tmp_path / "ain.pth")


@pytest.mark.parametrize("more", [{"instance_norm": True}, {"blocks": (1, 1, 1)}])
def test_ain_is_one_network_and_no_mixture(more):
    with pytest.raises(ConfigError, match=r"\(ain\)"):
        NetworkVariant(ain=True, **more)


@pytest.mark.parametrize("size", [(28, 28), (13, 28), (28, 13)])
def test_a_size_that_leaves_one_place_to_normalise_over_is_refused(size):
    with pytest.raises(ConfigError, match=r"too small for OSNet-AIN: height or width must be at least 29 pixels"):
        OSNetConfig(size=size, variant=AIN)
    OSNetConfig(size=size)


@pytest.mark.parametrize("size", [(29, 13), (13, 29)])
def test_the_smallest_sizes_that_are_allowed_are_computed(size):
    torch.manual_seed(0)
    network = unlike_new(OSNet(OSNetConfig(width=0.3, size=size, variant=AIN)))
    with torch.no_grad():
        assert network(torch.randn(1, 3, *size)).std() > 0


def test_a_file_is_not_imported_at_a_size_too_small_for_it(state, tmp_path):
    torch.save(state, tmp_path / "ain.pth")
    with pytest.raises(ConfigError, match="size 28x28 is too small for OSNet-AIN"):
        import_torchreid(tmp_path / "ain.pth", size=(28, 28))
