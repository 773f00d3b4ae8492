"""CMC, mAP and mINP against the slow, obvious computation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.errors import InputError
from reid_edge.evaluation import comparison
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.ranking import rank


def obvious_rank(query, gallery, distance, max_rank):
    """One query at a time, one gallery image at a time, in Python."""
    hits, precisions, penalties = np.zeros(max_rank), [], []
    for q in range(len(query.features)):
        scored = []
        for g in range(len(gallery.features)):
            same_identity = gallery.identities[g] == query.identities[q]
            if same_identity and gallery.cameras[g] == query.cameras[q]:
                continue
            a, b = query.features[q].astype(float), gallery.features[g].astype(float)
            if distance == "cosine":
                apart = 1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
            else:
                apart = np.sqrt(((a - b) ** 2).sum())
            scored.append((apart, same_identity))
        scored.sort(key=lambda pair: pair[0])
        found, precision_at_hits = 0, []
        for position, (_, same) in enumerate(scored, 1):
            if same:
                found += 1
                precision_at_hits.append(found / position)
                if found == 1:
                    hits[position - 1 :] += 1
        if precision_at_hits:
            precisions.append(sum(precision_at_hits) / len(precision_at_hits))
            last = max(position for position, (_, same) in enumerate(scored, 1) if same)
            penalties.append(found / last)
    queries = len(precisions)
    return hits / queries, sum(precisions) / queries, sum(penalties) / queries, queries


def _labelled(rng, count, identities):
    return Labelled(
        rng.standard_normal((count, 16)).astype(np.float32),
        rng.integers(0, identities, count),
        rng.integers(1, 4, count),
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), distance=st.sampled_from(["cosine", "euclidean"]))
def test_ranking_is_that_of_the_obvious_computation(seed, distance):
    rng = np.random.default_rng(seed)
    query, gallery = _labelled(rng, 9, 6), _labelled(rng, 40, 6)
    cmc, mean_ap, mean_inp, queries = obvious_rank(query, gallery, distance, 20)
    result = rank(query, gallery, distance=distance)
    np.testing.assert_allclose(result.cmc, cmc, rtol=0, atol=1e-15)
    assert result.mean_ap == pytest.approx(mean_ap, abs=1e-12)
    assert result.mean_inp == pytest.approx(mean_inp, abs=1e-12)
    assert result.queries == queries


def _images(people, cameras, features, images=None):
    return Labelled(np.array(features, np.float32), np.array(people), np.array(cameras), images)


def test_searches_in_other_cameras_are_the_mean_of_camera_a_in_b_and_b_in_a():
    rng = np.random.default_rng(4)
    a, b = (_images(range(1, 31), [camera] * 30, rng.standard_normal((30, 3))) for camera in (1, 2))
    both = _images([*a.identities, *b.identities], [*a.cameras, *b.cameras], [*a.features, *b.features])
    together = rank(both, both, rule="other-cameras")
    ways = [rank(a, b), rank(b, a)]
    np.testing.assert_allclose(together.cmc, np.mean([way.cmc for way in ways], axis=0))
    assert together.mean_ap == pytest.approx(np.mean([way.mean_ap for way in ways]))
    assert together.mean_ap > rank(both, both).mean_ap  # where the own camera's other people stay in


def test_matches_of_the_same_camera_count_on_request_but_never_the_image_itself():
    query = _images([1, 2], [1, 1], [[1, 0], [0, 1]], np.array([0, 1]))
    gallery = _images([1, 2, 2, 1], [1, 1, 1, 1], [[1, 0], [0, 1], [1, 1], [0, 1]], np.array([0, 1, 2, 3]))
    with pytest.raises(InputError, match="of one camera, count matches of the same camera: --same-camera"):
        rank(query, gallery)
    result = rank(query, gallery, rule="same-camera")
    # Left to find: of 1 the last, after [0, 1] and [1, 1] of 2; of 2 the third, after the last and before the first.
    assert result.queries == 2
    assert result.mean_ap == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_an_image_that_is_not_in_the_gallery_is_not_left_out():
    query = _images([1], [1], [[1, 0]])
    assert rank(query, _images([1, 2], [1, 1], [[1, 0], [0, 1]]), rule="same-camera").mean_ap == 1


def test_blocks_do_not_change_the_result(monkeypatch):
    rng = np.random.default_rng(0)
    query, gallery = _labelled(rng, 30, 5), _labelled(rng, 100, 5)
    whole = rank(query, gallery)
    monkeypatch.setattr(comparison, "QUERY_BLOCK", 7)
    done = []
    in_blocks = rank(query, gallery, on_block=done.append)
    assert (in_blocks.cmc == whole.cmc).all()
    assert in_blocks.mean_ap == whole.mean_ap
    assert done == [7, 7, 7, 7, 2]


def test_memory_stays_small_however_many_queries():
    """2,000 x 20,000 distances at once would take 320 MB in float64."""
    import tracemalloc

    rng = np.random.default_rng(0)
    query = Labelled(rng.standard_normal((2000, 4)).astype(np.float32), rng.integers(0, 9, 2000), np.ones(2000, int))
    gallery = Labelled(
        rng.standard_normal((20_000, 4)).astype(np.float32), rng.integers(0, 9, 20_000), np.full(20_000, 2)
    )
    tracemalloc.start()
    rank(query, gallery)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


def test_mean_inp_is_the_share_of_matches_down_to_the_last_one():
    query = _images([1, 2], [1, 1], [[1, 0], [0.1, 1]])
    gallery = _images([1, 2, 1], [2, 2, 2], [[1, 0], [0.1, 1], [0.05, 1]])
    result = rank(query, gallery)  # person 1 is first and third, person 2 first
    assert result.mean_inp == pytest.approx((2 / 3 + 1) / 2)
    assert result.mean_ap == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


def test_the_same_camera_of_the_same_person_is_left_out():
    query = Labelled(np.eye(2, dtype=np.float32)[:1], np.array([1]), np.array([1]))
    gallery = Labelled(np.array([[1, 0], [0.9, 0.1], [0.5, 0.5]], np.float32), np.array([1, 2, 1]), np.array([1, 1, 2]))
    result = rank(query, gallery, max_rank=2)
    assert result.cmc.tolist() == [0, 1]  # the distractor first, then the match from the other camera
    assert result.mean_ap == 0.5


def test_a_row_of_zeros_ranks_without_nan():
    query = Labelled(np.zeros((1, 2), np.float32), np.array([1]), np.array([1]))
    gallery = Labelled(np.ones((2, 2), np.float32), np.array([1, 2]), np.array([2, 2]))
    assert rank(query, gallery).mean_ap == 1


@pytest.mark.parametrize(
    ("features", "identities", "message"),
    [
        (np.zeros((2, 4)), np.zeros(3, int), "got shapes"),
        (np.zeros(4), np.zeros(4, int), "got shapes"),
        (np.full((2, 4), np.nan), np.zeros(2, int), "NaN"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(features, identities, message):
    with pytest.raises(InputError, match=message):
        Labelled(features.astype(np.float32), identities, np.zeros(len(identities), int))


def test_features_of_two_models_are_an_error():
    a = Labelled(np.ones((1, 4), np.float32), np.array([1]), np.array([1]))
    b = Labelled(np.ones((1, 8), np.float32), np.array([1]), np.array([2]))
    with pytest.raises(InputError, match="different models"):
        rank(a, b)


def test_no_match_at_all_is_an_error():
    a = Labelled(np.ones((1, 4), np.float32), np.array([1]), np.array([1]))
    with pytest.raises(InputError, match="no query has a correct match"):
        rank(a, a)
