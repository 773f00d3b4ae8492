"""Tracks of one whole person pass; parts, furniture, cars' shadows and things that only change do not."""

import numpy as np
import pytest

from reid_edge.camera.person_check import PersonCheck, PersonSettings
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes

START = 1_760_000_000_000_000
SIZE_WH = (640, 480)


def tracked(box, score=0.9, track=1):
    return TrackedBoxes(np.array([box], np.float32), np.array([score], np.float32), np.array([track]), ())


def walk(
    check, *, boxes=10, step=15.0, left=100.0, height=lambda frame: 100.0, score=lambda frame: 0.9, track=1, crop=True
):
    """A track at 10 frames a second, and the verdict of its end."""
    for frame in range(boxes):
        x = left + step * frame
        box = [x, 200, x + 40, 200 + height(frame)]
        check.update(tracked(box, score(frame), track), START + frame * 100_000, SIZE_WH)
    if crop:
        check.chose([track])
    [ended] = check.end([EndedTrack(track, START)])
    return ended.failing


@pytest.mark.parametrize("by_motion", [False, True])
def test_somebody_who_walks_passes(by_motion):
    check = PersonCheck(by_motion=by_motion)
    assert walk(check) == ""
    assert (check.passed, check.failed.total(), len(check)) == (1, 0, 0)


@pytest.mark.parametrize("boxes", [1, 3, 5])
def test_a_track_that_does_not_last_is_short(boxes):
    check = PersonCheck()
    assert walk(check, boxes=boxes) == "short"
    assert check.failed == {"short": 1}


def test_a_track_that_lasts_by_weak_boxes_alone_is_weak_or_short():
    check = PersonCheck()
    assert walk(check, boxes=30, score=lambda frame: 0.9 if frame < 2 else 0.4) == "short"
    assert walk(check, boxes=30, score=lambda frame: 0.9 if frame % 3 == 0 else 0.4) == "weak"
    assert walk(check, boxes=30, score=lambda frame: 0.9 if frame % 3 else 0.4) == ""


def test_what_changes_its_height_all_the_time_is_unsteady_for_motion_only():
    def flickering(frame):
        return 100.0 + 20 * (frame % 2)

    assert walk(PersonCheck(by_motion=True), height=flickering) == "unsteady"
    assert walk(PersonCheck(), height=flickering) == ""
    assert walk(PersonCheck(PersonSettings(max_height_change=0.1)), height=flickering) == "unsteady"


def test_somebody_who_comes_nearer_is_steady():
    assert walk(PersonCheck(by_motion=True), boxes=20, height=lambda frame: 80.0 + 4 * frame) == ""


def test_what_only_changes_where_it_is_stays_out_with_motion_only():
    assert walk(PersonCheck(by_motion=True), step=0.5) == "still"
    assert walk(PersonCheck(), step=0.5) == ""
    assert walk(PersonCheck(PersonSettings(min_travel=0.5)), step=0.5) == "still"


def test_what_lies_at_the_edge_of_the_frame_most_of_the_time_is_cut_off_with_motion_only():
    def box(frame):
        return [100 + 15 * frame, 380, 140 + 15 * frame, 480]

    for by_motion, verdict in ((True, "cut_off"), (False, "")):
        check = PersonCheck(by_motion=by_motion)
        for frame in range(10):
            check.update(tracked(box(frame)), START + frame * 100_000, SIZE_WH)
        assert check.failing(1) == verdict
        assert [ended.failing for ended in check.end([EndedTrack(1, START)])] == [verdict]


def test_motion_is_out_of_its_depth_while_few_of_the_last_tracklets_are_people():
    check = PersonCheck(by_motion=True)
    for track in range(1, 16):
        walk(check, boxes=2, track=track)
    assert not check.out_of_depth  # too few to tell
    walk(check, boxes=2, track=16)
    assert check.out_of_depth and check.passing == (0, 16)
    assert walk(check, track=17) == "out_of_depth"
    for track in range(18, 40):
        walk(check, track=track)
    assert not check.out_of_depth
    assert walk(check, track=40) == ""


def test_tracks_without_a_crop_do_not_tell_that_motion_is_out_of_its_depth():
    check = PersonCheck(by_motion=True)
    for track in range(1, 60):
        walk(check, boxes=2, track=track, crop=False)
    assert not check.out_of_depth and check.passing == (0, 0)
    assert (check.passed, check.failed.total()) == (0, 0)


@pytest.mark.parametrize(("every", "suits"), [(2, True), (4, False)])
def test_motion_suits_a_scene_where_half_of_the_tracklets_are_people(every, suits):
    check = PersonCheck(by_motion=True)
    for track in range(1, 33):
        walk(check, boxes=10 if track % every == 0 else 2, track=track)
    assert check.out_of_depth != suits


def test_a_model_is_never_out_of_its_depth_nor_is_motion_if_nothing_is_to_be_withheld():
    for check in (PersonCheck(), PersonCheck(PersonSettings(min_passing=0), by_motion=True)):
        for track in range(1, 40):
            walk(check, boxes=2, track=track)
        assert not check.out_of_depth
        assert walk(check, track=40) == ""


def test_only_strong_scores_give_crops():
    assert PersonCheck(high_confidence=0.5).strong(np.float32([0.49, 0.5, 1])).tolist() == [False, True, True]


def test_a_track_without_a_box_is_short():
    assert PersonCheck().failing(7) == "short"
