import datetime
import sys

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.camera.frames import Detections, no_detections
from reid_edge.camera.tracking import EndedTrack, Tracker, TrackerSettings
from reid_edge.errors import MissingExtraError

START = 1_760_000_000_000_000
SECOND = 1_000_000


def found(*boxes, score=0.9):
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), score, np.float32))


class Street:
    """People of 40×110 pixels who walk straight, some to the right and some to the left, in lanes that overlap."""

    def __init__(self, people, rng, *, jitter=1.5, speed=(40, 80)):
        self.jitter, self.rng = jitter, rng
        self.x = np.linspace(0, 1200, people)
        self.y = 100 + 70 * (np.arange(people) % 4)
        self.speed = rng.uniform(*speed, people) * rng.choice([-1, 1], people)

    def boxes(self, seconds):
        left = np.abs((self.x + self.speed * seconds) % 4000 - 2000)  # to and fro
        boxes = np.stack([left, self.y, left + 40, self.y + 110], 1)
        return (boxes + self.rng.normal(0, self.jitter, boxes.shape)).astype(np.float32)


def walk(tracker, street, times, keep=lambda time, boxes: np.ones(len(boxes), bool)):
    """Track numbers given to each person, and every ended track."""
    owners, ended = {}, []
    for time in times:
        boxes = street.boxes(time)
        shown = keep(time, boxes)
        tracked = tracker.update(
            Detections(boxes[shown], np.full(shown.sum(), 0.9, np.float32)), START + round(time * SECOND)
        )
        ended += tracked.ended
        for box, track in zip(tracked.boxes, tracked.tracks, strict=True):
            person = int(np.abs(boxes - box).sum(1).argmin())
            owners.setdefault(person, []).append(int(track))
    return owners, ended


@pytest.mark.parametrize("rate", [5, 10, 25])
def test_a_person_keeps_one_number_at_any_frame_rate(rng, rate):
    street = Street(4, rng, speed=(30, 60))
    street.y = 100 + 150 * np.arange(4)
    owners, ended = walk(Tracker(), street, np.arange(0, 10, 1 / rate))
    assert all(len(set(tracks)) == 1 for tracks in owners.values())
    assert len({tracks[0] for tracks in owners.values()}) == 4
    assert ended == []


def test_a_person_hidden_for_less_than_the_lifespan_keeps_the_number(rng):
    street = Street(1, rng, speed=(30, 31))
    hidden = lambda time, boxes: np.array([not 2 <= time < 3])  # noqa: E731
    owners, _ = walk(Tracker(TrackerSettings(lifespan_s=1.5)), street, np.arange(0, 6, 0.1), hidden)
    assert set(owners[0]) == {1}


def test_frames_at_irregular_times(rng):
    street = Street(2, rng, speed=(30, 50))
    street.y = np.array([100, 300])
    times = np.cumsum(rng.uniform(0.02, 0.25, 80))
    owners, _ = walk(Tracker(), street, times)
    assert {person: set(tracks) for person, tracks in owners.items()} in ({0: {1}, 1: {2}}, {0: {2}, 1: {1}})


