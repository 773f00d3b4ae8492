from dataclasses import replace

import numpy as np
import pytest

from reid_edge.identity.clustering import clustered, relative_similarities
from reid_edge.identity.known_pairs import KnownPairs, known_pairs
from reid_edge.identity.sureness import sure_at_once
from tests.identity.scenes import make_scene

NONE = np.empty((0, 2), np.int64)


def scene(noise=0.5):
    made = make_scene(people=40, cameras=2, noise=noise)
    of_one = np.array([np.flatnonzero(made.people == who) for who in range(40)])
    of_two = np.stack([of_one[:, 0], np.roll(of_one[:, 1], 1)], axis=1)
    return made, of_one, of_two


def test_pairs_are_as_similar_as_the_tracklets_that_are_joined():
    made, of_one, of_two = scene()
    people = clustered(made.sightings)
    similar, limit = relative_similarities(made.sightings, of_one)
    assert limit == people.limit
    assert similar == pytest.approx(people.agreement[of_one[:, 0]])
    assert relative_similarities(made.sightings, of_two)[0].max() < limit


def test_a_pair_of_one_camera_counts_as_less_similar():
    made, _, _ = scene()
    rows = np.flatnonzero(made.sightings.camera_numbers == 0)[:2]
    pair = rows[None]
    alone = relative_similarities(made.sightings, pair)[0][0]
    cameras = list(made.sightings.cameras)
    cameras[rows[0]] = "camera1"
    assert alone < relative_similarities(replace(made.sightings, cameras=tuple(cameras)), pair)[0][0]


def test_labels_that_fit_change_nothing_and_strangers_that_reach_the_limit_raise_it():
    made, of_one, of_two = scene()
    fit = known_pairs(made.sightings, of_one, of_two)
    assert (fit.one, fit.one_above, fit.two, fit.two_above, fit.strangers) == (40, 40, 40, 0, 1.0)
    wrong = known_pairs(made.sightings, of_two, of_one[:3])
    assert (wrong.one_above, wrong.two_above) == (0, 3)
    assert wrong.strangers == pytest.approx(4 / 1.03)
    limit = clustered(made.sightings).limit
    assert clustered(made.sightings, strangers=wrong.strangers).limit > limit + 0.5
    assert wrong.limit == min(limit, sure_at_once(80))


def test_any_number_of_pairs_of_one_person_never_lowers_the_limit():
    for above in (0, 1, 1000):
        assert KnownPairs(limit=2.0, one=1000, one_above=above, two=0, two_above=0).strangers == 1.0
    assert KnownPairs(limit=2.0, one=500, one_above=500, two=5, two_above=5).strangers == 1.0


def test_one_kind_of_labels_alone_is_enough():
    made, of_one, of_two = scene()
    assert known_pairs(made.sightings, NONE, of_two).one == known_pairs(made.sightings, of_one, NONE).two == 0
