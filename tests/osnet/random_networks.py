"""Networks of random width, size, variant and weights, for tests of what must change nothing."""

import torch
from hypothesis import strategies as st
from torch import nn

from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.network import OSNet
from tests.osnet.test_variants import unlike_new

_streams = st.lists(st.integers(1, 3), min_size=1, max_size=4).map(lambda depths: tuple(sorted(depths)))
_convolutions = st.sampled_from(["lite", "standard"])
_fusions = st.sampled_from(["unified", "separate", "streamwise", "fixed", "addition", "concatenation"])
_widths = st.floats(0.02, 0.6)
_sides = st.integers(20, 48)
_ain = st.builds(NetworkVariant, streams=_streams, convolution=_convolutions, fusion=_fusions, ain=st.just(True))
_others = st.builds(
    NetworkVariant,
    streams=_streams,
    convolution=_convolutions,
    fusion=_fusions,
    blocks=st.tuples(*[st.integers(1, 2)] * 3),
    instance_norm=st.booleans(),
    stem_stride=st.sampled_from([1, 2]),
    stem_pool=st.booleans(),
    pooling=st.sampled_from(["average", "maximum"]),
)
_sizes_of_ain = st.tuples(_sides, st.integers(29, 48)).flatmap(st.permutations).map(tuple)
configs = st.builds(OSNetConfig, width=_widths, size=st.tuples(_sides, _sides), variant=_others) | st.builds(
    OSNetConfig, width=_widths, size=_sizes_of_ain, variant=_ain
)


def random_network(config: OSNetConfig, seed: int) -> OSNet:
    torch.manual_seed(seed)
    return unlike_new(OSNet(config)).double()


def assert_equal(network: nn.Module, other: nn.Module, size: tuple[int, int]) -> None:
    """Features of both agree to 1e-10 of their range."""
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected, got = network(x), other(x)
    assert expected.std() > 0
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()
