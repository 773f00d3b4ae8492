"""A map between the features of two models."""

import dataclasses

import numpy as np
import pytest

from reid_edge.errors import PairsError
from reid_edge.features import l2_normalised
from reid_edge.identity.migration import FOLDS, MIN_GROUPS, MIN_PAIRS, Pairs, check_enough, folds, orthogonal_map

OLD, NEW = "ab" * 32, "cd" * 32
DIM = 64


def rotation(dim: int = DIM, seed: int = 5) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0].astype(np.float32)


def pairs_of(
    people: int = 200, crops: int = 4, *, dim: int = DIM, noise: float = 0.05, seed: int = 0, **other
) -> Pairs:
    """Crops of people, by two models: the new features are the old ones turned, with noise."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, dim))
    rows = centres.repeat(crops, 0) + 1.5 * rng.normal(size=(people * crops, dim))
    old = l2_normalised(rows).astype(np.float32)
    new = l2_normalised(old @ rotation(dim) + noise * rng.normal(size=old.shape)).astype(np.float32)
    made = Pairs(old_hash=OLD, new_hash=NEW, old=old, new=new, groups=np.arange(people).repeat(crops))
    return dataclasses.replace(made, **other)


def test_the_map_is_the_rotation_between_the_models():
    pairs = pairs_of(noise=0)
    np.testing.assert_allclose(orthogonal_map(pairs), rotation(), atol=1e-5)


def test_with_noise_it_is_still_orthogonal_and_near():
    found = orthogonal_map(pairs_of())
    np.testing.assert_allclose(found @ found.T, np.eye(DIM), atol=1e-5)
    assert np.abs(found - rotation()).max() < 0.05


def test_no_other_orthogonal_map_is_nearer():
    pairs = pairs_of(noise=0.2)
    found = orthogonal_map(pairs)
    error = np.square(pairs.old @ found - pairs.new).sum()
    for seed in range(20):
        skew = np.random.default_rng(seed).normal(size=(DIM, DIM))
        near = np.linalg.qr(np.eye(DIM) + 0.01 * (skew - skew.T))[0]
        near *= np.sign(np.diag(near))  # QR leaves the signs open
        assert np.square(pairs.old @ found @ near - pairs.new).sum() > error


def test_each_pair_judges_once_by_a_map_of_other_people():
    pairs = pairs_of()
    judged = []
    for learning, judging in folds(pairs):
        assert not np.isin(judging.groups, learning.groups).any()
        assert len(learning) + len(judging) == len(pairs)
        judged += judging.groups.tolist()
    assert sorted(judged) == pairs.groups.tolist()
    assert len(list(folds(pairs))) == FOLDS


def test_the_same_crop_again_counts_once():
    pairs = pairs_of(10)
    again = pairs.take(np.r_[np.arange(len(pairs)), [3, 7]])
    np.testing.assert_array_equal(again.different().old, pairs.different().old)


def test_too_few_pairs_or_groups_are_refused():
    check_enough(pairs_of(MIN_PAIRS // 4, 4))
    with pytest.raises(PairsError, match=f"508 different pairs are too few.*at least {MIN_PAIRS}"):
        check_enough(pairs_of(MIN_PAIRS // 4 - 1, 4))
    with pytest.raises(PairsError, match=f"0 groups of two crops.*at least {MIN_GROUPS}"):
        check_enough(pairs_of(MIN_PAIRS, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"new_hash": OLD}, "both features of these pairs are of the model"),
        ({"new": np.ones((3, DIM), np.float32)}, "of the same size"),
        ({"groups": np.zeros(3, np.int64)}, "and a group"),
        ({"old": np.full((800, DIM), np.nan, np.float32)}, "old model hold NaN"),
        ({"new": np.full((800, DIM), np.inf, np.float32)}, "new model hold NaN"),
        ({"new": np.zeros((800, DIM), np.float32)}, "feature of zeros"),
    ],
)
def test_pairs_that_cannot_be_used_are_refused(changes, message):
    with pytest.raises(PairsError, match=message):
        pairs_of(**changes)
