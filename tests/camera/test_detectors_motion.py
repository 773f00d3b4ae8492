"""Drawn people whose place is known, and real ones where REID_EDGE_DATA has them."""

import cv2
import numpy as np
import pytest

from reid_edge.camera.detectors import ModelSettings, MotionSettings, open_detector
from reid_edge.camera.detectors.blobs import dips, find_people, joined
from reid_edge.camera.detectors.motion import reaching_the_edge
from reid_edge.camera.filters import DetectionFilter, FilterSettings, ious
from reid_edge.camera.frames import Frame
from reid_edge.camera.sources import SourceSettings, open_source
from tests.camera.street import outline

SIZE_WH = (480, 360)
STEP_US = 100_000


def ground(rng) -> np.ndarray:
    coarse = rng.integers(90, 160, (SIZE_WH[1] // 20, SIZE_WH[0] // 20, 3), dtype=np.uint8)
    return cv2.resize(coarse, SIZE_WH, interpolation=cv2.INTER_CUBIC)


NOISE = np.random.default_rng(1).normal(0, 3, (7, SIZE_WH[1], SIZE_WH[0], 3)).astype(np.int16)


def noisy(image: np.ndarray, rng) -> np.ndarray:
    return np.clip(image + NOISE[rng.integers(7)], 0, 255).astype(np.uint8)


def draw_person(image: np.ndarray, x: int, y: int, height: int = 100) -> tuple[int, int, int, int]:
    """Somebody who walks, with head, body and legs of other colours; their box."""
    width = round(height * 0.4)
    shape = outline(height, width)
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    colors = np.empty((height, width, 3), np.uint8)
    colors[: height // 5], colors[height // 5 :], colors[height * 6 // 10 :] = (
        (60, 80, 200),
        (40, 30, 30),
        (200, 120, 40),
    )
    image[y : y + height, x : x + width][shape] = colors[shape]
    return x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1


class Scene:
    """Frames of a still ground with people on it, seen by a detector."""

    def __init__(self, rng, **config) -> None:
        self.rng = rng
        self.ground = ground(rng)
        self.detector = open_detector(MotionSettings(**config))
        self.time_us = 0
        self.index = 0

    def see(self, *people, light: float = 1.0, step_us: int = STEP_US):
        """Boxes found, and boxes drawn, for people at x, y, height."""
        image = np.clip(self.ground * light, 0, 255).astype(np.uint8)
        drawn = [draw_person(image, *person) for person in people]
        self.time_us += step_us
        self.index += 1
        found = self.detector(Frame(noisy(image, self.rng), self.time_us, self.index))
        return found, np.array(drawn, np.float32).reshape(-1, 4)

    def settle(self, frames: int = 20, step_us: int = STEP_US) -> None:
        for _ in range(frames):
            self.see(step_us=step_us)


@pytest.fixture
def scene(rng):
    scene = Scene(rng)
    scene.settle()
    return scene


def test_a_walking_person_is_found_in_every_frame_and_nothing_else(scene):
    for step in range(40):
        found, drawn = scene.see((20 + 6 * step, 120, 100))
        assert len(found) == 1
        assert ious(found.boxes, drawn)[0, 0] > 0.9 and 0.6 < found.scores[0] <= 0.9


def test_a_still_scene_gives_nothing_and_is_hardly_looked_at(scene, monkeypatch):
    looked = []
    background = scene.detector._background
    moving = background.moving
    monkeypatch.setattr(background, "moving", lambda *frame: looked.append(0) or moving(*frame))
    for _ in range(50):
        assert len(scene.see()[0]) == 0
    assert 4 <= len(looked) <= 6  # once a second


def test_somebody_who_enters_a_still_scene_is_seen_in_the_first_frame(scene):
    scene.settle(30)
    assert len(scene.see((200, 120, 60))[0]) == 1


def test_where_somebody_stood_in_the_first_frames_nothing_starts_a_track(rng):
    scene = Scene(rng)
    for _ in range(20):
        scene.see((100, 100))
    ghosts = 0
    for step in range(1, 20):  # they walk away; the ground that they uncover differs from what was learnt
        found, drawn = scene.see((100 + 12 * step, 100))
        at_person = ious(drawn, found.boxes)[0] > 0.5
        if step >= 6:
            assert (found.scores[at_person] > 0.6).all() and (found.scores[~at_person] <= 0.5).all()
            assert at_person.any()
            ghosts += int((~at_person).sum())
    assert ghosts >= 8


def test_two_who_walk_together_are_two(scene):
    both = 0
    for step in range(20):
        found, drawn = scene.see((60 + 6 * step, 120, 100), (60 + 6 * step + 32, 124, 100))
        both += len(found) == 2 and (ious(found.boxes, drawn).max(0) > 0.6).all()
    assert both >= 18


def test_a_change_of_light_is_nobody_and_people_are_seen_again_after_it(scene):
    for light in (1.6, 0.6):
        for _ in range(20):
            assert len(scene.see(light=light)[0]) == 0
        for step in range(10):
            found, drawn = scene.see((100 + 6 * step, 120, 100), light=light)
            assert len(found) == 1 and ious(found.boxes, drawn)[0, 0] > 0.6


def test_what_stands_still_becomes_background_by_time_and_not_by_frames(rng):
    for step_us, memory_s in ((STEP_US, 8.0), (5 * STEP_US, 40.0)):
        scene = Scene(rng, memory_s=memory_s)
        scene.settle(50, step_us)
        seen = [len(scene.see((200, 120, 100), step_us=step_us)[0]) for _ in range(60)]
        assert seen[:20] == [1] * 20 and seen[-10:] == [0] * 10


def test_a_moving_thing_that_is_no_person_is_left_out(scene):
    for step in range(20):
        image = scene.ground.copy()
        cv2.rectangle(image, (10 + 8 * step, 200), (130 + 8 * step, 235), (20, 20, 200), -1)  # a car: 120×35
        cv2.circle(image, (300, 60 + step * 5), 6, (250, 250, 250), -1)  # a ball
        scene.time_us += STEP_US
        assert len(scene.detector(Frame(noisy(image, scene.rng), scene.time_us, step))) == 0


def test_another_resolution_starts_anew(scene):
    for size_wh in ((640, 480), (1920, 1080), (70, 50), (480, 360)):
        for number in range(3):
            scene.time_us += STEP_US
            image = np.full((size_wh[1], size_wh[0], 3), 40 * number + 60, np.uint8)
            assert len(scene.detector(Frame(image, scene.time_us, number))) == 0


def test_the_smallest_and_the_largest_person_are_limits(rng):
    for height, limits, expected in (
        (30, {}, 1),
        (24, {}, 0),
        (24, {"min_height": 0.05}, 1),
        (200, {"max_height": 0.5}, 0),
    ):
        scene = Scene(rng, **limits)
        scene.settle()
        assert len(scene.see((200, 100, height))[0]) == expected


def test_boxes_are_pixels_of_the_frame_at_any_reduction(rng):
    for width in (480, 240, 120):
        scene = Scene(rng, width=width)
        scene.settle()
        found, drawn = scene.see((200, 120, 120))
        assert np.abs(found.boxes - drawn).max() <= 2 * 480 / width + 1


# --- parts


@pytest.mark.parametrize(
    ("profile", "cuts"),
    [
        ([0, 5, 9, 10, 9, 5, 0], []),
        ([9, 10, 9, 6, 9, 10, 9], [3]),
        ([9, 10, 9, 8, 9, 10, 9], []),
        ([9, 10, 3, 4, 3, 9, 4, 10], [2, 6]),
        ([3, 2, 4, 10, 9, 2], []),
        ([10, 2, 4, 2, 4], []),
        ([], []),
    ],
)
def test_groups_are_cut_between_heads(profile, cuts):
    assert dips(np.array(profile, float), depth=2, head=6) == cuts


def test_pieces_of_one_person_are_joined_and_others_are_not():
    head, body, legs = (10, 0, 20, 10), (5, 12, 25, 40), (6, 42, 24, 60)
    neighbour, above = (60, 12, 80, 60), (5, -60, 25, -20)
    pieces = joined([(1, body), (2, neighbour), (3, head), (4, legs), (5, above)])
    assert sorted(sorted(blobs) for blobs, _span in pieces) == [[1, 3, 4], [2], [5]]
    assert {span for _blobs, span in pieces} == {(5, 0, 25, 60), neighbour, above}


def test_noise_everywhere_takes_bounded_time(rng):
    mask = np.where(rng.random((288, 384)) < 0.3, 255, 0).astype(np.uint8)
    mask = cv2.dilate(mask, np.ones((3, 1), np.uint8))
    began = cv2.getTickCount()
    find_people(mask, 10, 280)
    assert (cv2.getTickCount() - began) / cv2.getTickFrequency() < 1


# --- real pedestrians


def best_matches(found, truth, least_iou: float) -> int:
    """Pairs of a box found and a true one, the best first."""
    overlaps = ious(found, truth)
    pairs = 0
    while overlaps.size and overlaps.max() >= least_iou:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[row, :] = overlaps[:, column] = -1
        pairs += 1
    return pairs


def test_most_real_pedestrians_are_found(real_data):
    """Against pedestrian-detection-adas-0002; docs/detectors.md has the figures of the whole video."""
    path = real_data / "detectors/pedestrian-detection-adas-0002/FP16/pedestrian-detection-adas-0002.xml"
    if not path.is_file():
        pytest.skip(f"{path} is not there: docs/detectors.md says where it comes from")
    pytest.importorskip("openvino")
    reference = open_detector(ModelSettings(path=str(path), output="ssd", threads=2))
    motion, only_sure = open_detector(MotionSettings()), DetectionFilter(FilterSettings(confidence=0.35))
    pairs = found_count = true_count = 0
    with open_source(SourceSettings(uri=str(real_data / "vtest.avi"))) as source:
        for frame in source:
            found = DetectionFilter(FilterSettings())(motion(frame), frame)
            if frame.index >= 30 and frame.index % 15 == 0:
                truth = only_sure(reference(frame), frame)
                pairs += best_matches(found.boxes, truth.boxes, 0.5)
                found_count, true_count = found_count + len(found), true_count + len(truth)
    assert true_count > 200
    assert pairs / true_count > 0.83 and pairs / found_count > 0.83


@pytest.mark.parametrize("correction_us", [-31_536_000_000_000, 31_536_000_000_000])
def test_setting_the_clock_changes_nothing_of_what_is_seen(rng, correction_us):
    quiet = ground(rng)
    pictures = []
    for number in range(60):
        picture = quiet.copy()
        if number >= 20:
            draw_person(picture, 5 * number, 120)
        pictures.append(noisy(picture, rng))
    plain, corrected = open_detector(MotionSettings()), open_detector(MotionSettings())
    start_us, seen = 10**15, 0
    for index, picture in enumerate(pictures):
        step_us = correction_us if index >= 30 else 0
        expected = plain(Frame(picture, start_us + index * STEP_US, index))
        found = corrected(Frame(picture, start_us + index * STEP_US + step_us, index, step_us))
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        seen += len(found)
    assert seen > 20


def test_a_blob_like_a_car_an_arm_or_a_slab_scores_less_than_somebody_who_walks():
    def score(part):
        picture = np.zeros((200, 200), np.uint8)
        picture[40 : 40 + part.shape[0], 40 : 40 + part.shape[1]] = part * 255
        return find_people(picture, 20, 190).scores.max(initial=0)

    walker = outline(110, 44)
    slab = np.ones((110, 44), np.uint8)
    car = slab.copy()
    car[:25, :8] = car[:25, -8:] = 0
    arm = np.tri(110, 44, k=-20, dtype=np.uint8) - np.tri(110, 44, k=-75, dtype=np.uint8)
    assert score(walker) >= 0.85
    assert max(score(slab), score(car), score(arm)) < 0.6


def test_boxes_that_end_a_pixel_short_of_the_edge_reach_it():
    boxes = np.float32([[1, 0, 20, 89], [2, 2, 158, 88], [140, 40, 159, 90]])
    assert reaching_the_edge(boxes, 160, 90).tolist() == [[0, 0, 20, 90], [2, 2, 158, 88], [140, 40, 160, 90]]
    assert reaching_the_edge(np.empty((0, 4), np.float32), 160, 90).shape == (0, 4)
