"""Plans and calls that cannot be right: a typed error each, never a crash."""

import struct

import numpy as np
import pytest

from reid_edge.errors import BundleCorruptError, BundleVersionError, ConfigError, EngineError, EngineUnavailableError
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.runtime.native.library import NativeNetwork
from reid_edge.runtime.native.plan import with_ranges
from tests.osnet.random_networks import random_network
from tests.runtime.native.networks import needs_library, plan_of, random_pixels

pytestmark = needs_library

SIZE = (32, 16)
HEADER_BYTES = 112


@pytest.fixture(scope="module")
def plan():
    return plan_of(random_network(OSNetConfig(width=0.1, size=SIZE), seed=1).float())


def _with_word(plan, offset, kind, value):
    return plan[:offset] + struct.pack(kind, value) + plan[offset + struct.calcsize(kind) :]


def test_a_plan_cut_short_or_with_more_behind_it(plan):
    lengths = [*range(200), *np.random.default_rng(2).integers(200, len(plan), 200), len(plan) - 1]
    for length in lengths:
        with pytest.raises(BundleCorruptError, match=r"fp32\.plan: "):
            NativeNetwork(plan[:length], name="fp32.plan")
    with pytest.raises(BundleCorruptError, match="bytes"):
        NativeNetwork(plan + b"\0")


def test_other_bytes_and_another_version(plan):
    with pytest.raises(BundleCorruptError, match="reidplan"):
        NativeNetwork(b"x" * len(plan))
    with pytest.raises(BundleVersionError, match="version 2"):
        NativeNetwork(_with_word(plan, 8, "<I", 2))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(plan, number):
    for offset in (len(plan) - 4, len(plan) // 2 // 4 * 4):
        with pytest.raises(BundleCorruptError, match="finite"):
            NativeNetwork(_with_word(plan, offset, "<f", number))


@pytest.mark.parametrize("value", [0, 1, 2, 7, 12, 255, 4097, 2**31 - 1, 2**31, 2**32 - 1])
def test_any_other_number_in_the_description(plan, value):
    """Each word of header and records in turn; what is not refused must run."""
    for offset in range(8, HEADER_BYTES + 6 * 6 * 4, 4):
        try:
            network = NativeNetwork(_with_word(plan, offset, "<I", value))
        except (BundleCorruptError, BundleVersionError):
            continue
        network.run(random_pixels(2, network.info.size, seed=3))


def test_int8_needs_ranges_that_are_numbers(plan):
    with pytest.raises(EngineUnavailableError, match="ranges"):
        NativeNetwork(plan, precision="int8")
    ranges = NativeNetwork(plan).calibrate(random_pixels(2, SIZE, seed=4))
    for bad in (float("nan"), -1.0):
        damaged = ranges.copy()
        damaged[7] = bad
        with pytest.raises(BundleCorruptError, match="range 7"):
            NativeNetwork(with_ranges(plan, damaged), precision="int8")
    with pytest.raises(BundleCorruptError, match="ranges"):
        NativeNetwork(with_ranges(plan, ranges[:-1]), precision="int8")


def test_pixels_of_another_size(plan):
    network = NativeNetwork(plan)
    for shape in ((1, 32, 17, 3), (32, 16, 3), (1, 32, 16, 4)):
        with pytest.raises(EngineError, match="takes"):
            network.run(np.zeros(shape, np.uint8))
    assert network.run(np.zeros((0, *SIZE, 3), np.uint8)).shape == (0, 512)


def test_kernels_that_are_not_there(plan):
    with pytest.raises(EngineUnavailableError, match="no kernels mmx"):
        NativeNetwork(plan, kernels="mmx")


def test_a_network_with_standard_convolutions_is_refused_with_the_reason():
    network = random_network(OSNetConfig(width=0.1, size=SIZE, variant=NetworkVariant(convolution="standard")), seed=6)
    with pytest.raises(ConfigError, match=r"native engine.*conv2\.0\.streams"):
        plan_of(network.float())
