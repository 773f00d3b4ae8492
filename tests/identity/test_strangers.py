import numpy as np
import pytest

from reid_edge.features import l2_normalised
from reid_edge.identity.strangers import measured_strangers


def crowd(count, dim=64, *, seed=0):
    """Features of strangers that vary in a few directions much more than in the others."""
    generator = np.random.default_rng(seed)
    wide = np.where(np.arange(dim) < 5, 3.0, 1.0)
    return l2_normalised(generator.normal(size=(count, dim)) * wide + 0.5).astype(np.float32)


def test_similarities_of_strangers_have_the_mean_0_and_the_deviation_1_for_everybody():
    strangers = measured_strangers(crowd(2000))
    others = crowd(3000, seed=1)
    one_sided = [strangers.similarity_to(query, others) for query in crowd(50, seed=2)]
    assert np.mean(one_sided) == pytest.approx(0, abs=0.05)
    assert np.std(one_sided) == pytest.approx(1, abs=0.1)


def test_a_feature_near_everybodys_counts_for_less():
    strangers = measured_strangers(crowd(2000))
    generator = np.random.default_rng(3)
    usual, unusual = np.zeros(64, np.float32), np.zeros(64, np.float32)
    usual[:5], unusual[40:45] = 1, 1  # along the directions in which all differ, and along others
    pairs = []
    for start in (usual, unusual):
        first, second = (l2_normalised((start + 0.3 * generator.normal(size=64))[None]) for _ in range(2))
        pairs.append((first.astype(np.float32), second.astype(np.float32)))
    cosines = [float((first @ second.T).item()) for first, second in pairs]
    relative = [
        strangers.similarity(first, second)[0] / cosine for (first, second), cosine in zip(pairs, cosines, strict=True)
    ]
    assert relative[1] > 1.5 * relative[0]


def test_what_is_measured_does_not_depend_on_how_many_tracklets_there_are():
    few, many = measured_strangers(crowd(1000)), measured_strangers(crowd(8000, seed=4))
    first, second = crowd(500, seed=5), crowd(500, seed=6)
    assert np.corrcoef(few.similarity(first, second), many.similarity(first, second))[0, 1] > 0.99
    assert np.abs(few.similarity(first, second) - many.similarity(first, second)).max() < 0.5


def test_features_that_are_all_the_same_give_finite_similarities():
    same = np.tile(l2_normalised(np.ones((1, 8))), (30, 1)).astype(np.float32)
    strangers = measured_strangers(same)
    assert np.isfinite(strangers.similarity(same, same)).all()
