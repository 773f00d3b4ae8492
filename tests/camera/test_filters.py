import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.camera.filters import DetectionFilter, FilterSettings, PrivacyMasks, ious, nms
from reid_edge.camera.frames import Detections, Frame, no_detections
from reid_edge.errors import SettingsError

TRIANGLE = [(0.1, 0.1), (0.9, 0.2), (0.4, 0.8)]
LEFT_HALF = [(0, 0), (0.5, 0), (0.5, 1), (0, 1)]


def frame(size_wh=(640, 480), value: int = 200) -> Frame:
    return Frame(np.full((size_wh[1], size_wh[0], 3), value, np.uint8), 0, 0)


def detections(*rows) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4], table[:, 4])


def kept(given: Detections, **options) -> list[list[float]]:
    found = DetectionFilter(FilterSettings(**options))(given, frame())
    return np.column_stack([found.boxes, found.scores]).tolist()


def obvious_iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def obvious_nms(boxes, scores, iou) -> list[int]:
    left = sorted(range(len(boxes)), key=lambda row: (-scores[row], row))
    chosen = []
    while left:
        best = left.pop(0)
        chosen.append(best)
        left = [row for row in left if obvious_iou(boxes[best], boxes[row]) <= iou]
    return chosen


def random_boxes(rng, count) -> np.ndarray:
    corners = rng.integers(0, 60, (count, 2))
    return np.concatenate([corners, corners + rng.integers(1, 40, (count, 2))], 1).astype(np.float32)


@pytest.mark.parametrize("iou", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_nms_keeps_what_a_slow_search_keeps(rng, iou):
    for count in (0, 1, 2, 30, 200):
        boxes = random_boxes(rng, count)
        scores = rng.integers(0, 10, count).astype(np.float32) / 10  # many are equal
        assert nms(boxes, scores, iou).tolist() == obvious_nms(boxes.tolist(), scores.tolist(), iou)


def test_ious_are_what_a_slow_loop_finds(rng):
    first, second = random_boxes(rng, 20), random_boxes(rng, 30)
    expected = [[obvious_iou(a, b) for b in second.tolist()] for a in first.tolist()]
    assert ious(first, second) == pytest.approx(np.array(expected), abs=1e-6)
    assert ious(np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)).tolist() == [[0]]


def test_more_boxes_than_people_can_be_take_bounded_time_and_the_surest_are_looked_at(rng):
    boxes = np.tile(np.float32([[0, 0, 20, 40]]), (50_000, 1)) + rng.integers(0, 500, (50_000, 1)).astype(np.float32)
    scores = np.linspace(0, 1, 50_000, dtype=np.float32)
    assert nms(boxes, scores, 0.5)[0] == 49_999


