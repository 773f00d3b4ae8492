"""FMR, FNMR and EER: worked by hand, and against scikit-learn and plain loops on random features."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.errors import InputError
from reid_edge.evaluation import comparison
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.operating_point import is_supported
from reid_edge.evaluation.verification import verify
from tests.evaluation.pairs import angles, obvious_pairs, random_pairs


def test_rates_are_those_worked_by_hand():
    # Scores are cosines: 10, 30 and 70 degrees from one person, 20, 40, 60 and 80 from others.
    query = angles([1], [1], [0])
    gallery = angles([1, 1, 1, 2, 3, 0, 4], [2] * 7, [10, 30, 70, 20, 40, 60, 80])
    result = verify(query, gallery)
    assert (result.mated, result.nonmated) == (3, 4)
    np.testing.assert_allclose(result.thresholds, np.cos(np.deg2rad([70, 30, 10])))
    np.testing.assert_allclose(result.fmr, [3 / 4, 1 / 4, 0])
    np.testing.assert_allclose(result.fnmr, [0, 1 / 3, 2 / 3])
    # Above 70 degrees one of three is missed; of the others 60 degrees drops out, then 40, with the rates 1/3 and 1/3
    # passed on the way from 2/4 to 1/4.
    assert result.eer == pytest.approx(1 / 3)


def test_the_equal_error_rate_of_perfect_scores_is_0_and_of_reversed_ones_1():
    query = angles([1], [1], [0])
    assert verify(query, angles([1, 2], [2, 2], [10, 60])).eer == 0
    assert verify(query, angles([1, 2], [2, 2], [60, 10])).eer == 1


def test_scores_that_are_equal_meet_on_the_straight_line_between():
    query = angles([1], [1], [0])
    assert verify(query, angles([1, 2], [2, 2], [30, 30])).eer == pytest.approx(1 / 2)


def test_the_point_at_a_limit_has_the_fewest_misses():
    query = angles([1], [1], [0])
    result = verify(query, angles([1, 1, 1, 2, 3, 0, 4], [2] * 7, [10, 30, 70, 20, 40, 60, 80]))
    at_quarter = result.at(0.3)
    assert at_quarter.threshold == pytest.approx(np.cos(np.deg2rad(30)))
    assert (at_quarter.limit, at_quarter.false_rate, at_quarter.miss_rate) == (0.3, 1 / 4, pytest.approx(1 / 3))
    assert result.at(1 / 4) == replace(at_quarter, limit=1 / 4)  # at most, not below
    assert result.at(1).miss_rate == 0


def test_where_another_person_is_most_alike_no_false_match_means_missing_all():
    result = verify(angles([1], [1], [0]), angles([1, 2], [2, 2], [60, 10]))
    point = result.at(0.5)
    assert (point.threshold, point.false_rate, point.miss_rate) == (np.inf, 0, 1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), distance=st.sampled_from(["cosine", "euclidean"]))
def test_rates_are_those_of_plain_loops(seed, distance):
    query, gallery = random_pairs(seed)
    pairs = list(obvious_pairs(query, gallery, distance))
    mated = [score for _, score, same in pairs if same]
    others = [score for _, score, same in pairs if not same]
    result = verify(query, gallery, distance=distance)
    assert (result.mated, result.nonmated) == (len(mated), len(others))
    assert result.thresholds == pytest.approx(sorted(set(mated)), abs=1e-6)
    for threshold, fmr, fnmr in zip(sorted(set(mated)), result.fmr, result.fnmr, strict=True):
        assert fmr == pytest.approx(sum(score >= threshold for score in others) / len(others))
        assert fnmr == pytest.approx(sum(score < threshold for score in mated) / len(mated))


@pytest.mark.parametrize("seed", range(8))
def test_the_equal_error_rate_is_that_of_scikit_learns_curve(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    query, gallery = random_pairs(seed)
    labels, scores = zip(*[(same, score) for _, score, same in obvious_pairs(query, gallery)], strict=True)
    false, found, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    gap = false - (1 - found)
    after = int(np.argmax(gap >= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    expected = false[after - 1] + share * (false[after] - false[after - 1])
    assert verify(query, gallery).eer == pytest.approx(expected, abs=1e-9)


def test_blocks_do_not_change_the_result(monkeypatch):
    query, gallery = random_pairs(3)
    whole = verify(query, gallery)
    monkeypatch.setattr(comparison, "QUERY_BLOCK", 7)
    done = []
    in_blocks = verify(query, gallery, on_block=done.append)
    np.testing.assert_allclose(in_blocks.fmr, whole.fmr)
    assert in_blocks.eer == pytest.approx(whole.eer)
    assert done == [7, 7, 7, 7, 2]


def test_a_rate_needs_thirty_expected_errors():
    assert is_supported(0.01, 3000)
    assert not is_supported(0.01, 2999)


def test_pairs_of_one_kind_only_are_an_error():
    one = angles([1], [1], [0])
    with pytest.raises(InputError, match="no query has a correct match"):
        verify(one, angles([2], [2], [0]))
    with pytest.raises(InputError, match="two people or more"):
        verify(one, angles([1], [2], [0]))
    with pytest.raises(InputError, match="different models"):
        verify(one, Labelled(np.ones((1, 3)), np.array([1]), np.array([2])))
