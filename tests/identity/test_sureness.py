"""Limits that rise where matches are few, and for tracklets of one camera."""

import numpy as np
import pytest

from reid_edge.features import l2_normalised
from reid_edge.identity.background import measured_background
from reid_edge.identity.centring import learnt_centring
from reid_edge.identity.clustering import clustered
from reid_edge.identity.online import OnlinePeople
from reid_edge.identity.sightings import Sighting, Sightings
from reid_edge.identity.sureness import (
    AT,
    LOWEST_AT_ONCE,
    STRANGERS,
    WRONG_SHARE,
    allowed_strangers,
    expected_strangers,
    sure_at_once,
    sure_limit,
)
from tests.identity.scenes import MODEL, make_scene


def test_expected_strangers_fall_with_the_similarity_and_faster_in_large_galleries():
    similarities = np.linspace(AT, 6, 50)
    small, large = expected_strangers(similarities, 20), expected_strangers(similarities, 160)
    assert (np.diff(small) < 0).all()
    assert small[0] == large[0] == pytest.approx(STRANGERS)
    assert expected_strangers(np.array([AT + 2]), 20) == pytest.approx(STRANGERS * np.exp(-2))
    assert expected_strangers(np.array([AT + 1]), 160) == pytest.approx(STRANGERS * np.exp(-2))


def test_one_match_in_a_hundred_may_be_a_stranger_and_fewer_of_few():
    allowed = allowed_strangers(np.array([2.0, 10.0, 1000.0])) / [2, 10, 1000]
    assert allowed[0] < allowed[1] == pytest.approx(WRONG_SHARE / 2)
    assert allowed[2] == pytest.approx(WRONG_SHARE, rel=0.02)


@pytest.mark.parametrize("near", [10, 40, 150, 1000, 100_000])
def test_the_limit_is_where_so_many_strangers_are_expected_as_are_allowed(near):
    nearest = np.concatenate([np.full(near, 9.0), np.full(500, -1.0)])
    limit, allowed = sure_limit(nearest), allowed_strangers(np.array([float(near)]))
    expected = expected_strangers(np.array([limit]), near + 500)
    assert expected == pytest.approx(allowed) if limit > AT else expected <= allowed


def test_fewer_matches_raise_the_limit_and_too_few_make_it_infinite():
    def limit(near):
        return sure_limit(np.concatenate([np.full(near, 9.0), np.full(500, -1.0)]))

    assert limit(1000) < limit(100) < limit(20)
    assert sure_limit(np.full(500, 1.0)) == np.inf
    assert sure_limit(np.full(3, -np.inf)) == np.inf
    assert sure_limit(np.empty(0)) == np.inf


def test_a_smaller_gallery_needs_more_for_the_same_matches_and_one_tracklet_at_a_time_too():
    def limit(others):
        return sure_limit(np.concatenate([np.full(40, 9.0), np.full(others, -1.0)]))

    assert limit(20) > limit(200) > limit(2000)
    assert sure_at_once(20) > sure_at_once(200) > sure_at_once(2000) == LOWEST_AT_ONCE


@pytest.mark.parametrize("times", [2.0, 5.0])
def test_where_there_are_more_strangers_more_is_needed(times):
    nearest = np.concatenate([np.full(40, 9.0), np.full(200, -1.0)])
    usual, more = sure_limit(nearest), sure_limit(nearest, times)
    allowed = allowed_strangers(np.array([40.0]))
    assert expected_strangers(np.array([more]), 240, times) == pytest.approx(allowed)
    assert more > usual and sure_at_once(240, times) == pytest.approx(sure_at_once(240) + more - usual)


def test_the_limit_does_not_depend_on_the_order():
    nearest = np.random.default_rng(0).normal(2, 1, 200)
    assert sure_limit(nearest) == sure_limit(nearest[::-1])


def test_a_few_look_alikes_among_strangers_are_not_joined_and_as_alike_tracklets_of_many_are():
    """Pairs of the same similarity: a few of them among many who have nobody, and one of nearly everybody."""
    few = clustered(_pairs(together=12, alone=400))
    many = clustered(_pairs(together=400, alone=0))
    assert few.states.count("assigned") < 6
    assert many.states.count("assigned") > 450


def test_tracklets_of_one_camera_need_more_than_those_of_two():
    of_two = _pairs(together=60, alone=0)
    of_one = Sightings(
        model_hash=MODEL,
        ids=of_two.ids,
        cameras=tuple("ab"[row // 2 % 2] for row in range(len(of_two))),
        first_s=of_two.first_s,
        last_s=of_two.last_s,
        features=of_two.features,
    )
    centring = learnt_centring(of_two)
    agreements = [np.nanmean(clustered(one, centring=centring, above=0.5).agreement) for one in (of_two, of_one)]
    assert agreements[1] == pytest.approx(agreements[0] - 0.75, abs=0.05)


def test_online_too_a_tracklet_of_the_same_camera_needs_more():
    scene = make_scene(people=40, cameras=2, noise=0.5)
    background, centring = measured_background(scene.sightings.features), learnt_centring(scene.sightings.taken([0, 1]))
    first = scene.sightings.taken([0])

    def similarity(camera):
        online = OnlinePeople(MODEL, centring, background, above=-10.0)
        for name, where, when in (("one", "here", 0.0), ("two", camera, 100.0)):
            sighting = Sighting(
                id=name, camera=where, model_hash=MODEL, first_s=when, last_s=when + 1, feature=first.features[0]
            )
            (event, *_) = online.add(sighting)
        assert event.kind == "assigned"
        return event.similarity

    assert similarity("here") == pytest.approx(similarity("there") - 0.75)


def _pairs(*, together, alone):
    """Two cameras; ``together`` people before both, whose two tracklets are fairly alike, ``alone`` before one."""
    generator = np.random.default_rng(3)
    people = l2_normalised(generator.normal(size=(together + alone, 64)))
    rows = [person for person in range(together) for _ in "ab"] + list(range(together, together + alone))
    cameras = [camera for _ in range(together) for camera in "ab"] + ["ab"[place % 2] for place in range(alone)]
    features = people[rows] + 0.85 * l2_normalised(generator.normal(size=(len(rows), 64)))
    times = np.arange(len(rows)) * 100.0
    return Sightings(
        model_hash=MODEL,
        ids=tuple(f"{row:05d}" for row in range(len(rows))),
        cameras=tuple(cameras),
        first_s=times,
        last_s=times + 5,
        features=l2_normalised(features).astype(np.float32),
    )
