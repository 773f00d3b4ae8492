import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.camera.tracking import EndedTrack
from reid_edge.camera.tracklets import CropDetails, Tracklets, TrackletSettings
from reid_edge.upstream.message import encode_observation

START = 1_760_000_000_000_000
SECOND = 1_000_000
MODEL = "ab" * 32
AT_END = TrackletSettings(early_s=math.inf, every_s=math.inf)
ONE, OTHER, THIRD = np.eye(3, dtype=np.float32)  # people who look nothing like one another


def details(track=1, second=0.0, quality=0.5, box=(0.1, 0.2, 0.3, 0.4)):
    return CropDetails(track, START + round(second * SECOND), box, 0.9, quality)


def unit(*values):
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def ended(track, second=0.0):
    return EndedTrack(track, START + round(second * SECOND))


def test_the_feature_is_the_quality_weighted_mean_at_unit_length():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    one, other = unit(4, 3, 0), unit(4, 0, 3)
    assert tracklets.add(details(quality=0.9), one) == []
    assert tracklets.add(details(second=1, quality=0.3), other) == []
    [published] = tracklets.end([ended(1, 2.5)])
    expected = (0.9 * one + 0.3 * other) / np.linalg.norm(0.9 * one + 0.3 * other)
    assert published.feature == pytest.approx(expected, abs=1e-6) and published.feature.dtype == np.float32
    assert published.quality == pytest.approx((0.9 * 0.9 + 0.3 * 0.3) / 1.2)
    assert published.crops == 2 and published.final and published.model_hash == MODEL and published.track == 1
    assert (published.first_us, published.last_us) == (START, START + 2_500_000)


def test_box_time_and_confidence_are_those_of_the_best_crop():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    best = CropDetails(1, START + SECOND, (0.5, 0.5, 0.6, 0.8), 0.7, 0.8)
    for seen in (details(quality=0.4), best, details(second=2, quality=0.62)):
        tracklets.add(seen, unit(1, 2))
    [published] = tracklets.end([ended(1)])
    assert (published.captured_us, published.box, published.confidence) == (START + SECOND, best.box, 0.7)
    assert published.last_us == START + 2 * SECOND


@pytest.mark.parametrize("correction_us", [-31_536_000 * SECOND, 3600 * SECOND])
def test_a_tracklet_that_ends_because_the_clock_was_set_gets_the_right_times(correction_us):
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    for second, quality in ((0, 0.4), (1, 0.9), (2, 0.5)):
        tracklets.add(details(second=second, quality=quality), unit(1, 2))
    [published] = tracklets.end([EndedTrack(1, START + 3 * SECOND, correction_us)])
    right = START + correction_us
    times = published.first_us, published.captured_us, published.last_us
    assert times == (right, right + SECOND, right + 3 * SECOND)


def test_crops_may_come_in_any_order():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    for second in (3, 1, 2):
        tracklets.add(details(second=second), unit(1, 0))
    [published] = tracklets.finish()
    assert (published.first_us, published.last_us) == (START + SECOND, START + 3 * SECOND)


def test_published_early_then_every_so_often_then_at_the_end():
    tracklets = Tracklets(TrackletSettings(early_s=3, every_s=10), model_hash=MODEL)
    published = {}
    for second in range(30):
        for observation in tracklets.add(details(second=second), unit(1, 1)):
            published[second] = observation
    assert sorted(published) == [3, 13, 23]
    assert [observation.crops for observation in published.values()] == [4, 14, 24]
    assert not any(observation.final for observation in published.values())
    [last] = tracklets.end([ended(1, 29.5)])
    assert last.final and last.crops == 30


def test_published_at_the_first_crop():
    tracklets = Tracklets(TrackletSettings(early_s=0, every_s=math.inf), model_hash=MODEL)
    assert [len(tracklets.add(details(second=second), unit(1, 1))) for second in range(5)] == [1, 0, 0, 0, 0]


def test_a_track_without_a_crop_is_not_published():
    tracklets = Tracklets(model_hash=MODEL)
    assert tracklets.end([ended(5)]) == [] and tracklets.finish() == []


