"""Features of the native engine, against torch in float64: any network, kernels, batch and number of threads."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.runtime.native.library import NativeNetwork
from reid_edge.runtime.native.plan import with_ranges
from tests.osnet.random_networks import random_network
from tests.osnet.variants import VARIANTS
from tests.runtime.native.networks import (
    configs,
    cosine,
    expected_features,
    kernels_of,
    needs_library,
    plan_of,
    plan_of_onnx,
    random_pixels,
)

pytestmark = needs_library

KERNELS = kernels_of("fp32")
LITE = {name: variant for name, variant in VARIANTS.items() if variant.convolution == "lite"}


#: The largest of many features is about as large; one alone may be almost zero, and its error is not.
USUAL_FEATURE = 0.5


def _assert_features(network, pixels, kernels, threads=1):
    expected = expected_features(network, pixels)
    got = NativeNetwork(plan_of(network.float()), kernels=kernels, threads=threads).run(pixels)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 2e-5 * max(np.abs(expected).max(), USUAL_FEATURE)
    if np.linalg.norm(expected, axis=1).min() > 0:
        assert cosine(got, expected) >= 0.999999


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("variant", LITE.values(), ids=LITE)
def test_every_variant_of_the_paper_with_lite_layers(variant, kernels):
    size = (64, 32)
    network = random_network(OSNetConfig(width=0.3, size=size, variant=variant), seed=1)
    _assert_features(network, random_pixels(3, size, seed=2), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(config=configs, seed=st.integers(0, 2**31), threads=st.integers(1, 2))
def test_random_networks(kernels, config, seed, threads):
    _assert_features(random_network(config, seed), random_pixels(2, config.size, seed), kernels, threads)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("size", [(13, 13), (14, 33), (29, 17), (61, 47), (256, 128), (40, 131)])
def test_odd_sizes(size, kernels):
    network = random_network(OSNetConfig(width=0.25, size=size), seed=3)
    _assert_features(network, random_pixels(2, size, seed=4), kernels)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("width", [0.01, 0.07, 0.25, 0.33, 0.5, 0.75, 1.0, 1.5])
def test_every_width(width, kernels):
    size = (32, 32)
    network = random_network(OSNetConfig(width=width, size=size), seed=5)
    _assert_features(network, random_pixels(2, size, seed=6), kernels)


BF16, INT8 = kernels_of("bf16"), kernels_of("int8")
ALL = [*(("fp32", one) for one in KERNELS), *(("bf16", one) for one in BF16), *(("int8", one) for one in INT8)]


@pytest.mark.parametrize("kernels", BF16)
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(config=configs, seed=st.integers(0, 2**31), threads=st.integers(1, 2))
def test_random_networks_in_bfloat16(kernels, config, seed, threads):
    network, pixels = random_network(config, seed), random_pixels(2, config.size, seed)
    expected = expected_features(network, pixels)
    got = NativeNetwork(plan_of(network.float()), kernels=kernels, threads=threads, precision="bf16").run(pixels)
    assert np.linalg.norm(got - expected) <= 0.03 * np.linalg.norm(expected)


@pytest.mark.parametrize("kernels", INT8)
@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(config=configs, seed=st.integers(0, 2**31), threads=st.integers(1, 2))
def test_random_networks_in_int8(kernels, config, seed, threads):
    network, pixels = random_network(config, seed), random_pixels(2, config.size, seed)
    expected = expected_features(network, pixels)
    plan = plan_of(network.float())
    plan = with_ranges(plan, NativeNetwork(plan, threads=threads).calibrate(pixels))
    got = NativeNetwork(plan, kernels=kernels, threads=threads, precision="int8").run(pixels)
    assert np.linalg.norm(got - expected) <= 0.2 * np.linalg.norm(expected)


def _int8_plan(network, pixels):
    plan = plan_of(network.float())
    return with_ranges(plan, NativeNetwork(plan).calibrate(pixels))


@pytest.mark.parametrize(("precision", "kernels"), ALL)
@pytest.mark.parametrize("name", ["1 primary", "IBN"])
def test_a_feature_depends_neither_on_the_batch_nor_on_the_threads(name, precision, kernels):
    size = (96, 48)
    network = random_network(OSNetConfig(width=0.25, size=size, variant=VARIANTS[name]), seed=7)
    pixels = random_pixels(33, size, seed=8)
    plan = _int8_plan(network, pixels[:8]) if precision == "int8" else plan_of(network.float())
    one_by_one = NativeNetwork(plan, kernels=kernels, precision=precision).run(pixels[:1])
    for threads in (1, 2):
        native = NativeNetwork(plan, kernels=kernels, threads=threads, precision=precision)
        whole = native.run(pixels)
        assert np.array_equal(whole[:1], one_by_one)
        for batch in (1, 2, 3, 8, 32):
            assert np.array_equal(native.run(pixels[:batch]), whole[:batch])
        order = np.random.default_rng(9).permutation(len(pixels))
        assert np.array_equal(native.run(pixels[order]), whole[order])


@pytest.mark.parametrize("name", ["1 primary", "4 concatenation", "5 addition", "IBN"])
def test_all_kernels_in_int8_compute_the_same_numbers(name):
    """Without gates and norms to the last bit; with them but for means, whose sums have another order."""
    size = (61, 38)
    network = random_network(OSNetConfig(width=0.3, size=size, variant=VARIANTS[name]), seed=10)
    pixels = random_pixels(3, size, seed=11)
    plan = _int8_plan(network, pixels)
    first, *others = (NativeNetwork(plan, kernels=kernels, precision="int8").run(pixels) for kernels in INT8)
    limit = 0 if name in ("4 concatenation", "5 addition") else 0.01
    for other in others:
        assert np.linalg.norm(other - first) <= limit * np.linalg.norm(first)


@pytest.mark.parametrize("kernels", INT8)
def test_the_largest_products_of_int8_do_not_saturate(kernels):
    """All bytes are 255 and all weights 127 where each channel is the same and positive."""
    size = (32, 32)
    network = random_network(OSNetConfig(width=0.25, size=size), seed=12)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(("conv.weight", "pointwise.weight")):
                weight.fill_(1 / weight[0].numel())
    pixels = np.full((1, *size, 3), 255, np.uint8)
    expected = expected_features(network, pixels)
    got = NativeNetwork(_int8_plan(network, pixels), kernels=kernels, precision="int8").run(pixels)
    assert np.linalg.norm(got - expected) <= 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 0.999999), ("bf16", 0.9999), ("int8", 0.99)])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_bundles_golden_features(session_bundle, precision, limit, threads):
    crops, expected = session_bundle.golden()
    plan = plan_of_onnx(session_bundle.path / "model.onnx", session_bundle.manifest.input)
    if precision == "int8":
        plan = with_ranges(plan, NativeNetwork(plan).calibrate(crops))
    for kernels in kernels_of(precision):
        network = NativeNetwork(plan, kernels=kernels, precision=precision, threads=threads)
        for batch in (1, 2, len(crops)):
            got = np.concatenate([network.run(crops[i : i + batch]) for i in range(0, len(crops), batch)])
            assert cosine(got, expected) >= limit
