import numpy as np
import pytest

from reid_edge.errors import InputError
from reid_edge.features import l2_normalised
from reid_edge.identity.neighbours import nearest
from reid_edge.identity.reranking import expanded_query, k_reciprocal_distances, neighbour_averaged
from tests.identity.scenes import make_scene, unit


def slow_k_reciprocal(features, k1, k2, share):
    """The paper's procedure for item 0, with sets and loops."""
    count = len(features)
    squared = np.array([[max(0.0, float(((a - b) ** 2).sum())) for b in features] for a in features])
    distances = squared / squared.max(axis=1, keepdims=True)
    order = [sorted(range(count), key=lambda q, p=p: (distances[p][q], q)) for p in range(count)]

    def reciprocal(p, k):
        return {q for q in order[p][: k + 1] if p in order[q][: k + 1]}

    vectors = np.zeros((count, count))
    for p in range(count):
        members = set(reciprocal(p, k1))
        for q in reciprocal(p, k1):
            candidate = reciprocal(q, max(1, round(k1 / 2)))
            if len(candidate & reciprocal(p, k1)) >= 2 / 3 * len(candidate):
                members |= candidate
        for q in members:
            vectors[p, q] = np.exp(-distances[p][q])
        vectors[p] /= vectors[p].sum()
    vectors = np.array([np.mean([vectors[q] for q in order[p][:k2]], axis=0) for p in range(count)])
    jaccard = [
        1 - np.minimum(vectors[0], vectors[q]).sum() / np.maximum(vectors[0], vectors[q]).sum() for q in range(1, count)
    ]
    return (1 - share) * np.array(jaccard) + share * distances[0][1:]


@pytest.mark.parametrize(("k1", "k2", "share"), [(8, 3, 0.3), (5, 1, 0.0), (3, 2, 1.0)])
def test_k_reciprocal_distances_are_those_of_the_paper(k1, k2, share):
    features = l2_normalised(np.random.default_rng(3).normal(size=(30, 8)))
    found = k_reciprocal_distances(
        features[0].astype(np.float32), features[1:].astype(np.float32), k1=k1, k2=k2, original=share
    )
    wanted = slow_k_reciprocal(features.astype(np.float32).astype(np.float64), k1, k2, share)
    assert np.allclose(found, wanted, atol=1e-6)


def test_re_ranking_puts_the_rest_of_a_persons_tracklets_before_a_look_alike():
    # a, b, c are near one another in a row; the look-alike x is nearer to the query a than c is, but far from b and c
    a, b, c, x = unit(1, 0, 0.1), unit(1, 0.35, 0), unit(1, 0.7, 0), unit(1, 0, 0.75)
    crowd = [unit(0.3, np.cos(angle) - 3, np.sin(angle)) for angle in np.linspace(0, 6, 12)]
    candidates = np.stack([b, x, c, *crowd])
    assert candidates[1] @ a > candidates[2] @ a
    distances = k_reciprocal_distances(a, candidates, k1=3, k2=2)
    assert distances[2] < distances[1]


def test_nothing_to_re_rank_and_one_candidate_are_answered():
    assert k_reciprocal_distances(unit(1, 0), np.empty((0, 2), np.float32)).shape == (0,)
    assert np.isfinite(k_reciprocal_distances(unit(1, 0), np.stack([unit(1, 0)]))).all()


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="k1"):
        k_reciprocal_distances(unit(1, 0), np.stack([unit(1, 0)]), k1=0)


def test_a_feature_becomes_the_mean_with_its_nearest_weighted_by_cosine():
    features = np.stack([unit(1, 0), unit(1, 1), unit(0, 1)])
    averaged = neighbour_averaged(features, nearest(features, 2), count=1)
    assert np.allclose(averaged[0], unit(*(features[0] + np.sqrt(0.5) * features[1])), atol=1e-6)


def test_averaging_brings_a_persons_tracklets_together():
    scene = make_scene(noise=0.9)
    features = scene.sightings.features
    averaged = neighbour_averaged(features, nearest(features, 5))
    same = (scene.people[:, None] == scene.people) & ~np.eye(len(scene.people), dtype=bool)
    gap = [
        float(cosines[same].mean() - cosines[~same & ~np.eye(len(same), dtype=bool)].mean())
        for cosines in (features @ features.T, averaged @ averaged.T)
    ]
    assert gap[1] > gap[0] + 0.1


def test_an_expanded_query_is_the_mean_with_the_first_candidates():
    candidates = np.stack([unit(1, 1), unit(0, 1)])
    assert np.allclose(expanded_query(unit(1, 0), candidates, count=1), unit(1.5, 0.5), atol=1e-6)
    assert np.allclose(expanded_query(unit(1, 0), candidates[:0]), unit(1, 0))
