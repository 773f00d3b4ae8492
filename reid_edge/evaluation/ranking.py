"""CMC, mAP and mINP, single query, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.evaluation.comparison import Block, Bools, Labelled, OnBlock, Rule, compare, no_match
from reid_edge.manifest import Distance


@dataclass(frozen=True)
class Ranking:
    """Ranking quality of a gallery search.

    Attributes:
        cmc: cmc[k-1] is the fraction of queries with a correct match among the first k, float64.
        mean_ap: Mean average precision.
        mean_inp: Mean inverse negative penalty: the share of correct matches among the images down to the last correct
            one (Ye et al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021, eq. 11).
        queries: Queries that have at least one correct match in the gallery; only these count.
    """

    cmc: npt.NDArray[np.float64]
    mean_ap: float
    mean_inp: float
    queries: int

    @property
    def rank1(self) -> float:
        """CMC rank-1."""
        return float(self.cmc[0])


def rank(
    query: Labelled,
    gallery: Labelled,
    *,
    distance: Distance = "cosine",
    rule: Rule = "market1501",
    max_rank: int = 20,
    rerank: bool = False,
    on_block: OnBlock = lambda _queries: None,
) -> Ranking:
    """CMC, mAP and mINP, single query.

    Average precision is the mean, over the correct matches, of the precision at each.  Equal scores keep the gallery's
    order.

    Args:
        query: Labelled queries.
        gallery: Labelled gallery; distractors (identity 0) belong in it, junk (identity -1) does not.
        distance: ``cosine`` or ``euclidean``.
        rule: Which gallery images are left out of a query's search.
        max_rank: Length of ``cmc``, at most the gallery's size.
        rerank: Re-rank the first 100 results of each search.
        on_block: Called with the number of queries done in each block.

    Raises:
        InputError: Shapes that do not fit, or no query with a correct match.
    """
    max_rank = min(max_rank, len(gallery.features))
    hits = np.zeros(max_rank)
    precisions: list[float] = []
    penalties: list[float] = []
    for block in compare(query, gallery, distance=distance, rule=rule, rerank=rerank):
        for row in range(len(block.scores)):
            places = np.flatnonzero(_matches_in_order(block, row))
            if places.size:
                hits[places[0] :] += 1
                precision = np.arange(1, len(places) + 1) / (places + 1)
                precisions.append(float(np.mean(precision)))
                penalties.append(float(precision[-1]))
        on_block(len(block.scores))
    if not precisions:
        raise no_match(rule)
    return Ranking(hits / len(precisions), float(np.mean(precisions)), float(np.mean(penalties)), len(precisions))


def _matches_in_order(block: Block, row: int) -> Bools:
    counted = block.counted[row]
    order = np.argsort(-block.scores[row][counted], kind="stable")
    matches: Bools = block.same[row][counted][order]
    return matches
