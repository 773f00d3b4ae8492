"""INT8 plans: integers, biases and ranges that lose less than the nearest integers and the ranges of calibration."""

import numpy as np
import pytest
import torch

from reid_edge.export.native_int8 import Int8Rounding, choose_integers
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.osnet.folding import fold, fold_scale
from reid_edge.runtime.native.library import NativeNetwork
from reid_edge.runtime.native.plan import PlannedNetwork, make_plan, with_ranges
from tests.osnet.random_networks import random_network
from tests.osnet.variants import VARIANTS
from tests.runtime.native.networks import (
    MEAN,
    STD,
    expected_features,
    kernels_of,
    needs_library,
    plan_of,
    random_pixels,
)

LITE = {name: variant for name, variant in VARIANTS.items() if variant.convolution == "lite"}
SIZE = (64, 32)


def _rounded(network, pixels):
    """Weights and ranges of an INT8 plan of a network."""
    folded = fold_scale(fold(network.float()), STD)
    planned = PlannedNetwork({name: value.numpy() for name, value in folded.state_dict().items()})
    blue, green, red = (255 * part for part in reversed(MEAN))
    return Int8Rounding(planned, pixels, (blue, green, red)).run()


def _correlated(inputs, seed):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(inputs, 3, generator=generator) @ torch.randn(3, 500, generator=generator)
    return torch.cov(mixed + 0.1 * torch.randn(inputs, 500, generator=generator))


def test_integers_lose_less_than_the_nearest_where_inputs_vary_together():
    targets = torch.rand(20, 24, generator=torch.Generator().manual_seed(1)) * 254 - 127
    covariance = _correlated(24, seed=2)

    def loss(chosen):
        return (((targets - chosen) @ covariance) * (targets - chosen)).sum(1)

    chosen = choose_integers(targets, covariance)
    assert (loss(chosen) <= loss(targets.round()) * 1.001).all()
    assert loss(chosen).sum() < 0.3 * loss(targets.round()).sum()


@pytest.mark.parametrize("inputs", [1, 2, 17])
def test_integers_are_whole_within_limits_and_each_rows_largest_stays(inputs):
    targets = torch.rand(50, inputs, generator=torch.Generator().manual_seed(3)) * 2 - 1
    targets *= 127 / targets.abs().amax(1, keepdim=True)
    chosen = choose_integers(targets, _correlated(inputs, seed=4) if inputs > 1 else torch.ones(1, 1))
    assert torch.equal(chosen, chosen.round())
    assert (chosen.abs().amax(1) == 127).all()


def test_inputs_that_never_vary_take_the_nearest_integers():
    targets = torch.rand(5, 6) * 200 - 100
    assert torch.equal(choose_integers(targets, torch.zeros(6, 6)), targets.round())


@needs_library
@pytest.mark.parametrize("variant", LITE.values(), ids=LITE)
def test_features_of_every_variant_are_closer_than_by_the_nearest_integers(variant):
    network = random_network(OSNetConfig(width=0.25, size=SIZE, variant=variant), seed=1)
    calibration, pixels = random_pixels(8, SIZE, seed=2), random_pixels(8, SIZE, seed=3)
    expected = expected_features(network, pixels)
    weights, ranges = _rounded(network, calibration)
    made = with_ranges(make_plan(weights, SIZE, MEAN), ranges)
    plain = plan_of(network.float())
    plain = with_ranges(plain, NativeNetwork(plain).calibrate(calibration))

    def lost(plan, kernels):
        got = NativeNetwork(plan, precision="int8", kernels=kernels).run(pixels)
        return np.linalg.norm(got - expected) / np.linalg.norm(expected)

    for kernels in kernels_of("int8"):
        assert lost(made, kernels) < 0.8 * lost(plain, kernels)


def test_weights_lie_on_the_steps_that_the_library_finds():
    weights, ranges = _rounded(
        random_network(OSNetConfig(width=0.25, size=SIZE), seed=5), random_pixels(4, SIZE, seed=6)
    )
    stem = weights["conv1.conv.weight"].reshape(16, -1)
    scaled = weights["conv2.0.reduce.conv.weight"] * ranges[:16] / 255
    for each in (stem, scaled):
        units = each / (np.abs(each).max(1, keepdims=True) / 127)
        assert np.abs(units - units.round()).max() < 1e-3
