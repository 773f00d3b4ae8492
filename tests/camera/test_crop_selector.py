import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.camera.crop_selector import CropSelector, CropSelectorSettings, crop_quality, visible_term
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes

START = 1_760_000_000_000_000
PLAIN = CropSelectorSettings(interval_s=1, better_by=1.3, better_s=0.2, min_quality=0.5, patience_s=0.5)


def tracked(tracks, ended=()):
    count = len(tracks)
    return TrackedBoxes(
        np.tile(np.float32([0, 0, 40, 100]), (count, 1)),
        np.full(count, 0.9, np.float32),
        np.array(tracks, np.int64),
        tuple(EndedTrack(track, START) for track in ended),
    )


def choices(selector, qualities, *, step=0.1):
    """When, in tenths of a second, the crops of one track are chosen, and why; quality None: not in the frame."""
    chosen = {}
    for frame, value in enumerate(qualities):
        boxes = tracked([] if value is None else [1])
        values = np.array([] if value is None else [value], np.float32)
        selection = selector.select(boxes, values, START + round(frame * step * 1e6))
        if len(selection.rows):
            chosen[frame] = selection.reasons[0]
    return chosen


def test_first_sight_then_every_second():
    assert choices(CropSelector(PLAIN), [0.8] * 35) == {0: "first", 10: "interval", 20: "interval", 30: "interval"}


def test_a_poor_first_crop_is_waited_for_but_not_for_ever():
    assert choices(CropSelector(PLAIN), [0.2, 0.2, 0.6, 0.6]) == {2: "first"}
    assert choices(CropSelector(PLAIN), [0.2] * 8) == {5: "first"}


def test_a_clearly_better_crop_does_not_wait():
    assert choices(CropSelector(PLAIN), [0.6, 0.6, 0.6, 0.9, 0.9]) == {0: "first", 3: "better"}
    assert choices(CropSelector(PLAIN), [0.6, 0.6, 0.6, 0.7, 0.7]) == {0: "first"}


def test_better_crops_come_at_most_so_often():
    rising = [0.2 * 1.5**frame for frame in range(4)]
    selector = CropSelector(msgspec.structs.replace(PLAIN, min_quality=0))
    assert choices(selector, rising) == {0: "first", 2: "better"}


def test_a_worse_crop_taken_in_turn_does_not_lower_the_best():
    assert choices(CropSelector(PLAIN), [0.8] * 10 + [0.5] * 5 + [0.7] * 3) == {0: "first", 10: "interval"}


def test_a_person_out_of_sight_is_taken_at_once_when_back_after_the_interval():
    assert choices(CropSelector(PLAIN), [0.8] * 3 + [None] * 12 + [0.8]) == {0: "first", 15: "interval"}


def test_one_crop_per_track():
    selector = CropSelector(CropSelectorSettings(mode="first", min_quality=0.5))
    assert choices(selector, [0.1, 0.6, *[0.9] * 50]) == {1: "first"}


def test_every_crop():
    assert choices(CropSelector(CropSelectorSettings(mode="every")), [0.0, 0.9, 0.1]) == dict.fromkeys(
        range(3), "every"
    )


def test_the_default_takes_the_first_good_crop_and_one_a_second():
    assert choices(CropSelector(), [0.9, 1.0] + [1.0] * 20) == {1: "first", 11: "interval", 21: "interval"}


def test_a_crop_that_was_dropped_is_asked_for_again():
    selector = CropSelector(PLAIN)
    assert choices(selector, [0.8, 0.8]) == {0: "first"}
    selector.dropped(1)
    selector.dropped(99)
    assert choices(selector, [0.8, 0.8]) == {0: "first"}


def test_tracks_are_chosen_on_their_own_and_rows_say_which():
    selector = CropSelector(PLAIN)
    selector.select(tracked([4, 5]), np.float32([0.8, 0.8]), START)
    selection = selector.select(tracked([5, 9, 4, 7]), np.float32([0.8, 0.8, 0.8, 0.1]), START + 100_000)
    assert selection.rows.tolist() == [1] and selection.reasons == ("first",)


def test_ended_tracks_are_forgotten():
    selector = CropSelector(PLAIN)
    selector.select(tracked([1, 2, 3]), np.float32([0.8] * 3), START)
    selector.select(tracked([3], ended=[1]), np.float32([0.8]), START + 1)
    assert len(selector) == 2
    selector.end([EndedTrack(2, START), EndedTrack(3, START), EndedTrack(77, START)])
    assert len(selector) == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_what_any_stream_of_tracks_gets(seed):
    """One first choice per track, choices no closer than allowed, an interval never overrun, and no memory left."""
    rng = np.random.default_rng(seed)
    selector, times, reasons = CropSelector(PLAIN), {}, {}
    live, following = [1, 2, 3], 4
    for frame in range(80):
        now = START + frame * 100_000
        ended = [track for track in live if rng.uniform() < 0.05]
        live = [track for track in live if track not in ended] + [following]
        following += 1
        values = rng.uniform(0, 1, len(live)).astype(np.float32)
        selection = selector.select(tracked(live, ended), values, now)
        assert len(selector) == len(live)
        assert (np.diff(selection.rows) > 0).all() and len(selection.reasons) == len(selection.rows)
        for row, reason in zip(selection.rows, selection.reasons, strict=True):
            times.setdefault(live[row], []).append(now)
            reasons.setdefault(live[row], []).append(reason)
    for track in times:
        assert reasons[track][0] == "first" and "first" not in reasons[track][1:]
        apart = np.diff(times[track])
        assert (apart >= 200_000).all() and (apart <= 1_000_000).all()


@pytest.mark.parametrize("values", [{"mode": "sometimes"}, {"interval_s": 0}, {"better_by": 1}, {"every": 1}])
def test_settings_that_make_no_sense_are_refused(values):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, CropSelectorSettings)


# --- quality


GOOD = [300, 200, 360, 340]


def quality(*boxes, width=1280, height=720):
    return crop_quality(np.array(boxes, np.float32).reshape(-1, 4), area=(0, 0, width, height))


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


def test_each_crop_that_is_not_chosen_has_a_reason():
    selector = CropSelector(PLAIN)
    qualities = [0.2, 0.8, 0.8, 0.8, 0.8]
    left = [
        selector.select(tracked([1]), np.array([value], np.float32), START + frame * 100_000).left
        for frame, value in enumerate(qualities)
    ]
    assert left == [{1: "waits"}, {}, {1: "soon"}, {1: "no_better"}, {1: "no_better"}]
    once = CropSelector(CropSelectorSettings(mode="first", min_quality=0.5))
    assert [once.select(tracked([1]), np.ones(1, np.float32), START).left for _ in range(2)] == [{}, {1: "has_one"}]
