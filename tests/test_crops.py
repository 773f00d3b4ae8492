import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.crops import crop_boxes, normalised, resize_into
from reid_edge.errors import BoxError, FrameError

FRAME = np.arange(100 * 80 * 3, dtype=np.uint32).reshape(100, 80, 3).astype(np.uint8)


def _resized(crop, size):
    out = np.empty((*size, 3), np.uint8)
    resize_into(crop, out)
    return out


def obvious_bilinear(image, size):
    """Each output pixel from its four neighbours, pixel centres at half, edges repeated."""
    height, width = image.shape[:2]
    out = np.empty((*size, 3))
    for row in range(size[0]):
        y = min(max((row + 0.5) * height / size[0] - 0.5, 0), height - 1)
        for column in range(size[1]):
            x = min(max((column + 0.5) * width / size[1] - 0.5, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            top = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
            bottom = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
            out[row, column] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


@pytest.mark.parametrize("shape", [(10, 7), (25, 9), (16, 40), (1, 1), (20, 15)])
def test_resizing_is_bilinear_with_pixel_centres_at_half(rng, shape):
    crop = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = obvious_bilinear(crop.astype(float), (20, 12))
    assert np.abs(_resized(crop, (20, 12)) - expected).max() <= 1.01


@pytest.mark.parametrize(("shape", "factor"), [((43, 29), 2), ((61, 36), 3), ((40, 24), 2)])
def test_large_crops_are_averaged_in_blocks_first(rng, shape, factor):
    crop = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    rows, columns = shape[0] // factor, shape[1] // factor
    whole = crop[: rows * factor, : columns * factor].astype(float)
    averaged = whole.reshape(rows, factor, columns, factor, 3).mean((1, 3))
    expected = obvious_bilinear(averaged, (20, 12))
    assert np.abs(_resized(crop, (20, 12)) - expected).max() <= 1.6


def test_a_crop_that_is_a_view_into_a_frame_resizes_as_its_copy_does():
    view = FRAME[10:60, 20:50]
    assert (_resized(view, (256, 128)) == _resized(view.copy(), (256, 128))).all()


def test_normalised_is_what_the_network_was_trained_on(rng):
    pixels = rng.integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    got = normalised(pixels, mean, std)
    assert got.shape == (2, 3, 5, 4)
    assert got.dtype == np.float32
    for image, row, column in ((0, 0, 0), (1, 4, 3), (1, 2, 1)):
        blue, green, red = (int(value) for value in pixels[image, row, column])
        expected = [(value / 255 - m) / s for value, m, s in zip((red, green, blue), mean, std, strict=True)]
        np.testing.assert_allclose(got[image, :, row, column], expected, atol=1e-6)


def test_boxes_cut_every_pixel_they_touch():
    crops, skipped = crop_boxes(FRAME, [[10, 20, 30, 60], [10.2, 20.9, 29.1, 59.5]])
    assert not skipped
    assert all((crop == FRAME[20:60, 10:30]).all() for crop in crops)


def test_boxes_are_clipped_to_the_frame():
    [crop], _ = crop_boxes(FRAME, [[-50, 90, 20, 500]])
    assert (crop == FRAME[90:100, 0:20]).all()


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([10, 10, 10, 20], "empty"),
        ([30, 10, 10, 20], "empty"),
        ([np.nan, 0, 1, 1], "not finite"),
        ([0, 0, np.inf, 1], "not finite"),
        ([80, 0, 90, 10], "outside the 80x100 frame"),
        ([-20, 0, -10, 10], "outside"),
    ],
)
def test_boxes_without_a_pixel_are_reported_with_their_row(box, reason):
    crops, skipped = crop_boxes(FRAME, [[0, 0, 5, 5], box, [1, 1, 6, 6]])
    assert len(crops) == 2
    assert [entry.index for entry in skipped] == [1]
    assert reason in skipped[0].reason


@settings(max_examples=200)
@given(st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 4), max_size=5))
def test_any_numbers_give_crops_or_reports(boxes):
    crops, skipped = crop_boxes(FRAME, np.array(boxes).reshape(-1, 4))
    assert len(crops) + len(skipped) == len(boxes)
    assert all(crop.size for crop in crops)


@pytest.mark.parametrize(
    "boxes", [np.zeros((2, 5)), np.zeros(4), np.zeros((0, 3)), [["a", 1, 2, 3]], None, [[1, 2], [3]]]
)
def test_arrays_that_are_not_boxes_are_an_error(boxes):
    with pytest.raises(BoxError, match="N×4"):
        crop_boxes(FRAME, boxes)


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4)), np.zeros(0)])
def test_no_boxes_give_no_crops(empty):
    assert crop_boxes(FRAME, empty) == ([], [])


@pytest.mark.parametrize(
    "frame",
    [FRAME.astype(np.float32), FRAME[..., 0], np.zeros((4, 4, 4), np.uint8), np.zeros((0, 5, 3), np.uint8), None, [1]],
)
def test_frames_that_are_no_pictures_are_an_error(frame):
    with pytest.raises(FrameError, match="H×W×3 uint8"):
        crop_boxes(frame, [[0, 0, 1, 1]])


def test_the_rule_stays_near_an_anti_aliased_resize_of_a_large_picture(rng):
    coarse = rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)
    crop = cv2.resize(coarse, (420, 1000), interpolation=cv2.INTER_CUBIC)
    exact = cv2.resize(crop, (128, 256), interpolation=cv2.INTER_AREA)
    error = np.mean((_resized(crop, (256, 128)).astype(float) - exact) ** 2)
    assert 10 * np.log10(255**2 / error) > 35
