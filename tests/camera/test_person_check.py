"""Tracks of one whole person pass; parts, furniture, cars' shadows and things that only change do not."""

import os
from pathlib import Path

import numpy as np
import pytest

from reid_edge.camera.crop_selector import CropSelector, crop_quality
from reid_edge.camera.detectors import MotionSettings, open_detector
from reid_edge.camera.frame_edge import PictureArea
from reid_edge.camera.person_check import PersonCheck, PersonSettings
from reid_edge.camera.sources import SourceSettings, open_source
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes, Tracker

VTEST = Path(os.environ.get("REID_EDGE_DATA", "/nonexistent"), "vtest.avi")

START = 1_760_000_000_000_000
HEIGHT, AREA = 480, (0, 0, 640, 480)


def tracked(box, score=0.9, track=1):
    return TrackedBoxes(np.array([box], np.float32), np.array([score], np.float32), np.array([track]), ())


def walk(
    check, *, boxes=10, step=15.0, left=100.0, height=lambda frame: 100.0, score=lambda frame: 0.9, track=1, crop=True
):
    """A track at 10 frames a second, and the verdict of its end."""
    for frame in range(boxes):
        x = left + step * frame
        box = [x, 200, x + 40, 200 + height(frame)]
        check.update(tracked(box, score(frame), track), START + frame * 100_000, HEIGHT, AREA)
    if crop:
        check.chose([track])
    [ended] = check.finish([EndedTrack(track, START)])
    return ended.failing


@pytest.mark.parametrize("by_motion", [False, True])
def test_somebody_who_walks_passes(by_motion):
    check = PersonCheck(by_motion=by_motion)
    assert walk(check) == ""
    assert (check.passed, check.failed.total(), len(check)) == (1, 0, 0)


def test_a_track_of_few_boxes_is_short_however_long_it_lasts():
    for boxes, verdict in ((3, "short"), (4, "")):
        check = PersonCheck()
        for frame in range(boxes):
            check.update(tracked([100, 200, 140, 300]), START + frame * 5_000_000, HEIGHT, AREA)
        assert check.failing(1) == verdict


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
            check.update(tracked(box(frame)), START + frame * 100_000, HEIGHT, AREA)
        assert check.failing(1) == verdict
        assert [ended.failing for ended in check.end([EndedTrack(1, START)])] == [verdict]


def in_place(check, boxes):
    """A track with these boxes at 10 frames a second, and what is against it."""
    for frame, box in enumerate(boxes):
        check.update(tracked(box), START + frame * 100_000, HEIGHT, AREA)
    return check.failing(1)


WHOLE, LEGS, HALF = [300, 200, 340, 300], [300, 0, 360, 100], [0, 200, 25, 300]
CLOSE, SHOULDERS = [300, 280, 460, 480], [300, 330, 460, 480]


@pytest.mark.parametrize(
    ("box", "verdict"), [(WHOLE, ""), (LEGS, "cut_off"), (HALF, "cut_off"), (CLOSE, ""), (SHOULDERS, "cut_off")]
)
def test_a_model_s_track_that_the_edge_cuts_off_in_every_box_is_not_published(box, verdict):
    assert in_place(PersonCheck(), [box] * 10) == verdict
    assert in_place(PersonCheck(PersonSettings(min_whole=0)), [box] * 10) == ""


def test_somebody_who_comes_into_the_frame_passes_once_a_few_boxes_are_whole():
    assert in_place(PersonCheck(), [LEGS] * 30 + [WHOLE] * 3) == "cut_off"
    assert in_place(PersonCheck(), [LEGS] * 30 + [WHOLE] * 4) == ""
    assert in_place(PersonCheck(), [LEGS] * 3 + [WHOLE] * 3) == ""  # half of a short track is enough
    assert in_place(PersonCheck(PersonSettings(min_whole=1)), [LEGS] * 30 + [WHOLE]) == ""


def test_nothing_is_cut_off_where_the_rule_is_switched_off_for_motion():
    at_edge = [[100 + 15 * frame, 380, 140 + 15 * frame, 480] for frame in range(10)]
    settings = PersonSettings(min_whole=0, evidence_s=0)
    assert in_place(PersonCheck(settings, by_motion=True), at_edge) == ""


