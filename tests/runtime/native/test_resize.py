"""Crops resized by the library, against OpenCV's pixels: any size, layout and place in memory, and none beyond it."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

from reid_edge.crops import crop_boxes, resize_into
from reid_edge.errors import EngineError, FrameError
from reid_edge.runtime.native.library import NativeNetwork, available_kernels, resize
from reid_edge.runtime.native.pictures import MOST_SIDE, PICTURE, pictures
from tests.runtime.native.networks import kernels_of, needs_library
from tests.runtime.native.plans import random_plan

pytestmark = needs_library

SIZE = (256, 128)
SETS = [(precision, kernels) for precision in ("fp32", "bf16", "int8") for kernels in kernels_of(precision)]
DATA = Path(os.environ.get("REID_EDGE_DATA", "/none"), "vtest.avi")


def expected(crop, size=SIZE):
    out = np.empty((*size, 3), np.uint8)
    resize_into(crop, out)
    return out


def by_every_set(crop, size=SIZE):
    return [resize(crop, size, precision, kernels) for precision, kernels in SETS]


def check(crop, size=SIZE):
    """Pixels are OpenCV's, within one level, as its builds for other processors may differ; here they are the same."""
    wanted = expected(crop, size).astype(int)
    for got in by_every_set(crop, size):
        assert np.abs(got - wanted).max() <= 1, crop.shape
        assert np.array_equal(got, wanted) or os.uname().machine != "x86_64", crop.shape


@pytest.mark.parametrize("seed", range(4))
def test_crops_of_any_size_are_resized_as_opencv_does(seed):
    rng = np.random.default_rng([20261128, seed])
    for _ in range(40):
        size = SIZE if rng.random() < 0.5 else tuple(rng.integers(16, 300, 2))
        sides = np.exp(rng.uniform(0, np.log(900), 2)).astype(int)
        check(rng.integers(0, 256, (*sides, 3), np.uint8), size)


@pytest.mark.parametrize(
    "shape",
    [
        *((1, 1), (1, 900), (900, 1), (2, 2), (256, 128), (255, 128), (512, 256), (513, 258), (511, 1000)),
        *((768, 384), (1300, 640), (40, 3000), (MOST_SIDE, 20), (20, MOST_SIDE)),
    ],
)
def test_odd_shapes_and_the_limits_of_averaging(shape):
    check(np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8))


@pytest.mark.parametrize("value", [0, 255])
def test_extreme_pixels_stay_extreme(value):
    for shape in ((97, 41), (700, 300), (1600, 800)):
        assert all(np.all(got == value) for got in by_every_set(np.full((*shape, 3), value, np.uint8)))


def random_boxes(rng, height, width, count):
    """Fractions, parts outside the frame, single pixels, and boxes larger than the frame."""
    boxes = rng.uniform(-0.3, 1.3, (count, 4)) * [width, height, width, height]
    boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], 1)
    boxes[::5] = np.round(boxes[::5])
    boxes[1::7] = [width - 1, height - 1, width, height]
    boxes[2::7] = [-5, -5, width + 5, height + 5]
    return boxes


