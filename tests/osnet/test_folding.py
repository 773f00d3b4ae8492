"""Folding is exact: equal in float64 over random widths, sizes, variants and weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.folding import fold, fold_scale
from tests.osnet.random_networks import assert_equal, configs, random_network

SIZE = (40, 24)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(config=configs, seed=st.integers(0, 1000))
def test_folding_changes_nothing(config, seed):
    network = random_network(config, seed)
    assert_equal(network, fold(network), config.size)


def test_folding_leaves_no_batch_norm_and_no_fixed_gate():
    network = random_network(OSNetConfig(width=0.25, variant=NetworkVariant(fusion="fixed", instance_norm=True)), 0)
    names = [name for name, _ in [*fold(network).named_buffers(), *fold(network).named_parameters()]]
    assert not [name for name in names if "running" in name or "logits" in name or "fc_norm" in name]
    assert [name for name in names if "norm" in name] == [
        f"{owner}.norm.{key}" for owner in ("conv1", "conv2.0", "conv2.1") for key in ("weight", "bias")
    ]


def test_folding_keeps_the_instance_norms_inside_residuals():
    network = random_network(OSNetConfig(width=0.25, variant=NetworkVariant(ain=True)), 0)
    assert [name for name in fold(network).state_dict() if "norm" in name] == [
        f"{owner}.norm.{key}"
        for owner in ("conv1", "conv2.0.restore", "conv2.1.restore", "conv3.1.restore", "conv4.0.restore")
        for key in ("weight", "bias")
    ]


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
        random_network(OSNetConfig(width=0.25, size=SIZE, variant=NetworkVariant(instance_norm=instance_norm)), seed)
    )
    bgr, normalised = _pixels(seed)
    centred = (bgr - 255 * MEAN.flip(0)).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected, got = network(normalised), fold_scale(network, tuple(STD.tolist()))(centred)
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()