def test_the_usual_height_is_that_inside_the_frame():
    check = PersonCheck()
    in_place(check, [[300, 0, 340, 50]] * 10)
    assert check.usual_height(1) == pytest.approx(50 / 480)
    in_place(check, [WHOLE] * 2)
    assert check.usual_height(1) == pytest.approx(100 / 480)


def test_motion_is_out_of_its_depth_while_few_of_the_last_tracklets_are_people():
    check = PersonCheck(by_motion=True)
    for track in range(1, 16):
        walk(check, boxes=2, track=track)
    assert not check.out_of_depth  # too few to tell
    walk(check, boxes=2, track=16)
    assert check.out_of_depth and check.passing == (0, 16)
    for frame in range(10):
        check.update(tracked([100 + 15 * frame, 200, 140 + 15 * frame, 300], track=99), at(frame / 10), HEIGHT, AREA)
    assert check.failing(99) == "out_of_depth"
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


def across(check, track, *, height=100.0, bottom=300.0, second=0.0):
    """A track that ends; which tracks are judged then, and how."""
    for frame in range(10):
        x = 100 + 15 * frame
        check.update(tracked([x, bottom - height, x + 40, bottom], track=track), at(second + frame / 10), HEIGHT, AREA)
    check.chose([track])
    return {judged.track: judged.failing for judged in check.end([EndedTrack(track, at(second + 1))])}


def at(second):
    return START + round(second * 1e6)


def nobody():
    return TrackedBoxes(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), ())


def test_a_track_of_motion_waits_until_three_others_were_seen_in_its_place():
    check = PersonCheck(by_motion=True)
    assert [across(check, track, second=2 * track) for track in (1, 2, 3)] == [{}, {}, {}]
    assert len(check) == 3 and (check.passed, check.failed.total()) == (0, 0)
    assert across(check, 4, second=8) == {1: "", 2: "", 3: "", 4: ""}
    assert len(check) == 0 and check.passed == 4
    assert across(check, 5, second=10) == {5: ""}


def test_a_track_of_motion_waits_for_a_minute_at_most():
    check = PersonCheck(by_motion=True)
    assert across(check, 1) == {}
    check.update(nobody(), at(59), HEIGHT, AREA)
    assert check.end([]) == ()
    check.update(nobody(), at(60), HEIGHT, AREA)
    [judged] = check.end([])
    assert (judged.track, judged.failing) == (1, "")
    assert check.end([]) == ()


@pytest.mark.parametrize(("height", "verdict"), [(60, "odd_size"), (70, ""), (100, ""), (140, ""), (160, "odd_size")])
def test_what_is_much_lower_or_higher_than_others_in_its_place_is_not_one_whole_person(height, verdict):
    check = PersonCheck(by_motion=True)
    for track in (1, 2, 3, 4):
        across(check, track, second=2 * track)
    across(check, 5, height=height, second=10)
    last = {judged.track: judged.failing for judged in check.finish([])} or {5: ""}
    assert last == {5: verdict}
    assert check.failed == ({verdict: 1} if verdict else {})


def test_a_track_of_another_height_is_judged_by_those_that_come_after_it_too():
    check = PersonCheck(by_motion=True)
    for track in (1, 2, 3):
        across(check, track, height=60, second=2 * track)  # legs, before anybody came whole
    assert 4 not in across(check, 4, height=100, second=8)
    judged = {}
    for track in range(5, 12):
        judged |= across(check, track, height=100, second=2 * track)
    judged |= {each.track: each.failing for each in check.finish([])}
    assert all(judged[track] == "" for track in range(4, 12))


def test_only_those_in_the_same_place_are_compared():
    check = PersonCheck(by_motion=True)
    for track in (1, 2, 3, 4):
        across(check, track, bottom=400, height=150, second=2 * track)
    across(check, 5, bottom=120, height=60, second=10)  # far away
    assert [(judged.track, judged.failing) for judged in check.finish([])] == [(5, "")]


