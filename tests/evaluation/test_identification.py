"""FPIR and FNIR: worked by hand, and against plain loops on random features."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.errors import InputError
from reid_edge.evaluation.identification import identify
from tests.evaluation.pairs import angles, obvious_pairs, random_pairs


@pytest.fixture
def searches():
    """Four searches; the best image of the right person and of another are at these angles from the query.

    Person 1: 5, another 40.  Person 2: 20, another 50.  Person 3: 45, another 35.  Person 9 is not in the gallery; the
    nearest other is at 30.
    """
    query = angles([1, 2, 3, 9], [1] * 4, [0, 90, 180, 270])
    gallery = angles([1, 2, 3, 4, 5, 6, 7], [2] * 7, [5, 110, 225, 320, 40, 215, 300])
    return identify(query, gallery)


def test_searches_return_the_best_image_of_the_right_person_and_of_others(searches):
    # For person 1, 40 degrees from both sides; for 2, 5 (40 degrees, at 50) and for 3, 6 (at 35 degrees); for 9, 7.
    assert searches.mated == pytest.approx(np.cos(np.deg2rad([5, 20, 45])))
    assert searches.nonmated == pytest.approx(np.cos(np.deg2rad([40, 50, 35, 30])))
    assert searches.ranks.tolist() == [1, 1, 2]


def test_rates_are_those_worked_by_hand(searches):
    at_32 = np.cos(np.deg2rad(32))
    assert searches.fpir(at_32) == 1 / 4  # person 9
    assert searches.fnir(at_32) == 1 / 3  # person 3 is too far away
    at_48 = np.cos(np.deg2rad(48))
    assert searches.fpir(at_48) == 3 / 4
    assert searches.fnir(at_48) == 0
    assert searches.fnir(at_48, rank=1) == 1 / 3  # person 3 is found, but second


def test_at_a_limit_the_threshold_is_the_lowest_that_keeps_it(searches):
    point = searches.at(0.25)
    assert point.threshold == pytest.approx(np.cos(np.deg2rad(35)))
    assert (point.false_rate, point.miss_rate) == (0.25, 1 / 3)
    assert searches.at(0.2).false_rate == 0
    everything = searches.at(1.0)
    assert (everything.false_rate, everything.miss_rate) == (1, 0)


def test_without_a_threshold_misses_are_those_of_the_cmc_curve(searches):
    assert searches.fnir(-np.inf, rank=1) == pytest.approx(1 - 2 / 3)
    assert searches.fnir(-np.inf, rank=2) == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), limit=st.sampled_from([0.05, 0.1, 0.3, 0.5]), rank=st.sampled_from([None, 1, 3]))
def test_rates_are_those_of_plain_loops(seed, limit, rank):
    query, gallery = random_pairs(seed)
    right, wrong = ([[] for _ in query.features] for _ in range(2))
    for q, score, same in obvious_pairs(query, gallery):
        (right if same else wrong)[q].append(score)
    point = identify(query, gallery).at(limit, rank=rank)
    # Scores on the threshold itself have other last bits here.
    alarms = sum(max(others) >= point.threshold + 1e-9 for others in wrong)
    assert point.false_rate == pytest.approx(alarms / len(wrong))
    assert point.false_rate <= limit
    assert alarms + 1 > limit * len(wrong) - 1e-9
    missed = searched = 0
    for mates, others in zip(right, wrong, strict=True):
        if mates:
            searched += 1
            place = 1 + sum(other > max(mates) for other in others)
            missed += max(mates) < point.threshold or (rank is not None and place > rank)
    assert point.miss_rate == pytest.approx(missed / searched)


def test_galleries_that_allow_no_figure_are_an_error():
    one = angles([1], [1], [0])
    with pytest.raises(InputError, match="no query has a correct match"):
        identify(one, angles([2], [2], [0]))
    with pytest.raises(InputError, match="nobody else in its gallery"):
        identify(one, angles([1], [2], [0]))