def test_crops_of_no_quality_still_have_a_mean():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    tracklets.add(details(quality=0.0), unit(2, 1))
    tracklets.add(details(quality=0.0), unit(1, 2))
    [published] = tracklets.finish()
    assert published.feature == pytest.approx(unit(1, 1), abs=1e-6) and published.quality == 0


def shown(tracklets, *people, track=1):
    """A track shows these people, a second each; what is published."""
    return [seen for second, who in enumerate(people) for seen in tracklets.add(details(track, second), who)]


def test_a_track_that_goes_over_to_someone_else_is_two_tracklets():
    tracklets = Tracklets(AT_END, model_hash=MODEL, first_tracklet=7)
    left = shown(tracklets, ONE, ONE, ONE, ONE, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER)
    both = left + tracklets.end([ended(1, 9.5)])
    assert [seen.track for seen in both] == [7, 8] and all(seen.final for seen in both)
    assert [seen.crops for seen in both] == [4, 6] and tracklets.split == 1
    assert [seen.feature.tolist() for seen in both] == [ONE.tolist(), OTHER.tolist()]
    times = [((seen.first_us - START) / SECOND, (seen.last_us - START) / SECOND) for seen in both]
    assert times == [(0, 3), (4, 9.5)]


def test_the_first_of_two_people_is_published_with_the_second_crop_of_the_other():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    assert shown(tracklets, ONE, ONE, OTHER) == []
    assert len(tracklets.add(details(second=3), OTHER)) == 1


def test_a_crop_of_someone_else_neither_splits_nor_counts():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    assert shown(tracklets, ONE, ONE, OTHER, ONE, OTHER, ONE, OTHER) == []
    [published] = tracklets.finish()
    assert published.feature.tolist() == ONE.tolist() and (published.crops, tracklets.split) == (4, 0)


def test_a_bad_first_crop_is_not_a_tracklet_of_its_own():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    assert shown(tracklets, OTHER, ONE, ONE, ONE) == []
    [published] = tracklets.finish()
    assert published.crops == 4


def test_bad_crops_in_a_row_that_are_unlike_one_another_do_not_split():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    assert shown(tracklets, ONE, ONE, OTHER, THIRD, ONE) == []
    [published] = tracklets.finish()
    assert published.feature.tolist() == ONE.tolist() and published.crops == 3


def test_a_person_who_comes_back_on_the_same_track_is_a_third_tracklet():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    published = shown(tracklets, ONE, ONE, OTHER, OTHER, ONE, ONE) + tracklets.finish()
    assert [(seen.track, seen.crops, seen.final) for seen in published] == [(1, 2, True), (2, 2, True), (3, 2, True)]
    assert tracklets.finish() == []


def test_a_tracklet_published_early_keeps_its_number_and_the_next_one_has_another():
    tracklets = Tracklets(TrackletSettings(early_s=1), model_hash=MODEL)
    published = shown(tracklets, ONE, ONE, OTHER, OTHER, OTHER) + tracklets.finish()
    assert [(seen.track, seen.final) for seen in published] == [(1, False), (1, True), (2, False), (2, True)]


def test_people_as_alike_as_the_threshold_are_one():
    apart = unit(3, 4, 0)  # cosine 0.6 to ONE
    for threshold, count in ((0.55, 1), (0.65, 2)):
        tracklets = Tracklets(TrackletSettings(early_s=math.inf, split_cosine=threshold), model_hash=MODEL)
        assert len(shown(tracklets, ONE, ONE, apart, apart) + tracklets.finish()) == count


def test_splitting_can_be_turned_off():
    tracklets = Tracklets(TrackletSettings(early_s=math.inf, split_cosine=-1), model_hash=MODEL)
    assert shown(tracklets, ONE, -ONE, -ONE, -ONE) == []
    assert [seen.crops for seen in tracklets.finish()] == [4]


def test_a_change_of_model_ends_every_tracklet_and_who_goes_on_has_a_new_number():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    shown(tracklets, ONE, ONE, OTHER)
    [before] = tracklets.change_model("cd" * 32)
    shown(tracklets, OTHER, OTHER)
    [after] = tracklets.finish()
    assert [(seen.track, seen.model_hash, seen.crops) for seen in (before, after)] == [
        (1, MODEL, 2),
        (2, "cd" * 32, 2),
    ]