def test_boxes_at_the_edge_of_the_frame_do_not_tell_a_height():
    check = PersonCheck(by_motion=True)
    for track in (1, 2, 3, 4):
        across(check, track, bottom=300, second=4 * track)
        across(check, track + 10, bottom=200, second=4 * track + 2)
    for frame in range(12):  # somebody comes in over the left edge: half of their boxes are cut off
        box = [0, 150, 40, 200] if frame < 6 else [20 * frame, 200, 40 + 20 * frame, 300]
        check.update(tracked(box, track=5), at(20 + frame / 10), HEIGHT, AREA)
    assert check.failing(5) == ""


def test_a_live_track_of_motion_is_not_published_early_where_nobody_was_seen_before():
    check = PersonCheck(by_motion=True)
    for frame in range(700):
        box = [100 + frame / 2, 200, 140 + frame / 2, 300]
        check.update(tracked(box), at(frame / 10), HEIGHT, AREA)
        if frame == 599:
            assert check.failing(1) == "unproven"
    assert check.failing(1) == ""  # a minute has passed


def test_a_model_is_asked_for_no_evidence():
    check = PersonCheck()
    assert across(check, 1) == {1: ""}
    assert across(PersonCheck(PersonSettings(max_height_ratio=1.5)), 1) == {}
    assert across(PersonCheck(PersonSettings(max_height_ratio=1.5, evidence_s=0)), 1) == {1: ""}


def test_waiting_does_not_count_against_motion():
    """Those that fail are judged at once, those that pass perhaps a minute later: all count from their end on."""
    check = PersonCheck(by_motion=True)
    assert [across(check, track, second=2 * track) for track in (1, 2)] == [{}, {}]
    assert check.passed == 0 and check.passing == (2, 2)


def test_short_tracks_tell_no_height():
    check = PersonCheck(by_motion=True)
    for track in range(1, 20):
        walk(check, boxes=3, track=track)
    assert across(check, 20) == {}


def test_motion_does_not_suit_a_scene_where_more_tracklets_fail_than_pass():
    for by_motion in (True, False):
        check = PersonCheck(by_motion=by_motion)
        for track in (1, 2, 3):
            walk(check, boxes=2, track=track)
        assert not check.mostly_failed  # too few to tell
        walk(check, track=4)
        assert check.mostly_failed == by_motion
        for track in (5, 6):
            walk(check, track=track)
        assert not check.mostly_failed


def test_the_usual_height_is_the_median_of_the_strong_boxes():
    check = PersonCheck()
    assert check.usual_height(1) == 0
    for frame, height in enumerate((100, 100, 50, 110, 100)):
        check.update(tracked([100, 300 - height, 140, 300]), at(frame), HEIGHT, AREA)
    check.update(tracked([100, 20, 140, 300], score=0.3), at(6), HEIGHT, AREA)
    assert check.usual_height(1) == pytest.approx(100 / 480)
    [judged] = check.finish([EndedTrack(1, at(7))])
    assert judged.usual_height == pytest.approx(100 / 480)


@pytest.mark.slow
@pytest.mark.skipif(not VTEST.exists(), reason="REID_EDGE_DATA holds no vtest.avi")
def test_motion_suits_a_real_street_all_the_time():
    detector, tracker = open_detector(MotionSettings()), Tracker()
    check, selector = PersonCheck(by_motion=True), CropSelector()
    find_area = PictureArea()
    with open_source(SourceSettings(uri=str(VTEST))) as source:
        for frame in source:
            seen = tracker.update(detector(frame), frame.captured_us)
            area = find_area(frame.image)
            check.update(seen, frame.captured_us, frame.image.shape[0], area)
            strong = check.strong(seen.scores)
            quality = crop_quality(seen.boxes, area=area)
            chosen = selector.select(seen.take(strong), quality[strong], frame.captured_us).rows
            check.chose(seen.tracks[strong][chosen].tolist())
            check.end(seen.ended)
            assert not check.out_of_depth, frame.index
    check.finish(tracker.finish())
    assert check.passed >= 30 and check.passed > 2 * check.failed.total()
    assert not check.failed["odd_size"]
