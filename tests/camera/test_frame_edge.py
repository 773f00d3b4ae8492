import numpy as np
import pytest

from reid_edge.camera.frame_edge import cut_off, touch_edge

WIDTH, HEIGHT = 640, 480


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
    assert cut_off(np.array([box], np.float32), WIDTH, HEIGHT).tolist() == [lost]


def test_each_box_is_judged_and_none_is_no_error():
    boxes = np.array([[300, 0, 350, 50], [300, 100, 340, 200], [0, 100, 20, 200]], np.float32)
    assert cut_off(boxes, WIDTH, HEIGHT).tolist() == [True, False, True]
    assert touch_edge(boxes, WIDTH, HEIGHT).tolist() == [True, False, True]
    assert cut_off(boxes[:0], WIDTH, HEIGHT).shape == touch_edge(boxes[:0], WIDTH, HEIGHT).shape == (0,)
