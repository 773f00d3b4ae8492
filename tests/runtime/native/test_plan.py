"""Plans and calls that cannot be right: a typed error each, never a crash."""

import re
import struct
from dataclasses import replace

import numpy as np
import pytest

from reid_edge.errors import BundleCorruptError, BundleVersionError, ConfigError, EngineError, EngineUnavailableError
from reid_edge.osnet import architecture
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.runtime.native import plan as plan_module
from reid_edge.runtime.native.library import NativeNetwork
from reid_edge.runtime.native.plan import require_limits, with_ranges
from tests.conftest import REPOSITORY
from tests.osnet.random_networks import random_network
from tests.runtime.native.networks import MEAN, needs_library, plan_of, random_pixels

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


def test_limits_are_those_of_the_library():
    header = (REPOSITORY / "native/src/plan.h").read_text()
    limits = {name: eval(value) for name, value in re.findall(r"(MAX_\w+) = ([\d <]+),", header)}
    assert limits.pop("MAX_SIDE") == architecture.MAX_SIDE
    assert len(limits) == 5
    assert limits == {name: getattr(plan_module, name) for name in limits}


@pytest.mark.parametrize(
    ("largest", "too_large", "reason"),
    [
        ({"variant": NetworkVariant(streams=(1,) * 8)}, {"variant": NetworkVariant(streams=(1,) * 9)}, "8 streams"),
        ({"variant": NetworkVariant(streams=(16,))}, {"variant": NetworkVariant(streams=(17,))}, "16 layers"),
        ({"feature_dim": 4096}, {"feature_dim": 4097}, "4,096 numbers in a feature"),
    ],
)
def test_a_network_at_a_limit_runs_and_one_beyond_it_is_refused(largest, too_large, reason):
    shallow = OSNetConfig(width=0.05, size=SIZE, variant=NetworkVariant(streams=(1,), blocks=(1, 1, 1)))
    network = NativeNetwork(plan_of(random_network(replace(shallow, **largest), seed=7).float()))
    assert np.isfinite(network.run(random_pixels(1, SIZE, seed=8))).all()
    with pytest.raises(ConfigError, match=rf"native engine computes at most {reason}.*Use another engine"):
        plan_of(random_network(replace(shallow, **too_large), seed=7).float())


def test_a_map_a_depth_or_a_mean_beyond_the_limits_is_refused():
    limits = {"lengths": (1,), "blocks": 64, "feature_dim": 512}
    right = {"size": (4096, 1024), "mean": MEAN, "channels": (64, 256, 384, 512)}
    require_limits(**limits, **right)
    for wrong in ({"size": (4096, 1025)}, {"channels": (65, 256, 384, 512)}, {"channels": (64, 257, 384, 512)}):
        with pytest.raises(ConfigError, match="at most 67,108,864 numbers in a map"):
            require_limits(**limits, **(right | wrong))
    with pytest.raises(ConfigError, match="at most 64 bottlenecks, and this network has 65"):
        require_limits(**(limits | {"blocks": 65}), **right)
    with pytest.raises(ConfigError, match="a mean of the images from 0 to 1"):
        require_limits(**limits, **(right | {"mean": (0.5, float("nan"), 0.5)}))
