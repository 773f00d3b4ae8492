"""How high people are in each part of the picture, by the tracks that were seen there."""

import numpy as np
import pytest

from reid_edge.camera.usual_heights import ENOUGH, TrackHeights, UsualHeights

FRAME = 480
BAND = FRAME // 12


def heights(*boxes):
    """Medians of a track whose boxes have these lower edges and heights, pixels."""
    track = TrackHeights()
    for bottom, height in boxes:
        track.add(np.array([100, bottom - height, 140, bottom], np.float32), FRAME)
    return track.medians()


def usual(*tracks):
    found = UsualHeights()
    for track in tracks:
        found.add(track)
    return found


def test_a_track_is_compared_with_the_median_of_others_in_its_place():
    others = [heights((300, height), (300, height)) for height in (90, 100, 300)]
    assert usual(*others).ratio(heights((300, 50), (300, 50))) == pytest.approx(0.5)


def test_nothing_is_said_before_enough_others_were_seen_there():
    others = [heights((300, 100), (300, 100)) for _ in range(ENOUGH - 1)]
    assert usual(*others).ratio(heights((300, 100), (300, 100))) is None


def test_a_track_is_not_compared_with_itself():
    tracks = [heights((300, 100), (300, 100)) for _ in range(ENOUGH)]
    assert usual(*tracks).ratio(tracks[0]) is None


@pytest.mark.parametrize(("bands", "compared"), [(0, True), (1, True), (2, False)])
def test_the_place_is_a_band_of_the_picture_and_those_next_to_it(bands, compared):
    others = [heights((300 + bands * BAND, 100), (300 + bands * BAND, 100)) for _ in range(ENOUGH)]
    assert (usual(*others).ratio(heights((300, 100), (300, 100))) is not None) == compared


def test_one_box_tells_no_height():
    assert heights((300, 100)) == {}
    others = [heights((300, 100)) for _ in range(ENOUGH)]
    assert usual(*others).ratio(heights((300, 100), (300, 100))) is None


def test_the_places_of_a_track_count_by_their_boxes():
    others = [heights(*[(300, 100)] * 2, *[(460, 200)] * 2) for _ in range(ENOUGH)]
    long_there = heights(*[(300, 50)] * 2, *[(460, 200)] * 9)
    assert usual(*others).ratio(long_there) == pytest.approx(1)
    assert usual(*others).ratio(heights(*[(300, 50)] * 9, *[(460, 200)] * 2)) == pytest.approx(0.5)


def test_what_was_seen_long_ago_is_forgotten():
    old = [heights((300, 50), (300, 50)) for _ in range(100)]
    new = [heights((300, 100), (300, 100)) for _ in range(64)]
    assert usual(*old, *new).ratio(heights((300, 100), (300, 100))) == pytest.approx(1)
    far = [heights((100, 50), (100, 50)) for _ in range(64)]
    assert usual(*new, *far).ratio(heights((300, 100), (300, 100))) is None


def test_lower_edges_beyond_the_frame_count_as_its_last_band():
    others = [heights((480, 100), (480, 100)) for _ in range(ENOUGH)]
    assert usual(*others).ratio(heights((479, 100), (479, 100))) == pytest.approx(1)
