"""Searches whose first results are re-ranked."""

import numpy as np
import pytest

from reid_edge.evaluation import reranking
from reid_edge.evaluation.comparison import Labelled, compare
from reid_edge.evaluation.ranking import rank
from reid_edge.evaluation.reranking import reranked_scores
from reid_edge.features import l2_normalised
from reid_edge.identity.reranking import k_reciprocal_distances


def scene(seed=0, people=12, each=6):
    """People who resemble one another, each a chain of images of which neighbours are alike."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), each)
    features = l2_normalised(rng.standard_normal((people, 16)))[who] + 0.25 * rng.standard_normal((people * each, 16))
    cameras = np.tile(np.arange(each), people) + 1
    return Labelled(l2_normalised(features), who + 1, cameras, np.arange(people * each))


@pytest.fixture
def ten_candidates(monkeypatch):
    monkeypatch.setattr(reranking, "CANDIDATES", 10)


def test_the_first_results_are_re_ranked_and_come_before_the_others_which_keep_their_order(ten_candidates):
    labelled = scene()
    scores = labelled.features @ labelled.features.T
    found = ~np.eye(len(scores), dtype=bool)
    answer = reranked_scores(scores, labelled.features, labelled.features, found)
    for row in range(len(scores)):
        order = [place for place in np.argsort(-scores[row], kind="stable") if place != row]
        listed, rest = order[:10], order[10:]
        expected = k_reciprocal_distances(labelled.features[row], labelled.features[listed])
        np.testing.assert_allclose(-answer[row, listed], expected)
        assert answer[row, listed].min() > answer[row, rest].max()
        assert (np.diff(answer[row, rest]) <= 0).all()


def test_neither_the_query_itself_nor_what_a_rule_cannot_find_is_a_candidate(ten_candidates):
    labelled = scene()
    for rule, findable in (
        ("market1501", ~np.eye(72, dtype=bool)),
        ("same-camera", ~np.eye(72, dtype=bool)),
        ("other-cameras", labelled.cameras[:, None] != labelled.cameras),
    ):
        (block,) = compare(labelled, labelled, distance="cosine", rule=rule, rerank=True)
        re_ranked = block.scores > -5
        assert (re_ranked.sum(axis=1) == 10).all()
        assert not (re_ranked & ~findable).any()


def test_re_ranking_finds_more_of_a_persons_images():
    labelled = scene(seed=1, people=30)
    assert rank(labelled, labelled, rerank=True).mean_ap > rank(labelled, labelled).mean_ap + 0.02


def test_features_of_any_length_and_the_euclidean_distance_have_the_same_candidates_order():
    labelled = scene()
    longer = Labelled(3 * labelled.features, labelled.identities, labelled.cameras, labelled.images)
    (once,) = compare(labelled, labelled, distance="euclidean", rule="market1501", rerank=True)
    (thrice,) = compare(longer, longer, distance="euclidean", rule="market1501", rerank=True)
    np.testing.assert_allclose(once.scores[once.scores > -5], thrice.scores[thrice.scores > -5])


def test_a_gallery_that_is_smaller_than_the_list_is_re_ranked_whole():
    labelled = scene(people=2, each=3)
    (block,) = compare(labelled, labelled, distance="cosine", rule="same-camera", rerank=True)
    assert ((block.scores > -5).sum(axis=1) == 5).all()