def test_finishing_publishes_every_live_track_once():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    for track in (3, 1, 2):
        tracklets.add(details(track), unit(1, track))
    assert sorted(observation.track for observation in tracklets.finish()) == [1, 2, 3]
    assert tracklets.finish() == [] and len(tracklets) == 0


def test_too_many_live_tracks_the_oldest_is_published_and_stays_closed():
    tracklets = Tracklets(TrackletSettings(max_live=2, early_s=math.inf), model_hash=MODEL)
    tracklets.add(details(1), unit(1, 0))
    tracklets.add(details(2), unit(0, 1))
    [published] = tracklets.add(details(3, 1), unit(1, 1))
    assert (published.track, published.final, tracklets.overflowed) == (1, True, 1)
    assert tracklets.add(details(1, 2), unit(1, 0)) == [] and tracklets.late == 1
    assert tracklets.end([ended(1, 3)]) == []
    assert sorted(observation.track for observation in tracklets.finish()) == [2, 3]


def test_a_track_older_than_all_live_ones_makes_none_of_them_end():
    tracklets = Tracklets(TrackletSettings(max_live=2), model_hash=MODEL)
    for track in (5, 6, 3):
        assert tracklets.add(details(track), unit(1, 0)) == []
    assert (len(tracklets), tracklets.late, tracklets.overflowed) == (2, 1, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.booleans())
def test_whatever_comes_each_tracklet_is_final_once_and_nothing_grows(seed, limit, early):
    rng = np.random.default_rng(seed)
    config = TrackletSettings(max_live=limit, early_s=0.5 if early else math.inf, every_s=2)
    tracklets, live, following, published, embedded = Tracklets(config, model_hash=MODEL), [], 1, [], set()
    for step in range(120):
        live, following = [*live, following], following + 1
        for track in [track for track in live if rng.uniform() < 0.5]:
            embedded.add(track)
            seen = details(track, step / 10, quality=float(rng.uniform()))
            published += tracklets.add(seen, unit(*rng.normal(size=4)))
            assert len(tracklets) <= limit
        gone = [track for track in live if rng.uniform() < 0.2]
        live = [track for track in live if track not in gone]
        published += tracklets.end(ended(track, step / 10) for track in gone)
    published += tracklets.finish()
    final = [observation.track for observation in published if observation.final]
    assert sorted(final) == list(range(1, len(final) + 1))
    if not tracklets.late:
        assert len(final) == len(embedded) + tracklets.split
    for observation in published:
        assert np.linalg.norm(observation.feature) == pytest.approx(1, abs=1e-5)
        assert 0 <= observation.quality <= 1 and observation.crops >= 1
        assert observation.first_us <= observation.captured_us <= observation.last_us
        assert (
            not any(later.track == observation.track for later in published[published.index(observation) + 1 :])
            or not observation.final
        )


def test_what_is_published_fits_the_wire_format():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    tracklets.add(details(), unit(*range(1, 513)))
    [published] = tracklets.finish()
    assert 1024 < len(encode_observation(published)) < 1200


@pytest.mark.parametrize(
    "values", [{"early_s": -1}, {"every_s": 0}, {"max_live": 0}, {"split_cosine": 1.1}, {"late": 1}]
)
def test_settings_that_make_no_sense_are_refused(values):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, TrackletSettings)


def failing(second, reason, track=1):
    return CropDetails(track, START + round(second * SECOND), (0.1, 0.2, 0.3, 0.4), 0.9, 0.5, reason)


def test_a_tracklet_that_fails_the_check_is_counted_and_left_out():
    tracklets = Tracklets(TrackletSettings(early_s=0), model_hash=MODEL)
    assert tracklets.add(failing(0, "short"), unit(1, 2)) == []
    assert tracklets.end([EndedTrack(1, START, failing="still")]) == []
    assert tracklets.withheld == {"still": 1}


def test_a_tracklet_is_held_back_until_its_track_passes():
    tracklets = Tracklets(TrackletSettings(early_s=0), model_hash=MODEL)
    assert tracklets.add(failing(0, "short"), unit(1, 2)) == []
    assert len(tracklets.add(failing(1, ""), unit(1, 2))) == 1
    [final] = tracklets.end([EndedTrack(1, START + SECOND, failing="weak")])  # what was published is ended
    assert final.final and final.crops == 2
    assert not tracklets.withheld


