"""Scores of a search whose first results are re-ranked by the neighbours that they share with the query."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reid_edge.features import l2_normalised
from reid_edge.identity.reranking import k_reciprocal_distances

Floats = npt.NDArray[np.float64]

#: Results of a search that are re-ranked.
CANDIDATES = 100
#: More than any re-ranked distance, so that all other results come after those that are re-ranked.
_BELOW = 10.0


def reranked_scores(
    scores: Floats, query: npt.NDArray[np.floating], gallery: npt.NDArray[np.floating], found: npt.NDArray[np.bool_]
) -> Floats:
    """Put the first results of each search into another order.

    Args:
        scores: Q×G, higher is more alike.
        query: Features, Q×D.
        gallery: Features, G×D.
        found: Q×G, what a search can find: anything but the query itself, say.

    Returns:
        Q×G float64 whose order in a row is what counts: the re-ranked ones are above all others, which keep their
        order.
    """
    rows = [
        _reranked(row, of_query, gallery, candidates)
        for row, of_query, candidates in zip(scores, l2_normalised(query), found, strict=True)
    ]
    return np.stack(rows)


def _reranked(
    scores: Floats,
    query: npt.NDArray[np.floating],
    gallery: npt.NDArray[np.floating],
    found: npt.NDArray[np.bool_],
) -> Floats:
    listed = np.argsort(-np.where(found, scores, -np.inf), kind="stable")[: min(CANDIDATES, int(found.sum()))]
    answer: Floats = scores - scores.max(initial=0.0) - _BELOW
    answer[listed] = -k_reciprocal_distances(query, l2_normalised(gallery[listed]))
    return answer