LAYOUTS = {
    "plain": lambda frame: frame,
    "upside down": lambda frame: frame[::-1],
    "mirrored": lambda frame: frame[:, ::-1],
    "RGB as BGR": lambda frame: frame[..., ::-1],
    "every other row": lambda frame: frame[::2],
    "every other pixel": lambda frame: frame[:, ::2],
    "padded rows": lambda frame: np.pad(frame, ((0, 0), (0, 7), (0, 0)))[:, :-7],
    "transposed": lambda frame: frame.transpose(1, 0, 2),
    "four channels": lambda frame: np.concatenate([frame, frame[..., :1]], 2)[..., :3],
    "bytes": lambda frame: np.frombuffer(frame.tobytes(), np.uint8).reshape(frame.shape),
    "column-major": np.asfortranarray,
    "shared memory": lambda frame: np.ndarray(frame.shape, np.uint8, buffer=bytearray(frame.tobytes())),
    "one row for all": lambda frame: np.broadcast_to(frame[:1], frame.shape),
    "read only": lambda frame: np.require(frame.copy(), requirements=[]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_of_frames_in_any_layout(layout):
    rng = np.random.default_rng(7)
    frame = LAYOUTS[layout](rng.integers(0, 256, (270, 480, 3), np.uint8))
    frame.flags.writeable = layout not in ("read only", "bytes", "one row for all")
    crops, _ = crop_boxes(frame, random_boxes(rng, *frame.shape[:2], 12))
    assert len(crops) > 6
    for crop in crops:
        check(crop)


def test_crops_of_one_buffer_that_is_no_array():
    """As in a ring of shared memory: one base, and no array that tells how far it reaches."""
    plan, rng = random_plan(3), np.random.default_rng(8)
    network = NativeNetwork(plan.encode())
    shared = bytearray(rng.bytes(20_000))
    places = [(0, (60, 30, 3)), (5_400, (90, 40, 3)), (17_000, (20, 50, 3))]
    crops = [np.ndarray(shape, np.uint8, buffer=shared, offset=at) for at, shape in places]
    assert crops[0].base is crops[1].base
    for order in (crops, crops[::-1], [crops[1][5:], crops[0][:, 3:], crops[0][2:]]):
        expected = np.concatenate([network.run_crops([crop.copy()]) for crop in order])
        np.testing.assert_array_equal(network.run_crops(order), expected)


@pytest.mark.skipif(not DATA.exists(), reason="REID_EDGE_DATA holds no vtest.avi")
def test_boxes_of_a_real_video():
    capture, rng = cv2.VideoCapture(str(DATA)), np.random.default_rng(3)
    for _ in range(6):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(rng.integers(0, 700)))
        _, frame = capture.read()
        crops, _ = crop_boxes(frame, random_boxes(rng, *frame.shape[:2], 8))
        for crop in crops:
            check(crop)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threads", [1, 2])
def test_features_of_crops_are_those_of_their_resized_pixels(seed, threads):
    plan, rng = random_plan(seed), np.random.default_rng(seed)
    network = NativeNetwork(plan.encode(), threads=threads)
    frame = rng.integers(0, 256, (200, 300, 3), np.uint8)
    crops, _ = crop_boxes(frame, random_boxes(rng, 200, 300, 9))
    crops.append(rng.integers(0, 256, (*plan.size, 3), np.uint8))
    pixels = np.stack([expected(crop, plan.size) for crop in crops])
    for count in (0, 1, 2, len(crops)):
        np.testing.assert_array_equal(network.run_crops(crops[:count]), network.run(pixels[:count]))


@pytest.mark.parametrize(
    ("crop", "got"),
    [
        (np.zeros((8, 9, 3), np.float32), r"\(8, 9, 3\) float32"),
        (np.zeros((8, 9, 3), np.int8), r"\(8, 9, 3\) int8"),
        (np.zeros((8, 9, 4), np.uint8), r"\(8, 9, 4\) uint8"),
        (np.zeros((8, 9), np.uint8), r"\(8, 9\) uint8"),
        (np.zeros((1, 8, 9, 3), np.uint8), r"\(1, 8, 9, 3\) uint8"),
        (np.zeros((0, 9, 3), np.uint8), r"\(0, 9, 3\) uint8"),
        ([[[0, 0, 0]]], "list"),
    ],
)
def test_what_is_no_picture_is_refused(crop, got):
    plan, right = random_plan(1), np.zeros((8, 9, 3), np.uint8)
    with pytest.raises(FrameError, match=f"crop 1: expected.*H×W×3 uint8 BGR.*got.*{got}"):
        NativeNetwork(plan.encode()).run_crops([right, crop])
    with pytest.raises(FrameError, match=f"expected.*H×W×3 uint8 BGR.*got.*{got}"):
        resize(crop, SIZE, "fp32", available_kernels("fp32")[0])


def claiming(array, *, rows=0, pixels=0, stride=None):
    """A view that claims rows, pixels or steps beyond what its array has."""
    height, width = array.shape[0] + rows, array.shape[1] + pixels
    return as_strided(array, (height, width, 3), (stride or array.strides[0], 3, 1))


def test_a_picture_beyond_its_memory_is_refused():
    plan = random_plan(1)
    network, kernels = NativeNetwork(plan.encode(), name="fp32.plan"), available_kernels("fp32")[0]
    frame = np.zeros((50, 40, 3), np.uint8)
    for lie in (
        *(claiming(frame, rows=1), claiming(frame, pixels=1), claiming(frame, stride=121)),
        *(claiming(frame, stride=-120), claiming(frame, stride=2**40), claiming(frame, stride=2**60)),
        *(claiming(frame[10:], rows=1), claiming(frame[:, 1:], pixels=1)[-1:]),
    ):
        with pytest.raises(EngineError, match=r"fp32.plan: the native engine cannot run_crops \(status 3\)"):
            network.run_crops([frame, lie])
        with pytest.raises(EngineError, match="cannot resize"):
            resize(lie, SIZE, "fp32", kernels)
    whole = network.run_crops([frame])
    np.testing.assert_array_equal(network.run_crops([claiming(frame)]), whole)
    np.testing.assert_array_equal(network.run_crops([claiming(frame, rows=1)[:-1]]), whole)


FIELDS = ("buffer", "buffer_bytes", "pixels", "stride", "height", "width")


@pytest.mark.parametrize("field", FIELDS)
def test_descriptions_of_random_numbers_never_reach_outside(field):
    """The library's own checks, without those of the Python side."""
    rng = np.random.default_rng(11)
    network, frame = NativeNetwork(random_plan(2).encode()), np.zeros((64, 48, 3), np.uint8)
    features = np.empty((1, network.info.feature_dim), np.float32)
    true = dict(zip(FIELDS, PICTURE.unpack(next(pictures([frame]))), strict=True))
    lowest, highest = {"stride": (-(2**63), 2**63), "height": (-(2**31), 2**31), "width": (-(2**31), 2**31)}.get(
        field, (0, 2**64)
    )
    numbers = [0, 1, -1, lowest, highest - 1, true[field] + 1, 2 * true[field], *rng.integers(-(2**40), 2**40, 50)]
    for number in numbers:
        value = (int(number) - lowest) % (highest - lowest) + lowest
        picture = PICTURE.pack(*(true | {field: value}).values())
        if field == "buffer_bytes" and value >= true[field]:
            continue  # what the caller says of its memory cannot be checked
        status = network._functions.reid_native_run_crops(
            network._engine, picture, 1, features.ctypes.data, features.nbytes
        )
        least = {"stride": 0, "height": 1, "width": 1}.get(field, true[field])
        assert status == (0 if least <= value <= true[field] else 3), value
