from dataclasses import replace

import numpy as np
import pytest

from reid_edge.errors import InputError, UnsupportedRateError
from reid_edge.features import l2_normalised
from reid_edge.identity.calibration import Calibration, Parts, calibrated, measured_scale
from reid_edge.identity.constraints import CannotLink
from reid_edge.identity.sightings import Sightings
from tests.identity.scenes import MODEL, make_scene


def calibration(impostors, genuine=(), **changes):
    fields = {
        "model_hash": MODEL,
        "scale_version": "none",
        "impostors": np.asarray(impostors, float),
        "genuine": np.asarray(genuine, float),
        "impostor_tracklets": len(impostors),
        "genuine_tracklets": len(genuine),
        "genuine_from": "labels",
    }
    return Calibration(**{**fields, **changes})


def crowded(seed=0):
    """A scene in which three people pass each camera together."""
    scene = make_scene(people=60, cameras=3, noise=0.8, seed=seed)
    first = np.arange(180) // 3 * 10.0
    sightings = Sightings(
        model_hash=MODEL,
        ids=scene.sightings.ids,
        cameras=scene.sightings.cameras,
        first_s=first,
        last_s=first + 5,
        features=scene.sightings.features,
    )
    return sightings, scene.people


def test_the_curve_counts_both_kinds_of_errors():
    made = calibration([-1, 0, 1, 2], [1, 2, 3, 4, 5])
    points = made.curve([0, 2, 6])
    assert [point.false_match.rate for point in points] == [0.75, 0.25, 0]
    assert [point.miss.rate for point in points] == [0, 0.2, 1]


def test_the_similarity_for_a_rate_has_that_rate_as_its_upper_limit_and_is_the_lowest():
    impostors = np.random.default_rng(0).normal(size=5000)
    made = calibration(impostors)
    similarity = made.similarity_for(0.01)
    assert made.false_match(similarity).high <= 0.01
    below = made.impostors[made.impostors < similarity][-1]
    assert made.false_match(below).high > 0.01
    assert made.false_match(similarity).rate > 0.005


@pytest.mark.parametrize("seed", range(3))
def test_the_rate_asked_for_is_kept_on_pairs_that_were_not_seen(seed):
    generator = np.random.default_rng(seed)
    made = calibration(generator.standard_t(4, size=3000))
    assert (generator.standard_t(4, size=100_000) >= made.similarity_for(0.01)).mean() <= 0.01


def test_a_rate_that_the_pairs_cannot_support_is_refused():
    made = calibration(np.arange(1000.0), impostor_tracklets=50)
    with pytest.raises(UnsupportedRateError, match="there are 50"):
        made.similarity_for(0.01)
    with pytest.raises(UnsupportedRateError, match="pairs of one person, there are 0"):
        made.similarity_below_which(0.05)


def test_verdicts_are_same_unsure_and_other_with_the_rates_behind_them():
    generator = np.random.default_rng(1)
    made = calibration(generator.normal(-2, 1, 20_000), generator.normal(1, 1, 5_000))
    same, unsure, other = (made.verdict(similarity) for similarity in (4, 0.0, -4))
    assert (same.word, unsure.word, other.word) == ("same", "unsure", "other")
    assert same.false_match.high < 0.01 and other.miss.high < 0.05
    assert made.verdict(0.6).word == "same" and made.verdict(0.6, compared=1000).word == "unsure"
    assert made.verdict(0.6, compared=1000).by_chance == pytest.approx(1000 * made.verdict(0.6).by_chance)


def test_same_needs_that_hardly_a_stranger_of_all_those_compared_is_as_similar():
    made = calibration(np.random.default_rng(0).exponential(size=2000))
    assert made.by_chance(0.5, 100) == pytest.approx(100 * np.exp(-0.5), rel=0.05)
    for similarity in (6.0, 9.0, 12.0):  # where hardly a pair is left, and where none is
        assert 1 / 4 < made.by_chance(similarity, 1000) / (1000 * np.exp(-similarity)) < 4
    assert made.verdict(8.0, compared=100).word == "same"
    assert made.verdict(8.0, compared=2000).word == "unsure"
    assert made.verdict(14.0, compared=2000).word == "same"
    chances = [made.by_chance(similarity, 10) for similarity in np.linspace(0, 12, 400)]
    assert chances == sorted(chances, reverse=True)