def test_where_the_end_is_not_judged_the_last_crop_decides():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    tracklets.add(failing(0, "short"), unit(1, 2))
    tracklets.add(failing(0, "", track=2), unit(1, 2))
    assert len(tracklets.finish()) == 1
    assert tracklets.withheld == {"short": 1}


def test_the_detectors_score_weighs_a_crop():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    sure = CropDetails(1, START, (0.5, 0.5, 0.6, 0.8), 0.9, 0.6)
    tracklets.add(sure, unit(1, 0))
    tracklets.add(CropDetails(1, START + SECOND, (0.1, 0.1, 0.2, 0.4), 0.3, 0.8), unit(0.8, 0.6))
    [published] = tracklets.end([ended(1)])
    assert published.box == sure.box
    expected = unit(0.54 + 0.24 * 0.8, 0.24 * 0.6)
    np.testing.assert_allclose(published.feature, expected, atol=1e-6)


def sized(second, height, quality=0.5, usual=0.0):
    return CropDetails(1, START + round(second * SECOND), (0.1, 0.9 - height, 0.3, 0.9), 0.9, quality, "", usual)


def test_the_best_crop_lies_inside_the_frame_unless_that_is_a_poor_one():
    for quality, best in ((0.5, 1), (0.4, 0)):
        tracklets = Tracklets(AT_END, model_hash=MODEL)
        tracklets.add(replace(details(quality=0.9), at_edge=True), unit(1, 2))
        tracklets.add(details(second=1, quality=quality, box=(0.1, 0.0, 0.5, 0.9)), unit(1, 2))  # of an odd height
        [published] = tracklets.end([EndedTrack(1, START, usual_height=0.2)])
        assert published.captured_us == START + best * SECOND


def test_the_best_crop_is_as_high_as_its_track_usually_is():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    for crop in (sized(0, 0.3, quality=1.0), sized(1, 0.5, quality=0.8), sized(2, 0.75, quality=1.0)):
        tracklets.add(crop, unit(1, 2))
    [published] = tracklets.end([EndedTrack(1, START + 3 * SECOND, usual_height=0.5)])
    assert published.captured_us == START + SECOND


def test_of_crops_that_all_have_another_height_the_best_is_taken():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    for crop in (sized(0, 0.2, quality=0.6), sized(1, 0.2, quality=0.9), sized(2, 0.2, quality=0.7)):
        tracklets.add(crop, unit(1, 2))
    [published] = tracklets.end([EndedTrack(1, START + 3 * SECOND, usual_height=0.5)])
    assert published.captured_us == START + SECOND


def test_before_the_end_the_height_so_far_counts():
    tracklets = Tracklets(TrackletSettings(early_s=2), model_hash=MODEL)
    assert tracklets.add(sized(0, 0.3, quality=1.0, usual=0.3), unit(1, 2)) == []
    assert tracklets.add(sized(1, 0.5, quality=0.8, usual=0.4), unit(1, 2)) == []
    [published] = tracklets.add(sized(2, 0.5, quality=0.7, usual=0.5), unit(1, 2))
    assert published.captured_us == START + SECOND


def test_a_tracklet_that_waits_for_its_check_is_published_at_an_end_that_is_not_judged():
    tracklets = Tracklets(TrackletSettings(early_s=0), model_hash=MODEL)
    assert tracklets.add(failing(0, "unproven"), unit(1, 2)) == []
    assert len(tracklets.finish()) == 1
    assert not tracklets.withheld


def test_few_crops_of_a_tracklet_are_remembered_the_best_among_them():
    tracklets = Tracklets(AT_END, model_hash=MODEL)
    for second in range(500):
        tracklets.add(sized(second, 0.5, quality=1.0 if second == 3 else 0.5), unit(1, 2))
    assert len(tracklets._live[1].candidates) == 64
    [published] = tracklets.end([EndedTrack(1, START + 501 * SECOND, usual_height=0.5)])
    assert published.captured_us == START + 3 * SECOND and published.crops == 500
