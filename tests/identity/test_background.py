import numpy as np
import pytest

from reid_edge.errors import InputError
from reid_edge.features import l2_normalised
from reid_edge.identity.background import Background, measured_background, relative_similarity, stranger_levels
from reid_edge.identity.neighbours import Neighbours, nearest
from tests.identity.scenes import make_scene, unit


def test_the_spread_is_that_of_random_directions():
    features = l2_normalised(np.random.default_rng(0).normal(size=(900, 100))).astype(np.float32)
    background = measured_background(features)
    assert background.median == pytest.approx(0, abs=0.005)
    assert background.spread == pytest.approx(0.1, rel=0.05)  # 1 / sqrt(100)
    assert background.tracklets == 900


def test_pairs_of_one_person_do_not_widen_the_spread():
    alone, many = (make_scene(people=60, cameras=1, visits=visits).sightings.features for visits in (1, 6))
    assert measured_background(many).spread == pytest.approx(measured_background(alone).spread, rel=0.15)


def test_one_feature_has_no_background():
    with pytest.raises(InputError, match="at least 2"):
        measured_background(np.stack([unit(1, 0)]))


def test_the_level_is_the_mean_cosine_of_ranks_5_to_12():
    cosines = np.linspace(0.9, 0.1, 20, dtype=np.float32)[None]
    neighbours = Neighbours(rows=np.arange(20, dtype=np.int32)[None], cosines=cosines)
    background = Background(median=0.0, spread=1.0, tracklets=1000)
    assert stranger_levels(neighbours, background, among=1000) == pytest.approx(cosines[0, 4:12].mean())


def test_the_level_of_somebody_with_a_dozen_tracklets_is_what_strangers_reach():
    neighbours = Neighbours(rows=np.arange(12, dtype=np.int32)[None], cosines=np.full((1, 12), 0.95, np.float32))
    background = Background(median=0.0, spread=0.1, tracklets=80)
    assert stranger_levels(neighbours, background, among=80)[0] == pytest.approx(0.1 * (1.65 + 1.5), abs=0.005)


def test_missing_neighbours_leave_the_median():
    features = np.stack([unit(1, 0), unit(0, 1)])
    background = Background(median=0.2, spread=0.1, tracklets=2)
    assert stranger_levels(nearest(features, 12), background, among=2).tolist() == [0.2, 0.2]


def test_relative_similarity_is_what_is_above_both_levels_in_spreads():
    background = Background(median=0.0, spread=0.1, tracklets=100)
    relative = relative_similarity(np.array([0.7]), np.array([0.3]), np.array([0.5]), background)
    assert relative == pytest.approx(3.0)
