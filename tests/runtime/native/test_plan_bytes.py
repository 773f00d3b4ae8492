"""Plans that are damaged, hostile or ask for more than there is: typed errors, never a crash."""

import struct
import time

import numpy as np
import pytest

from reid_edge.errors import BundleCorruptError, BundleVersionError, EngineError, EngineUnavailableError
from reid_edge.runtime.native.library import NativeNetwork, available_kernels
from reid_edge.runtime.native.plan import with_ranges
from tests.runtime.native.mutations import count_outcomes
from tests.runtime.native.networks import needs_library, random_pixels
from tests.runtime.native.plans import CONCATENATION, FEATURE, HEADER, TRANSITION, RandomPlan, random_plan

pytestmark = needs_library

PLAN = RandomPlan()
BYTES = PLAN.encode()
WEIGHTS = HEADER.size + 24 * len(PLAN.blocks)
FIELDS = ("height", "width", "feature_dim", "stem_channels", "stem_norm", "fusion", "streams")
RECORD = ("in", "middle", "out", "hidden", "norm", "then")


def _with(at: int, value: int) -> bytes:
    return BYTES[:at] + struct.pack("<I", value) + BYTES[at + 4 :]


def _with_weight(at: int, value: float) -> bytes:
    return BYTES[:at] + struct.pack("<f", value) + BYTES[at + 4 :]


def _calibrated(plan: RandomPlan, pixels: np.ndarray) -> bytes:
    return with_ranges(plan.encode(), NativeNetwork(plan.encode(), kernels="portable").calibrate(pixels))


@pytest.mark.parametrize("seed", range(40))
def test_every_kernel_set_computes_plans_of_any_description_alike(seed):
    plan = random_plan(seed)
    pixels = random_pixels(3, plan.size, seed)
    expected = NativeNetwork(plan.encode(), kernels="portable").run(pixels)
    for kernels in available_kernels("fp32"):
        for threads in (1, 2):
            network = NativeNetwork(plan.encode(), kernels=kernels, threads=threads)
            assert network.info.ranges == plan.count_ranges()
            error = np.abs(network.run(pixels) - expected).max()
            assert error <= (5e-3 if plan.normed else 1e-4) * np.abs(expected).max()
    for precision in ("bf16", "int8"):
        for kernels in available_kernels(precision):
            features = NativeNetwork(_calibrated(plan, pixels), precision=precision, kernels=kernels).run(pixels)
            assert np.isfinite(features).all()


def test_a_block_may_be_wider_inside_than_outside():
    plan = RandomPlan(stem=1, blocks=((200, 1, 3, 0, TRANSITION), (300, 2, 3, 0, FEATURE)))
    pixels = random_pixels(2, plan.size, seed=0)
    assert np.isfinite(NativeNetwork(plan.encode()).run(pixels)).all()


@pytest.mark.parametrize("norm", [0, 1, 2])
def test_a_block_may_be_much_wider_than_its_input(norm):
    plan = RandomPlan(stem=1, fusion=CONCATENATION, blocks=((1, 900, 0, norm, FEATURE),))
    pixels = random_pixels(2, plan.size, seed=0)
    assert np.isfinite(NativeNetwork(_calibrated(plan, pixels)).run(pixels)).all()


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_crops_of_one_extreme_colour_have_finite_features(value, precision):
    for seed in range(8):
        plan = random_plan(seed)
        calibrated = _calibrated(plan, random_pixels(2, plan.size, seed))
        pixels = np.full((2, *plan.size, 3), value, np.uint8)
        for kernels in available_kernels(precision):
            assert np.isfinite(NativeNetwork(calibrated, precision=precision, kernels=kernels).run(pixels)).all()


def test_damaged_plans_are_refused_or_run():
    assert sum(count_outcomes(count=400, seed=3).values()) == 400


@pytest.mark.parametrize("length", [0, 7, 8, HEADER.size - 1, HEADER.size, WEIGHTS - 1, WEIGHTS, len(BYTES) - 1])
def test_a_plan_cut_short_is_refused(length):
    with pytest.raises(BundleCorruptError, match=r"the plan: .*got|the plan says"):
        NativeNetwork(BYTES[:length])


