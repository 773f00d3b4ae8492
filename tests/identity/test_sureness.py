"""Limits that rise where matches are few, and for tracklets of one camera."""

import numpy as np
import pytest

from reid_edge.features import l2_normalised
from reid_edge.identity.background import measured_background
from reid_edge.identity.centring import learnt_centring
from reid_edge.identity.clustering import clustered
from reid_edge.identity.online import OnlinePeople
from reid_edge.identity.sightings import Sighting, Sightings
from reid_edge.identity.sureness import AT, LOWEST, STRANGERS, WRONG_SHARE, expected_strangers, sure_limit
from tests.identity.scenes import MODEL, make_scene


def test_expected_strangers_fall_with_the_similarity_and_are_the_stated_number_at_the_stated_one():
    similarities = np.linspace(0, 6, 61)
    expected = expected_strangers(similarities)
    assert (np.diff(expected) < 0).all()
    assert expected_strangers(np.array([AT])) == pytest.approx([STRANGERS])


@pytest.mark.parametrize("near", [10, 40, 150, 1000])
def test_the_limit_is_where_one_in_a_hundred_matches_is_expected_to_be_a_stranger(near):
    nearest = np.concatenate([np.full(near, 6.0), np.full(500, -1.0)])
    limit = sure_limit(nearest)
    if limit > LOWEST:
        assert expected_strangers(np.array([limit])) == pytest.approx([WRONG_SHARE * near])
    assert expected_strangers(np.array([limit])) <= WRONG_SHARE * near + 1e-9


def test_fewer_matches_raise_the_limit_and_too_few_make_it_infinite():
    def limit(near):
        return sure_limit(np.concatenate([np.full(near, 6.0), np.full(500, -1.0)]))

    assert limit(1000) < limit(100) < limit(20)
    assert sure_limit(np.full(500, 1.0)) == np.inf
    assert sure_limit(np.full(3, -np.inf)) == np.inf
    assert sure_limit(np.empty(0)) == np.inf


def test_the_limit_does_not_depend_on_the_order():
    nearest = np.random.default_rng(0).normal(2, 1, 200)
    assert sure_limit(nearest) == sure_limit(nearest[::-1])


def test_a_few_look_alikes_among_strangers_are_not_joined_and_as_alike_tracklets_of_many_are():
    """Pairs of the same similarity: a few of them among many who have nobody, and one of nearly everybody."""
    few = clustered(_pairs(together=12, alone=400))
    many = clustered(_pairs(together=400, alone=0))
    assert few.states.count("assigned") < 6
    assert many.states.count("assigned") > 600


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
