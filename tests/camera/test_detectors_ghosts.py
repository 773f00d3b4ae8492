import numpy as np
import pytest

from reid_edge.camera.detectors.ghosts import RecentFrames

BOXES = np.array([[0, 0, 10, 20], [10, 0, 20, 20]], np.float32)
MOVING = np.full((20, 20), 255, np.uint8)


def frame(level=0, left=0):
    picture = np.full((20, 20, 3), 100, np.uint8)
    picture[:, :10] += left
    return picture + np.uint8(level)


@pytest.fixture
def recent():
    return RecentFrames()


def test_the_changed_part_of_each_blob_is_told_over_a_third_of_a_second(recent):
    for time_us, left in ((0, 0), (100_000, 50), (200_000, 50), (300_000, 50)):
        recent.remember(frame(left=left), time_us)
    assert recent.changed(MOVING, BOXES).tolist() == [1, 0]
    moving = MOVING.copy()
    moving[:15, 10:] = 0
    recent.remember(frame(left=50), 400_000)  # compared with the frame of 100 ms
    assert recent.changed(moving, BOXES).tolist() == [0, 0]


def test_only_moving_pixels_count_and_a_blob_without_any_is_no_error(recent):
    recent.remember(frame(), 0)
    recent.remember(frame(left=50), 300_000)
    moving = MOVING.copy()
    moving[:, 5:] = 0
    assert recent.changed(moving, BOXES).tolist() == [1, 0]


def test_noise_is_no_change(recent):
    recent.remember(frame(), 0)
    recent.remember(frame(level=12), 300_000)
    assert recent.changed(MOVING, BOXES).tolist() == [0, 0]


def test_too_little_time_and_another_size_tell_nothing(recent):
    recent.remember(frame(), 0)
    recent.remember(frame(), 299_999)
    assert recent.changed(MOVING, BOXES).tolist() == [1, 1]
    recent.remember(np.zeros((10, 10, 3), np.uint8), 400_000)
    assert recent.changed(np.full((10, 10), 255, np.uint8), BOXES[:1] / 2).tolist() == [1]
    assert recent.changed(MOVING, BOXES[:0]).shape == (0,)


def test_at_two_frames_a_second_the_last_two_are_compared(recent):
    for index in range(5):
        recent.remember(frame(left=50 * (index % 2)), index * 500_000)
        assert len(recent._frames) <= 2
    assert recent.changed(MOVING, BOXES).tolist() == [1, 0]
