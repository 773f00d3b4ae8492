"""People found against true ones."""

import itertools

import numpy as np
import pytest

from reid_edge.errors import InputError
from reid_edge.evaluation.people import people_quality


def test_the_metrics_are_those_computed_by_hand():
    """Two cameras. A: four moments in each, found as 1 and 2. B: four found as 2, and two found as 3.

    A–1 4, A–2 4, B–2 4, B–3 2. The best pairs are A–1 and B–2: 8 of 14.
    AssA: A–1 4 / 8, A–2 4 / (8 + 8 − 4), B–2 4 / (6 + 8 − 4), B–3 2 / 6; the mean over 14 is 5.6 / 14 = 0.4.
    """
    true = np.array([0] * 4 + [1] * 4 + [0] * 4 + [1] * 2)
    found = np.array([1] * 4 + [2] * 4 + [2] * 4 + [3] * 2)
    quality = people_quality(found, true)
    assert (quality.tracklets, quality.people, quality.found, quality.missing) == (14, 2, 3, 0)
    assert quality.idf1 == pytest.approx(8 / 14)
    assert (quality.identity_precision, quality.identity_recall) == pytest.approx((8 / 14, 8 / 14))
    assert quality.association_accuracy == pytest.approx(0.4)
    assert quality.detection_accuracy == 1
    assert quality.hota == pytest.approx(0.4**0.5)
    assert quality.false_merges == 16  # four of A with four of B
    assert quality.false_splits == 4 * 4 + 4 * 2
    assert quality.right_pairs == 6 + 6 + 6 + 1
    assert (quality.assigned, quality.with_wrong_person) == (14, 4)


def test_what_is_missing_and_what_is_nobody_lower_the_metrics():
    """A twice of four found as 1, with a false detection; B alone as 2."""
    true = np.array([0, 0, 0, 0, 1, -1])
    found = np.array([1, 1, -1, -1, 2, 1])
    quality = people_quality(found, true)
    assert (quality.tracklets, quality.missing) == (6, 2)
    assert quality.idf1 == pytest.approx(2 * 3 / (5 + 4))
    assert (quality.identity_precision, quality.identity_recall) == pytest.approx((3 / 4, 3 / 5))
    assert quality.detection_accuracy == pytest.approx(3 / 6)
    assert quality.association_accuracy == pytest.approx((2 * 2 / (4 + 3 - 2) + 1) / 3)
    assert (quality.false_merges, quality.right_pairs, quality.false_splits) == (2, 1, 5)
    assert (quality.assigned, quality.with_wrong_person) == (3, 1)
    assert quality.unassigned == pytest.approx(0.5)


def test_all_right_is_one_and_everybody_alone_has_no_false_merge():
    true = np.repeat(np.arange(5), 3)
    perfect = people_quality(true + 7, true)
    assert (perfect.idf1, perfect.hota, perfect.pair_f1, perfect.wrong_share, perfect.unassigned) == (1, 1, 1, 0, 0)
    alone = people_quality(np.arange(15), true)
    assert (alone.false_merges, alone.assigned, alone.unassigned, alone.wrong_share) == (0, 0, 1, 0)
    assert alone.idf1 == pytest.approx(5 / 15)
    assert (alone.pair_precision, alone.pair_recall) == (1, 0)


def test_two_strangers_who_are_joined_are_both_with_a_wrong_person():
    quality = people_quality(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 2, 2, 3]))
    assert (quality.assigned, quality.with_wrong_person) == (5, 3)


@pytest.mark.parametrize("seed", range(20))
def test_random_scenes_agree_with_counting_one_by_one(seed):
    generator = np.random.default_rng(seed)
    count = int(generator.integers(4, 25))
    true = generator.integers(-1, 5, count)
    found = np.where(generator.random(count) < 0.6, true, generator.integers(-1, 5, count))
    true[0] = 0
    kept = (true >= 0) | (found >= 0)
    true, found = true[kept], found[kept]
    quality = people_quality(found, true)
    pairs = [(a, b) for a, b in itertools.combinations(range(len(true)), 2)]
    joined = {(a, b) for a, b in pairs if found[a] == found[b] >= 0}
    same = {(a, b) for a, b in pairs if true[a] == true[b] >= 0}
    assert quality.right_pairs == len(joined & same)
    assert quality.false_merges == len(joined - same)
    assert quality.false_splits == len(same - joined)
    people, groups = sorted(set(true[true >= 0])), sorted(set(found[found >= 0]))
    columns = [*groups, *[-2] * len(people)]
    best = max(
        sum(int(((true == person) & (found == group)).sum()) for person, group in zip(people, chosen, strict=True))
        for chosen in itertools.permutations(columns, len(people))
    )
    assert quality.idf1 == pytest.approx(2 * best / ((true >= 0).sum() + (found >= 0).sum()))
    both = [c for c in range(len(true)) if true[c] >= 0 and found[c] >= 0]
    among = [sum((true == true[c]) & (found == found[c])) / sum((true == true[c]) | (found == found[c])) for c in both]
    association = np.mean(among) if both else 0
    assert quality.association_accuracy == pytest.approx(association)
    assert quality.hota == pytest.approx((association * len(both) / len(true)) ** 0.5)


def test_thousands_of_people_are_paired_apart():
    true = np.repeat(np.arange(20_000), 2)
    found = true.copy()
    found[::2] += 1_000_000  # each person found as two
    quality = people_quality(found, true)
    assert quality.idf1 == pytest.approx(0.5)
    assert quality.false_splits == 20_000


@pytest.mark.parametrize(("found", "true"), [([0, 1], [0]), ([[0]], [[0]]), ([0, 1], [-1, -1]), ([], [])])
def test_numbers_that_do_not_fit_are_refused(found, true):
    with pytest.raises(InputError, match="a person found and a true one"):
        people_quality(np.array(found, int), np.array(true, int))
