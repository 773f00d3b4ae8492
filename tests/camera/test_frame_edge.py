import numpy as np
import pytest

from reid_edge.camera.frame_edge import LOOK_EVERY, LOOKS, PictureArea, cut_off, touch_edge

AREA = (0, 0, 640, 480)


@pytest.mark.parametrize(
    ("box", "lost"),
    [
        ([300, 100, 340, 200], False),
        ([300, 100, 500, 200], False),  # of an odd shape, inside the frame
        ([300, 0, 340, 100], False),  # the head just reaches the upper edge
        ([300, 4, 350, 100], True),  # wider: the head lies beyond it, though the detector's box ends before it
        ([0, 0, 40, 100], True),  # a corner takes from both measures
        ([600, 4, 640, 100], True),
        ([0, 200, 40, 300], False),
        ([3, 200, 28, 300], True),
        ([612, 200, 637, 300], True),
        ([300, 380, 395, 480], False),  # from the head to the hips
        ([300, 380, 405, 478], True),  # from the head to the shoulders
    ],
)
def test_what_the_edge_has_cut_off_is_seen_from_the_shape(box, lost):
    assert cut_off(np.array([box], np.float32), AREA).tolist() == [lost]


def test_each_box_is_judged_and_none_is_no_error():
    boxes = np.array([[300, 0, 350, 50], [300, 100, 340, 200], [0, 100, 20, 200]], np.float32)
    assert cut_off(boxes, AREA).tolist() == [True, False, True]
    assert touch_edge(boxes, AREA).tolist() == [True, False, True]
    assert cut_off(boxes[:0], AREA).shape == touch_edge(boxes[:0], AREA).shape == (0,)


def framed(left=0, top=0, right=0, bottom=0, *, black=0, size=(48, 64)):
    """A grey frame with bars of so many pixels."""
    image = np.full((*size, 3), black, np.uint8)
    image[top : size[0] - bottom, left : size[1] - right] = 90
    return image


def test_what_ends_at_a_black_bar_is_cut_off():
    area = PictureArea()(framed(top=10, bottom=4, left=3, black=9))
    assert area == (3, 10, 64, 44)
    boxes = np.array([[30, 10, 40, 30], [30, 14, 40, 30], [3, 20, 8, 40], [30, 38, 44, 44]], np.float32)
    assert touch_edge(boxes, area).tolist() == [True, False, True, True]
    assert cut_off(boxes, area).tolist() == [True, False, True, True]


def test_a_bar_is_black_in_every_frame():
    area = PictureArea()
    assert area(framed(top=10)) == (0, 10, 64, 48)
    assert area(framed(top=6)) == (0, 6, 64, 48)
    assert area(framed(top=10)) == (0, 6, 64, 48)


def test_dark_frames_tell_nothing():
    area = PictureArea()
    assert area(framed(left=64)) == area(framed(top=30)) == (0, 0, 64, 48)
    assert area(framed(right=5)) == (0, 0, 59, 48)
    assert area(framed(left=64)) == (0, 0, 59, 48)


def test_later_frames_are_looked_at_now_and_then():
    area = PictureArea()
    for _ in range(LOOKS):
        area(framed(top=10))
    found = [area(framed()) for _ in range(LOOK_EVERY)]
    assert set(found[: LOOK_EVERY - LOOKS]) == {(0, 10, 64, 48)}
    assert found[-1] == (0, 0, 64, 48)


def test_a_frame_of_another_size_begins_anew():
    area = PictureArea()
    area(framed(top=10))
    assert area(framed(size=(96, 128))) == (0, 0, 128, 96)
