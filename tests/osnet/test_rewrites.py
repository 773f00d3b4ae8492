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
from reid_edge.osnet.rewrites import (
    BlockRewrite,
    RewritePlan,
    absorb_mean,
    block_names,
    fold,
    fold_scale,
    rewrite,
    why_illegal,
)
from reid_edge.osnet.rewrites.stem import pad_with
from tests.osnet.test_variants import unlike_new

SIZE = (40, 24)
EVERY_REWRITE = (
    BlockRewrite(merge=True),
    BlockRewrite(collapse=True),
    BlockRewrite(batch_gates=True),
    BlockRewrite(join=True),
    BlockRewrite(pad_to=16),
    BlockRewrite(merge=True, collapse=True),
    BlockRewrite(merge=True, collapse=True, batch_gates=True, join=True, pad_to=8),
)

variants = st.builds(
    NetworkVariant,
    streams=st.lists(st.integers(1, 3), min_size=1, max_size=4).map(lambda depths: tuple(sorted(depths))),
    convolution=st.sampled_from(["lite", "standard"]),
    fusion=st.sampled_from(["unified", "separate", "streamwise", "fixed", "addition", "concatenation"]),
    blocks=st.tuples(*[st.integers(1, 2)] * 3),
    instance_norm=st.booleans(),
)
configs = st.builds(
    OSNetConfig,
    width=st.floats(0.02, 0.6),
    size=st.tuples(st.integers(20, 48), st.integers(20, 48)),
    variant=variants,
)
wishes = st.builds(
    BlockRewrite,
    merge=st.booleans(),
    collapse=st.booleans(),
    batch_gates=st.booleans(),
    join=st.booleans(),
    pad_to=st.sampled_from([1, 8, 16]),
)


def _network(config: OSNetConfig, seed: int) -> OSNet:
    torch.manual_seed(seed)
    return unlike_new(OSNet(config)).double()


def _legal(config: OSNetConfig, block: str, wish: BlockRewrite) -> BlockRewrite:
    """What of a wish a block allows."""
    wanted = {each.name: getattr(wish, each.name) for each in fields(BlockRewrite)}
    allowed = {
        key: value for key, value in wanted.items() if not why_illegal(config, block, BlockRewrite(**{key: value}))
    }
    return BlockRewrite(**allowed)


