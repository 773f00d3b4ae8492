import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.camera.quality import crop_quality, visible_term

GOOD = [300, 200, 360, 340]


def quality(*boxes, width=1280, height=720):
    return crop_quality(np.array(boxes, np.float32).reshape(-1, 4), width=width, height=height)


def test_a_whole_upright_person_alone_is_worth_most():
    assert quality(GOOD)[0] > 0.99


@pytest.mark.parametrize(
    ("worse", "why"),
    [
        ([300, 200, 313, 232], "32 pixels high"),
        ([300, 200, 440, 340], "as wide as high: half a person"),
        ([300, 200, 330, 340], "cut at the side"),
        ([0, 200, 60, 340], "at the left edge"),
        ([300, 0, 360, 140], "at the upper edge"),
        ([1220, 200, 1280, 340], "at the right edge"),
        ([300, 580, 360, 720], "at the lower edge"),
        ([-20, 580, 40, 760], "beyond the frame"),
    ],
)
def test_a_worse_box_is_worth_less(worse, why):
    assert quality(worse)[0] < 0.93 * quality(GOOD)[0], why


def test_who_stands_behind_loses_and_who_stands_in_front_does_not():
    behind, front = [300, 200, 360, 340], [320, 220, 380, 360]
    values = quality(behind, front)
    assert values[0] < 0.6 and values[1] == pytest.approx(quality(front)[0])


def test_the_more_is_covered_the_less_it_is_worth():
    values = [quality([300, 200, 360, 340], [300 + shift, 210, 360 + shift, 350])[0] for shift in range(0, 70, 6)]
    assert values == sorted(values)
    assert values[0] < 0.1 and values[-1] > 0.99


def test_covering_is_that_of_the_worst_box_in_front():
    boxes = np.array([[0, 0, 100, 100], [0, 50, 100, 150], [80, 0, 180, 120]], np.float32)
    assert visible_term(boxes)[0] == pytest.approx(0.28)  # half is left; 20 % aside costs less


def test_no_boxes_no_qualities():
    values = quality()
    assert values.shape == (0,) and values.dtype == np.float32


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_quality_lies_between_0_and_1_and_follows_the_boxes(seed, count):
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(-100, 1400, (count, 4)).astype(np.float32)  # some upside down, as no detector should give
    values = quality(*boxes)
    assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()
    order = rng.permutation(count)
    assert np.allclose(quality(*boxes[order]), values[order])