def test_each_filter_keeps_and_counts_what_it_should():
    given = detections(
        [10, 10, 60, 110, 0.9],
        [12, 12, 62, 112, 0.8],  # overlaps the first
        [100, 10, 150, 110, 0.29],  # not sure enough
        [200, 10, 250, 30, 0.9],  # too low
        [300, 10, 305, 110, 0.9],  # too narrow
        [400, 10, 600, 110, 0.9],  # too wide
        [600, 400, 700, 600, 0.7],  # clipped to 640×480
        [700, 10, 750, 110, 0.9],  # outside
        [50, 10, 40, 110, 0.9],
        [np.nan, 10, 40, 110, 0.9],
        [10, 10, np.inf, 110, 0.9],
        [10, 10, 60, 110, np.nan],
    )
    detection_filter = DetectionFilter(FilterSettings(max_width=150))
    found = detection_filter(given, frame())
    assert found.boxes.tolist() == [[10, 10, 60, 110], [600, 400, 640, 480]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    assert detection_filter.dropped == {"invalid": 5, "confidence": 1, "size": 3, "overlap": 1}


def test_nothing_in_nothing_out():
    assert kept(no_detections()) == [] and kept(no_detections(), masks=[TRIANGLE]) == []
    assert kept(detections([1, 1, 100, 100, 0.1])) == []


def test_scores_over_one_are_one():
    assert kept(detections([0, 0, 50, 100, 1.5]))[0][4] == 1


@pytest.mark.parametrize(
    "options",
    [{"confidence": 1.1}, {"nms_iou": -1}, {"masks": [[[0, 0], [1, 1]]]}, {"masks": [[[0, 0], [1, 1], [2, 0]]]}],
)
def test_settings_are_checked_by_name(options):
    with pytest.raises(msgspec.ValidationError, match=next(iter(options))):
        msgspec.convert(options, FilterSettings)


# --- privacy masks


def inside(polygon, x: float, y: float) -> bool:
    """Even-odd rule."""
    odd = False
    for (x1, y1), (x2, y2) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            odd = not odd
    return odd


@pytest.mark.parametrize("size_wh", [(64, 48), (31, 77), (3, 2), (1, 1)])
def test_every_pixel_whose_centre_is_masked_is_black_and_those_far_away_are_not(size_wh):
    picture = frame(size_wh)
    assert PrivacyMasks([TRIANGLE]).black_out(picture) is picture
    corners = np.float32(TRIANGLE) * np.float32(size_wh)
    for row in range(size_wh[1]):
        for column in range(size_wh[0]):
            black = not picture.image[row, column].any()
            if inside(TRIANGLE, (column + 0.5) / size_wh[0], (row + 0.5) / size_wh[1]):
                assert black
            elif cv2.pointPolygonTest(corners, (column + 0.5, row + 0.5), True) < -4:
                assert not black


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_any_polygon_blackens_what_it_holds(polygon, size_wh):
    picture = frame(size_wh)
    PrivacyMasks([polygon]).black_out(picture)
    for row in range(0, size_wh[1], 7):
        for column in range(0, size_wh[0], 7):
            x, y = (column + 0.5) / size_wh[0], (row + 0.5) / size_wh[1]
            if inside(polygon, x, y):
                assert not picture.image[row, column].any()


def test_a_picture_that_cannot_be_written_to_is_copied():
    picture = frame()
    picture.image.flags.writeable = False
    blackened = PrivacyMasks([LEFT_HALF]).black_out(picture)
    assert not blackened.image[:, :320].any() and blackened.image[:, 325:].all() and picture.image.all()


def test_boxes_that_stand_in_a_mask_are_dropped_even_if_most_of_them_is_free():
    lawn = [(0, 0.9), (1, 0.9), (1, 1), (0, 1)]  # y from 432
    boxes = [[100, 300, 150, 428, 0.9], [200, 300, 250, 440, 0.9], [300, 300, 350, 480, 0.9]]
    assert [row[0] for row in kept(detections(*boxes), masks=[lawn])] == [100]


@pytest.mark.parametrize(("overlap", "lefts"), [(0.0, [330]), (0.3, [330, 300]), (0.7, [330, 300, 260])])
def test_boxes_are_dropped_from_the_part_that_is_masked(overlap, lefts):
    """Of 100×300 pixels a fifth, three fifths and all lie behind the wall; feet are below it."""
    wall = [(0, 0), (0.5, 0), (0.5, 0.81), (0, 0.81)]
    boxes = [[330, 98, 430, 398, 0.9], [300, 98, 400, 398, 0.8], [260, 98, 360, 398, 0.7], [100, 98, 200, 398, 0.6]]
    assert [row[0] for row in kept(detections(*boxes), masks=[wall], mask_overlap=overlap, nms_iou=1)] == lefts


def test_how_much_is_masked_is_what_counting_pixels_finds(rng):
    size_wh = (640, 480)
    picture = frame(size_wh)
    masks = PrivacyMasks([TRIANGLE, LEFT_HALF])
    masks.black_out(picture)
    black = ~picture.image.any(2)
    corners = rng.integers(0, 400, (300, 2))
    boxes = np.concatenate([corners, np.minimum(corners + rng.integers(20, 200, (300, 2)), size_wh)], 1)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    hidden = masks.hide(boxes.astype(np.float32), size_wh, 0.5)
    for (x1, y1, x2, y2), hides in zip(boxes.tolist(), hidden.tolist(), strict=True):
        part = black[y1:y2, x1:x2].mean()
        foot = black[max(0, y2 - 3) : y2 + 1, max(0, (x1 + x2) // 2 - 2) : (x1 + x2) // 2 + 3]
        if part > 0.55 or foot.all():
            assert hides
        elif part < 0.45 and not foot.any():
            assert not hides


def test_masks_follow_the_resolution():
    masks = PrivacyMasks([LEFT_HALF])
    for size_wh in ((640, 480), (1920, 1080), (33, 17)):
        width, height = size_wh
        boxes = np.float32([[0, 0, width * 0.4, height], [width * 0.6, 0, width, height]])
        assert masks.hide(boxes, size_wh, 0.5).tolist() == [True, False]


@pytest.mark.parametrize("polygon", [[(0, 0), (1, 1)], [(0, 0), (float("nan"), 0), (1, 1)], [(0, 0), (2, 0), (1, 1)]])
def test_a_mask_that_is_none_is_refused_and_not_guessed(polygon):
    with pytest.raises(SettingsError, match=r"masks\[1\]"):
        PrivacyMasks([TRIANGLE, polygon])


def test_boxes_in_fractions_of_the_frame_are_no_boxes():
    boxes = DetectionFilter(FilterSettings())
    assert len(boxes(detections([0.1, 0.2, 0.4, 0.9, 0.9]), frame())) == 0
    assert boxes.dropped == {"invalid": 1, "overlap": 0}