def test_a_track_ends_once_and_says_when_it_was_last_seen():
    tracker = Tracker(TrackerSettings(lifespan_s=1))
    for frame in range(5):
        tracker.update(found([10, 10, 50, 120]), START + frame * SECOND // 10)
    ended = []
    for frame in range(5, 40):
        ended += [(end, frame) for end in tracker.update(no_detections(), START + frame * SECOND // 10).ended]
    [(end, frame)] = ended
    assert end == EndedTrack(1, START + 4 * SECOND // 10)
    assert 14 <= frame <= 16
    assert tracker.live == 0


def test_after_a_gap_in_the_frames_nobody_is_continued():
    tracker = Tracker(TrackerSettings(lifespan_s=1))
    tracker.update(found([10, 10, 50, 120]), START)
    later = tracker.update(found([10, 10, 50, 120]), START + 10 * SECOND)
    assert later.ended == (EndedTrack(1, START),)
    assert later.tracks.tolist() == [2]


@pytest.mark.parametrize("year", [1970, 2262, 9999])
def test_a_clock_of_any_year_will_do(year):
    began_us = round(datetime.datetime(year, 12, 31, 23, 59, tzinfo=datetime.timezone.utc).timestamp()) * SECOND
    tracker = Tracker(TrackerSettings(lifespan_s=1))
    for frame in range(5):
        seen = tracker.update(found([10, 10, 50, 120]), began_us + frame * SECOND // 10)
        assert seen.tracks.tolist() == [1]
    assert tracker.finish() == (EndedTrack(1, began_us + 4 * SECOND // 10),)
    assert tracker.update(found([10, 10, 50, 120]), began_us + SECOND).tracks.tolist() == [2]


def test_finishing_ends_every_track_and_numbers_go_on():
    tracker = Tracker()
    tracker.update(found([10, 10, 50, 120], [300, 10, 340, 120]), START)
    assert sorted(end.track for end in tracker.finish()) == [1, 2]
    assert tracker.finish() == ()
    assert tracker.update(found([10, 10, 50, 120]), START + 1).tracks.tolist() == [3]


def test_a_low_score_continues_a_track_and_starts_none():
    tracker = Tracker(TrackerSettings(high_confidence=0.6))
    assert len(tracker.update(found([10, 10, 50, 120], score=0.4), START).tracks) == 0
    tracker.update(found([10, 10, 50, 120], score=0.7), START + 100_000)
    assert tracker.update(found([10, 10, 50, 120], score=0.2), START + 200_000).tracks.tolist() == [1]


def test_the_boxes_are_the_detectors_own():
    tracker = Tracker()
    for frame in range(4):
        box = [10 + 7.25 * frame, 10, 50 + 7.25 * frame, 120]
        tracked = tracker.update(found(box), START + frame * 100_000)
        assert tracked.boxes.tolist() == [box]
        assert tracked.boxes.dtype == np.float32 and tracked.tracks.dtype == np.int64


def test_boxes_of_another_type_or_layout_come_out_as_float32():
    boxes = np.asfortranarray([[10.0, 10, 50, 120], [300, 10, 340, 120]])
    tracked = Tracker().update(Detections(boxes, np.array([0.9, 0.8])), START)
    assert tracked.boxes.dtype == tracked.scores.dtype == np.float32
    assert tracked.boxes.tolist() == boxes.tolist() and tracked.tracks.tolist() == [1, 2]


@pytest.mark.parametrize(
    "bad", [[np.nan] * 4, [np.inf, 0, 5, 5], [10, 10, 10, 120], [50, 120, 10, 10], [0, 0, 3e38, np.inf]]
)
def test_an_unusable_box_is_left_out_and_spoils_no_track(bad):
    tracker = Tracker()
    for frame in range(20):
        tracked = tracker.update(found([10, 10, 50, 120], bad), START + frame * 100_000)
        assert tracked.tracks.tolist() == [1]


def test_a_score_that_is_no_number_is_left_out():
    tracker = Tracker()
    tracker.update(found([10, 10, 50, 120]), START)
    assert len(tracker.update(found([10, 10, 50, 120], score=np.nan), START + 100_000).tracks) == 0
    assert tracker.update(found([10, 10, 50, 120]), START + 200_000).tracks.tolist() == [1]


def test_live_tracks_are_bounded_and_old_ones_go_on():
    tracker = Tracker(TrackerSettings(max_tracks=20, max_boxes=8, lifespan_s=1000))
    grid = [[x, y, x + 20, y + 50] for y in range(0, 600, 60) for x in range(0, 600, 30)]
    for frame in range(60):
        tracked = tracker.update(found(*grid[(8 * frame) % 192 :][:8]), START + frame * 1000)
        assert len(tracked.tracks) <= 8
        assert tracker.live <= 20 + 8
    again = tracker.update(found(grid[0]), START + 60_000)
    assert again.tracks.tolist() == [1]


def test_of_too_many_boxes_the_best_are_tracked():
    boxes = np.array([[50 * i, 0, 50 * i + 40, 100] for i in range(6)], np.float32)
    scores = np.array([0.7, 0.95, 0.8, 0.99, 0.65, 0.9], np.float32)
    tracked = Tracker(TrackerSettings(max_boxes=3)).update(Detections(boxes, scores), START)
    assert tracked.scores.tolist() == pytest.approx([0.95, 0.99, 0.9])


def test_a_clock_that_stands_or_goes_back_ends_nothing():
    tracker = Tracker()
    for time in (START, START, START - 5 * SECOND, START + 1):
        tracked = tracker.update(found([10, 10, 50, 120]), time)
        assert tracked.tracks.tolist() == [1] and tracked.ended == ()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0.01, 0.7), st.floats(0.3, 1))
def test_numbers_are_unique_in_a_frame_grow_and_end_once(seed, people, step, shown):
    rng = np.random.default_rng(seed)
    street, tracker = Street(people, rng, jitter=6), Tracker(TrackerSettings(lifespan_s=0.8))
    seen, ended, highest = set(), [], 0
    for frame in range(30):
        boxes = street.boxes(frame * step)
        kept = rng.uniform(size=people) < shown
        scores = rng.uniform(0, 1, kept.sum()).astype(np.float32)
        tracked = tracker.update(Detections(boxes[kept], scores), START + round(frame * step * SECOND))
        tracks = tracked.tracks.tolist()
        assert len(set(tracks)) == len(tracks) == len(tracked.boxes) == len(tracked.scores)
        new = set(tracks) - seen
        assert all(track > highest for track in new)
        highest = max([highest, *new])
        seen |= new
        ended += [end.track for end in tracked.ended]
        assert not set(ended) & set(tracks)
    ended += [end.track for end in tracker.finish()]
    assert sorted(ended) == sorted(seen)
    assert tracker.live == 0


def test_the_same_boxes_get_the_same_numbers_again():
    def numbers():
        tracker, street = Tracker(), Street(8, np.random.default_rng(3), jitter=4)
        return [
            tracker.update(found(*street.boxes(frame / 10)), START + frame * 100_000).tracks.tolist()
            for frame in range(50)
        ]

    assert numbers() == numbers()


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "edgefirst.tracker", None)
    with pytest.raises(MissingExtraError, match=r"reid-edge\[camera\]"):
        Tracker()


@pytest.mark.parametrize("values", [{"min_iou": 1.5}, {"lifespan_s": 0}, {"max_tracks": 0}, {"iou": 0.2}])
def test_settings_that_make_no_sense_are_refused(values):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, TrackerSettings)


def test_weak_boxes_do_not_carry_a_track_away_to_something_else():
    tracker = Tracker()
    tracker.update(found([100, 10, 140, 120]), START)
    beside = tracker.update(found([124, 10, 164, 120], score=0.4), START + 100_000)  # IoU 0.25: the library takes it
    assert beside.tracks.tolist() == []
    assert tracker.update(found([104, 10, 144, 120], score=0.4), START + 200_000).tracks.tolist() == [1]


def test_weak_boxes_alone_continue_a_track_for_its_lifespan_only():
    tracker, box = Tracker(), [100, 10, 140, 120]
    tracker.update(found(box), START)
    kept = [len(tracker.update(found(box, score=0.4), START + step * 100_000).tracks) for step in range(1, 40)]
    assert sum(kept) == 10
    assert tracker.live == 0