def test_from_a_handful_of_pairs_no_tail_is_made_up():
    assert calibration(np.arange(19.0)).by_chance(1e9, 100) == pytest.approx(100 / 20)


def test_parts_of_tracklets_do_not_tell_who_is_other_between_cameras():
    made = calibration(np.arange(1000.0), 500 + np.arange(1000.0), genuine_from="parts of tracklets")
    assert made.verdict(10, one_camera=True).word == "other"
    assert made.verdict(10).word == "unsure"
    assert calibration(np.arange(1000.0), 500 + np.arange(1000.0)).verdict(10).word == "other"


def test_too_few_pairs_make_every_verdict_unsure():
    made = calibration([0.0, 1.0], [5.0, 6.0])
    assert {made.verdict(similarity).word for similarity in (-9, 3, 99)} == {"unsure"}


def test_the_likelihood_ratio_rises_with_the_similarity_and_is_near_the_true_one():
    generator = np.random.default_rng(2)
    made = calibration(generator.normal(0, 1, 20_000), generator.normal(3, 1, 20_000))
    ratios = [made.log_likelihood_ratio(similarity) for similarity in np.linspace(-3, 6, 40)]
    assert ratios == sorted(ratios) and np.isfinite(ratios).all()
    for similarity in (0.5, 1.5, 2.5):  # ln N(s; 3, 1) / N(s; 0, 1) = 3 s - 4.5
        assert made.log_likelihood_ratio(similarity) == pytest.approx(3 * similarity - 4.5, abs=0.4)
    assert calibration([0.0]).log_likelihood_ratio(5) == 0


def test_without_two_people_at_one_time_there_is_no_calibration():
    scene = make_scene().sightings
    with pytest.raises(InputError, match="no camera has seen two tracklets at the same time"):
        calibrated(scene, CannotLink(scene).simultaneous_pairs(), scale=measured_scale(scene))


def test_people_seen_together_give_the_rate_of_false_matches_of_all_strangers():
    sightings, people = crowded()
    scale = measured_scale(sightings)
    made = calibrated(sightings, CannotLink(sightings).simultaneous_pairs(), scale=scale)
    assert made.genuine_from == "none" and len(made.impostors) == 180 and made.impostor_tracklets == 180
    first, second = np.triu_indices(180, 1)
    strangers = people[first] != people[second]
    everyone = scale.of_pairs(sightings, np.stack([first, second], axis=1)[strangers])
    for similarity in (1.0, 2.0):
        rate = made.false_match(similarity)
        assert rate.low <= (everyone >= similarity).mean() <= rate.high


def test_parts_of_tracklets_stand_in_for_labels_and_labels_replace_them():
    sightings, people = crowded()
    pairs = CannotLink(sightings).simultaneous_pairs()
    noise = np.random.default_rng(3).normal(size=sightings.features.shape) / 8
    parts = l2_normalised(sightings.features + 0.3 * noise).astype(np.float32)
    scale = measured_scale(sightings)
    of_parts = Parts(first=sightings.features, second=parts, cameras=sightings.cameras)
    from_parts = calibrated(sightings, pairs, scale=scale, parts=of_parts)
    assert from_parts.genuine_from == "parts of tracklets" and from_parts.genuine_tracklets == 180
    first, second = np.triu_indices(180, 1)
    same = np.stack([first, second], axis=1)[people[first] == people[second]]
    from_labels = calibrated(sightings, pairs, scale=scale, genuine=same, parts=of_parts)
    assert from_labels.genuine_from == "labels"
    assert np.median(from_parts.genuine) > np.median(from_labels.genuine) > np.median(from_parts.impostors) + 1


def test_scales_that_differ_have_different_versions():
    sightings, _ = crowded()
    scale = measured_scale(sightings)
    assert scale.version == measured_scale(sightings.taken(np.arange(180)[::-1])).version
    assert scale.version != measured_scale(sightings.taken(np.arange(179))).version
    assert scale.version != replace(scale, strangers=replace(scale.strangers, rest=0.5)).version


def test_fewer_than_twenty_tracklets_have_no_scale():
    sightings, _ = crowded()
    with pytest.raises(InputError, match=r"at least 20 tracklets .* got 19"):
        measured_scale(sightings.taken(np.arange(19)))
