"""Rewrites are exact: equal in float64 over random widths and weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.osnet.config import OSNetConfig
from reid_edge.osnet.network import OSNet
from reid_edge.osnet.rewrites import fold, fold_scale
from tests.osnet.test_network import randomised

SIZE = (40, 24)


def _network(width: float, seed: int) -> OSNet:
    torch.manual_seed(seed)
    return randomised(OSNet(OSNetConfig(width=width, size=SIZE))).double()


@settings(max_examples=12, deadline=None)
@given(width=st.floats(0.05, 1.0), seed=st.integers(0, 1000))
def test_folding_changes_nothing(width, seed):
    network = _network(width, seed)
    x = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        before, after = network(x), fold(network)(x)
    assert (after - before).abs().max() <= 1e-10 * before.abs().max()


def test_folding_leaves_no_batch_norm_and_the_original_as_it_was():
    network = _network(0.25, 0)
    folded = fold(network)
    assert not [name for name, _ in folded.named_buffers() if "running" in name]
    assert [name for name, _ in network.named_buffers() if "running" in name]


@pytest.mark.parametrize("seed", range(3))
def test_conv1_can_take_bgr_pixels_minus_mean(seed):
    network = fold(_network(0.25, seed))
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
    bgr = torch.randint(0, 256, (2, *SIZE, 3), generator=torch.Generator().manual_seed(seed)).double()
    normalised = ((bgr.flip(-1) / 255 - mean) / std).permute(0, 3, 1, 2)
    centred = (bgr - 255 * mean.flip(0)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected, got = network(normalised), fold_scale(network, tuple(std.tolist()))(centred)
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()