def _assert_equal(network: nn.Module, other: nn.Module, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected, got = network(x), other(x)
    assert expected.std() > 0
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(config=configs, seed=st.integers(0, 1000))
def test_folding_changes_nothing(config, seed):
    network = _network(config, seed)
    _assert_equal(network, fold(network), config.size)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(config=configs, seed=st.integers(0, 1000), data=st.data())
def test_any_legal_plan_changes_nothing(config, seed, data):
    blocks = {name: _legal(config, name, data.draw(wishes, label=name)) for name in block_names(config)}
    network = _network(config, seed)
    _assert_equal(network, rewrite(network, RewritePlan(blocks=blocks)), config.size)


@pytest.mark.parametrize("how", EVERY_REWRITE, ids=lambda how: " ".join(how.names()))
@pytest.mark.parametrize("fusion", ["unified", "separate", "streamwise", "concatenation"])
def test_each_rewrite_changes_how_and_not_what(how, fusion):
    config = OSNetConfig(width=0.3, size=SIZE, variant=NetworkVariant(fusion=fusion))
    network = _network(config, 0)
    blocks = {name: _legal(config, name, how) for name in block_names(config)}
    assert any(block.names() for block in blocks.values()) or (how.names() == ("batch_gates",) and fusion not in GATED)
    _assert_equal(network, rewrite(network, RewritePlan(blocks=blocks)), SIZE)


@pytest.mark.parametrize("how", [BlockRewrite(pad_to=8), EVERY_REWRITE[-1]], ids=["pad_to 8", "all"])
@pytest.mark.parametrize("fusion", ["unified", "streamwise", "concatenation"])
def test_streams_of_one_channel_are_padded_as_well(how, fusion):
    """A depthwise convolution of one channel has one group, as a dense one has."""
    config = OSNetConfig(width=0.02, size=SIZE, variant=NetworkVariant(fusion=fusion))
    network = _network(config, 3)
    blocks = {name: _legal(config, name, how) for name in block_names(config)}
    _assert_equal(network, rewrite(network, RewritePlan(blocks=blocks)), SIZE)


def test_rewriting_leaves_the_original_as_it_was():
    config = OSNetConfig(width=0.25, size=SIZE)
    network = _network(config, 0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    rewrite(
        network, RewritePlan(blocks={name: _legal(config, name, EVERY_REWRITE[-1]) for name in block_names(config)})
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_folding_leaves_no_batch_norm_and_no_fixed_gate():
    network = _network(OSNetConfig(width=0.25, variant=NetworkVariant(fusion="fixed", instance_norm=True)), 0)
    names = [name for name, _ in [*fold(network).named_buffers(), *fold(network).named_parameters()]]
    assert not [name for name in names if "running" in name or "logits" in name or "fc_norm" in name]
    assert [name for name in names if "norm" in name] == [
        f"{owner}.norm.{key}" for owner in ("conv1", "conv2.0", "conv2.1") for key in ("weight", "bias")
    ]


def _layers(network: nn.Module) -> list[str]:
    """Convolutions in the order of their evaluation, with how often each runs."""
    ran = []
    names = {module: name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    for module in names:
        module.register_forward_hook(lambda module, _inputs, _output: ran.append(names[module]))
    network(torch.zeros(1, 3, *SIZE, dtype=torch.float64))
    return ran


@pytest.mark.parametrize(
    ("how", "streams", "gate", "ends"),
    [
        (BlockRewrite(), 20, 8, 2),
        (BlockRewrite(merge=True), 8, 8, 2),
        (BlockRewrite(collapse=True), 10, 8, 2),
        (BlockRewrite(merge=True, collapse=True), 4, 8, 2),
        (BlockRewrite(batch_gates=True), 20, 2, 2),
        (BlockRewrite(join=True), 20, 8, 1),
        (BlockRewrite(merge=True, collapse=True, batch_gates=True, join=True), 4, 2, 1),
    ],
    ids=lambda how: " ".join(how.names()) if isinstance(how, BlockRewrite) else "",
)
def test_a_block_runs_as_many_convolutions_as_its_rewrite_says(how, streams, gate, ends):
    """Counted from figure 4; names say what quantization may touch."""
    network = rewrite(_network(OSNetConfig(width=0.25, size=SIZE), 0), RewritePlan(blocks={"conv3.0": how}))
    parts = [name.split(".")[2] for name in _layers(network) if name.startswith("conv3.0.")]
    assert parts.count("reduce") == 1
    assert parts.count("streams") == streams
    assert parts.count("gate") == gate
    assert sum(parts.count(name) for name in ("restore", "project", "join")) == ends
    assert len(parts) == 1 + streams + gate + ends


@pytest.mark.parametrize("how", [BlockRewrite(merge=True), BlockRewrite(batch_gates=True), BlockRewrite(join=True)])
def test_rewrites_that_only_group_keep_the_mult_adds(how):
    network = _network(OSNetConfig(width=0.25, size=SIZE), 0)
    x = torch.zeros(1, 3, *SIZE, dtype=torch.float64)
    rewritten = rewrite(network, RewritePlan(blocks={"conv4.0": how}))
    assert count_mult_adds(rewritten, x) == count_mult_adds(network, x)


def test_collapsing_costs_nine_products_for_each_pointwise_one():
    network = _network(OSNetConfig(width=0.25, size=(64, 32)), 0)
    x = torch.zeros(1, 3, 64, 32, dtype=torch.float64)
    collapsed = rewrite(network, RewritePlan(blocks={"conv4.0": BlockRewrite(collapse=True)}))
    channels, pixels, layers = 32, 4 * 2, 10
    more = layers * pixels * (9 * channels**2 - (channels**2 + 9 * channels))
    assert count_mult_adds(collapsed, x) - count_mult_adds(network, x) == more


@pytest.mark.parametrize(
    ("variant", "block", "how", "reason"),
    [
        (NetworkVariant(streams=(2,)), "conv2.0", BlockRewrite(merge=True), "one stream"),
        (NetworkVariant(streams=(2,)), "conv2.0", BlockRewrite(batch_gates=True), "one gate"),
        (NetworkVariant(convolution="standard"), "conv2.0", BlockRewrite(collapse=True), "dense already"),
        (NetworkVariant(fusion="addition"), "conv2.0", BlockRewrite(batch_gates=True), "no gate"),
        (NetworkVariant(fusion="fixed"), "conv2.0", BlockRewrite(batch_gates=True), "no gate"),
        (NetworkVariant(), "conv3.1", BlockRewrite(join=True), "no 1x1 projection"),
        (NetworkVariant(), "conv2.0", BlockRewrite(pad_to=8), "16 channels"),
        (NetworkVariant(), "conv2.2", BlockRewrite(), "no block conv2.2"),
        (NetworkVariant(), "conv5.0", BlockRewrite(merge=True), "no block conv5.0"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(variant, block, how, reason):
    network = OSNet(OSNetConfig(width=0.25, variant=variant))
    with pytest.raises(ConfigError, match=reason):
        rewrite(network, RewritePlan(blocks={block: how}))


def test_a_block_is_rewritten_once():
    plan = RewritePlan(blocks={"conv2.0": BlockRewrite(merge=True)})
    with pytest.raises(ConfigError, match="rewritten already"):
        rewrite(rewrite(OSNet(OSNetConfig(width=0.25)), plan), plan)


def test_padding_to_no_channels_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        BlockRewrite(pad_to=0)


def test_a_plan_names_what_it_does():
    blocks = {
        "conv4.0": BlockRewrite(pad_to=16),
        "conv2.1": BlockRewrite(merge=True, collapse=True),
        "conv3.0": BlockRewrite(),
    }
    assert RewritePlan().names() == ("fold",)
    assert RewritePlan(blocks=blocks, absorb_mean=True).names() == (
        "fold",
        "absorb_mean",
        "merge conv2.1",
        "collapse conv2.1",
        "pad_to 16 conv4.0",
    )


def test_blocks_are_those_of_the_variant():
    assert block_names(OSNetConfig(variant=NetworkVariant(blocks=(1, 2, 1)))) == (
        "conv2.0",
        "conv3.0",
        "conv3.1",
        "conv4.0",
    )


MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)


def _pixels(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """BGR pixels N×H×W×3, and what the checkpoint takes of them."""
    bgr = torch.randint(0, 256, (2, *SIZE, 3), generator=torch.Generator().manual_seed(seed)).double()
    return bgr, ((bgr.flip(-1) / 255 - MEAN) / STD).permute(0, 3, 1, 2)


@pytest.mark.parametrize("instance_norm", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_conv1_can_take_bgr_pixels_minus_mean(seed, instance_norm):
    network = fold(
        _network(OSNetConfig(width=0.25, size=SIZE, variant=NetworkVariant(instance_norm=instance_norm)), seed)
    )
    bgr, normalised = _pixels(seed)
    centred = (bgr - 255 * MEAN.flip(0)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected, got = network(normalised), fold_scale(network, tuple(STD.tolist()))(centred)
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("instance_norm", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_conv1_can_take_bgr_pixels_padded_with_the_mean(seed, instance_norm):
    network = fold(
        _network(OSNetConfig(width=0.25, size=SIZE, variant=NetworkVariant(instance_norm=instance_norm)), seed)
    )
    bgr, normalised = _pixels(seed)
    mean = 255 * MEAN.flip(0)
    absorbed = absorb_mean(fold_scale(network, tuple(STD.tolist())), mean)
    with torch.no_grad():
        expected, got = network(normalised), absorbed(pad_with(bgr, mean).permute(0, 3, 1, 2))
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_average_pools_stand_where_they_are_cheapest():
    """A pool may pass a 1x1 convolution, which would do a quarter of the work after it, but not the ReLU between them.

    That is why a transition stays as it is.  The network's other averages (gate, fc) come before their linear layers
    as it is.  Max pooling may pass a ReLU: engines fuse it into conv1 either way.
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
