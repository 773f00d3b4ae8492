"""One gallery image of each person: worked by hand, and against all draws one by one."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.errors import InputError
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.ranking import rank
from reid_edge.evaluation.single_shot import rank_single_shot
from tests.evaluation.pairs import angles


def test_figures_are_those_worked_by_hand():
    query = angles([1], [1], [0])
    # Person 1 at 20 degrees.  Of person 2 one of two images is before it, of person 3 one of three; the image by
    # camera 1 does not count.
    gallery = angles([1, 2, 2, 3, 3, 3, 2], [2, 2, 2, 2, 2, 2, 1], [20, 10, 30, 15, 40, 50, 5])
    result = rank_single_shot(query, gallery)
    first, second = 1 / 2 * 2 / 3, 1 / 2 * 2 / 3 + 1 / 2 * 1 / 3
    assert result.cmc == pytest.approx([first, first + second, 1])
    assert result.mean_ap == pytest.approx(first + second / 2 + (1 - first - second) / 3)
    assert result.mean_inp == result.mean_ap
    assert result.queries == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_figures_are_the_mean_over_all_draws(seed):
    rng = np.random.default_rng(seed)
    people, cameras = np.repeat(np.arange(1, 5), 3), np.array([1, 2, 2] * 4)
    images = Labelled(rng.standard_normal((12, 3)), people, cameras)
    chosen = np.flatnonzero(cameras == 1)
    query = Labelled(images.features[chosen], people[chosen], cameras[chosen])
    draws = []
    for places in itertools.product(*(np.flatnonzero((people == person) & (cameras == 2)) for person in range(1, 5))):
        drawn = list(places)
        draws.append(rank(query, Labelled(images.features[drawn], people[drawn], cameras[drawn])))
    result = rank_single_shot(query, images)
    assert result.cmc == pytest.approx(np.mean([draw.cmc for draw in draws], axis=0))
    assert result.mean_ap == pytest.approx(np.mean([draw.mean_ap for draw in draws]))


def test_a_query_without_a_match_by_another_camera_does_not_count():
    query = angles([1, 2], [1, 1], [0, 90])
    assert rank_single_shot(query, angles([1, 2], [2, 1], [10, 90])).queries == 1
    with pytest.raises(InputError, match="no query has a correct match in the gallery from another camera"):
        rank_single_shot(query, angles([1, 2], [1, 1], [10, 90]))