def test_a_plan_with_more_bytes_is_refused():
    with pytest.raises(BundleCorruptError, match=rf"{len(BYTES)} bytes, got {len(BYTES) + 4}"):
        NativeNetwork(BYTES + bytes(4))


def test_bytes_that_are_no_plan_are_refused():
    with pytest.raises(BundleCorruptError, match="not a plan"):
        NativeNetwork(b"PK\3\4" + BYTES[4:])


def test_a_plan_of_another_version_is_refused():
    with pytest.raises(BundleVersionError, match="version 2; this library reads 1"):
        NativeNetwork(_with(8, 2))


@pytest.mark.parametrize("value", [0, 2**16, 2**31, 2**32 - 1])
@pytest.mark.parametrize("field", [name for name in FIELDS if name not in ("stem_norm", "fusion")])
def test_a_header_out_of_range_is_refused(field, value):
    with pytest.raises(BundleCorruptError, match="must be from"):
        NativeNetwork(_with(12 + 4 * FIELDS.index(field), value))


@pytest.mark.parametrize("field", RECORD)
def test_a_record_out_of_range_is_refused(field):
    for value in (2**16, 2**31, 2**32 - 1):
        with pytest.raises(BundleCorruptError, match="must"):
            NativeNetwork(_with(HEADER.size + 4 * RECORD.index(field), value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("at", [WEIGHTS, len(BYTES) - 4])
def test_a_weight_that_is_no_finite_number_is_refused(at, value):
    with pytest.raises(BundleCorruptError, match=f"weight {(at - WEIGHTS) // 4} is .*not a finite number"):
        NativeNetwork(_with_weight(at, value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_range_that_cannot_be_is_refused(value):
    ranges = np.ones(PLAN.count_ranges(), np.float32)
    ranges[-1] = value
    with pytest.raises(BundleCorruptError, match=f"range {len(ranges) - 1} must be finite and at least 0"):
        NativeNetwork(with_ranges(BYTES, ranges))


@pytest.mark.parametrize("more", [-1, 1])
def test_too_few_or_too_many_ranges_are_refused(more):
    with pytest.raises(BundleCorruptError, match=f"has {PLAN.count_ranges()} ranges"):
        NativeNetwork(with_ranges(BYTES, np.ones(PLAN.count_ranges() + more, np.float32)))


def test_int8_without_ranges_is_refused():
    if not available_kernels("int8"):
        pytest.skip("no INT8 kernels run on this CPU")
    with pytest.raises(EngineUnavailableError, match="no ranges"):
        NativeNetwork(BYTES, precision="int8")


def test_a_small_plan_of_huge_maps_is_refused_at_once():
    plan = RandomPlan(size=(4096, 4096), stem=4096, blocks=((1, 1, 1, 0, FEATURE),))
    start = time.monotonic()
    with pytest.raises(BundleCorruptError, match=r"at most 67108864 numbers, got one of 2048 x 2048 pixels with 4096"):
        NativeNetwork(plan.encode())
    assert time.monotonic() - start < 5


def test_kernels_that_do_not_exist_are_refused_by_name():
    with pytest.raises(EngineUnavailableError, match="no kernels imaginary "):
        NativeNetwork(BYTES, kernels="imaginary")
    with pytest.raises(EngineUnavailableError, match="no kernels"):
        NativeNetwork(BYTES, kernels="é" * 999)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 29, 20, 3), np.uint8),
        np.zeros((29, 21, 3), np.uint8),
        np.zeros((1, 29, 21, 3), np.float32),
        np.zeros((1, 3, 29, 21), np.uint8),
    ],
)
def test_pixels_of_another_shape_or_type_are_refused(pixels):
    with pytest.raises(EngineError, match="takes N"):
        NativeNetwork(BYTES).run(pixels)


def test_no_crops_have_no_features_and_strided_pixels_are_read_right():
    network = NativeNetwork(BYTES, threads=2)
    assert network.run(np.empty((0, 29, 21, 3), np.uint8)).shape == (0, 7)
    pixels = random_pixels(4, PLAN.size, seed=1)
    assert np.array_equal(network.run(pixels[::-2]), network.run(pixels[::-2].copy()))
