"""Rewrites are exact: equal in float64 over random widths, sizes, variants and weights."""

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reid_edge.errors import ConfigError
from reid_edge.osnet.architecture import GATED, NetworkVariant, OSNetConfig
from reid_edge.osnet.complexity import count_mult_adds
from reid_edge.osnet.network import OSNet
from reid_edge.osnet.rewrites import Rewrite, rewrite, why_illegal
from tests.osnet.random_networks import assert_equal, configs, random_network

SIZE = (40, 24)
EVERY_REWRITE = (
    Rewrite(merge=True),
    Rewrite(batch_gates=True),
    Rewrite(join=True),
    Rewrite(merge=True, batch_gates=True, join=True),
)

wishes = st.builds(Rewrite, merge=st.booleans(), batch_gates=st.booleans(), join=st.booleans())


def _legal(variant: NetworkVariant, wish: Rewrite) -> Rewrite:
    """The part of a wish that a variant allows."""
    wanted = {each.name: getattr(wish, each.name) for each in fields(Rewrite)}
    return Rewrite(**{key: value for key, value in wanted.items() if not why_illegal(variant, Rewrite(**{key: value}))})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(config=configs, seed=st.integers(0, 1000), wish=wishes)
def test_any_legal_rewrite_changes_nothing(config, seed, wish):
    network = random_network(config, seed)
    assert_equal(network, rewrite(network, _legal(config.variant, wish)), config.size)


@pytest.mark.parametrize("wish", EVERY_REWRITE, ids=lambda wish: " ".join(wish.names[1:]))
@pytest.mark.parametrize("fusion", ["unified", "separate", "streamwise", "concatenation"])
def test_each_rewrite_changes_how_and_not_what(wish, fusion):
    config = OSNetConfig(width=0.3, size=SIZE, variant=NetworkVariant(fusion=fusion))
    network = random_network(config, 0)
    legal = _legal(config.variant, wish)
    assert legal != Rewrite() or (not wish.merge and fusion not in GATED)
    assert_equal(network, rewrite(network, legal), SIZE)


@pytest.mark.parametrize("fusion", ["unified", "streamwise", "concatenation"])
def test_streams_of_one_channel_are_rewritten_as_well(fusion):
    """A depthwise convolution of one channel has one group, as a dense one has."""
    config = OSNetConfig(width=0.02, size=SIZE, variant=NetworkVariant(fusion=fusion))
    network = random_network(config, 3)
    assert_equal(network, rewrite(network, _legal(config.variant, EVERY_REWRITE[-1])), SIZE)


def test_ain_joins_only_where_no_instance_norm_comes_between():
    network = random_network(OSNetConfig(width=0.3, size=SIZE, variant=NetworkVariant(ain=True)), 0)
    for wish in EVERY_REWRITE:
        rewritten = rewrite(network, wish)
        assert_equal(network, rewritten, SIZE)
        joined = {name.removesuffix(".join.conv.weight") for name in rewritten.state_dict() if ".join." in name}
        assert {name for name in joined if not name.endswith("bias")} == ({"conv3.0"} if wish.join else set())


def test_rewriting_leaves_the_original_as_it_was():
    network = random_network(OSNetConfig(width=0.25, size=SIZE), 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rewrite(network, EVERY_REWRITE[-1])
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def _layers(network: nn.Module) -> list[str]:
    """Convolutions in the order of their evaluation, each as often as it runs."""
    ran = []
    names = {module: name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    for module in names:
        module.register_forward_hook(lambda module, _inputs, _output: ran.append(names[module]))
    network(torch.zeros(1, 3, *SIZE, dtype=torch.float64))
    return ran


@pytest.mark.parametrize(
    ("wanted", "streams", "gate"),
    [
        (Rewrite(), 20, 8),
        (Rewrite(merge=True), 8, 8),
        (Rewrite(batch_gates=True), 20, 2),
        (Rewrite(join=True), 20, 8),
        (Rewrite(merge=True, batch_gates=True, join=True), 8, 2),
    ],
    ids=lambda wanted: " ".join(wanted.names) if isinstance(wanted, Rewrite) else "",
)
@pytest.mark.parametrize("block", ["conv2.0", "conv3.0", "conv4.1"])
def test_a_block_runs_as_many_convolutions_as_its_rewrite_says(wanted, streams, gate, block):
    """Counted from figure 4; names say what quantization may touch."""
    network = rewrite(random_network(OSNetConfig(width=0.25, size=SIZE), 0), wanted)
    parts = [name.split(".")[2] for name in _layers(network) if name.startswith(f"{block}.")]
    joined = wanted.join and block.endswith(".0")
    assert parts.count("reduce") == 1
    assert parts.count("join") == int(joined)
    assert parts.count("restore") == int(not joined)
    assert parts.count("project") == int(block.endswith(".0") and not joined)
    assert parts.count("streams") == streams
    assert parts.count("gate") == gate
    assert len(parts) == 2 + parts.count("project") + streams + gate


@pytest.mark.parametrize("wanted", EVERY_REWRITE)
def test_rewrites_only_group_and_keep_the_mult_adds(wanted):
    network = random_network(OSNetConfig(width=0.25, size=SIZE), 0)
    x = torch.zeros(1, 3, *SIZE, dtype=torch.float64)
    assert count_mult_adds(rewrite(network, wanted), x) == count_mult_adds(network, x)


@pytest.mark.parametrize(
    ("variant", "wanted", "reason"),
    [
        (NetworkVariant(streams=(2,)), Rewrite(merge=True), "one stream"),
        (NetworkVariant(streams=(2,)), Rewrite(batch_gates=True), "one gate"),
        (NetworkVariant(fusion="addition"), Rewrite(batch_gates=True), "no gate"),
        (NetworkVariant(fusion="fixed"), Rewrite(batch_gates=True), "no gate"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(variant, wanted, reason):
    network = OSNet(OSNetConfig(width=0.25, variant=variant))
    with pytest.raises(ConfigError, match=reason):
        rewrite(network, wanted)


def test_a_network_is_rewritten_once():
    with pytest.raises(ConfigError, match="rewritten already"):
        rewrite(rewrite(OSNet(OSNetConfig(width=0.25)), Rewrite(merge=True)), Rewrite(merge=True))


def test_a_rewrite_names_what_it_does():
    assert Rewrite().names == ("fold",)
    assert Rewrite(batch_gates=True, join=True, merge=True).names == ("fold", "merge", "batch_gates", "join")


def test_average_pools_stand_where_they_are_cheapest():
    """A pool may pass a 1x1 convolution, which would do a quarter of the work after it, but not the ReLU between them.

    That is why a transition stays as it is.  The network's other averages (gate, fc) come before their linear layers
    already.  Max pooling may pass a ReLU: engines fuse it into conv1 either way.
    """
    torch.manual_seed(0)
    x, conv = torch.randn(1, 8, 6, 4, dtype=torch.float64), nn.Conv2d(8, 8, 1).double()
    with torch.no_grad():
        assert torch.allclose(F.avg_pool2d(conv(x), 2), conv(F.avg_pool2d(x, 2)), atol=1e-12)
        assert torch.equal(F.max_pool2d(F.relu(x), 3, 2, 1), F.relu(F.max_pool2d(x, 3, 2, 1)))
        late = F.avg_pool2d(F.relu(conv(x)), 2)
        early = F.relu(conv(F.avg_pool2d(x, 2)))
    assert (late - early).abs().max() > 0.1
    assert (late >= early - 1e-12).all()  # Jensen's inequality: it is never an equality by accident
