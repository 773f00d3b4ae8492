"""Is the person in the gallery at all, and who is it? Open-set identification, as NIST's FRVT 1:N defines it.

Grother, Ngan, Hanaoka, "Face Recognition Vendor Test (FRVT) Part 2: Identification", NISTIR 8271, section on metrics:

* FPIR(N, T), the false positive identification rate: the share of non-mated searches, of people who are not enrolled,
  that return one candidate or more at or above the threshold T.
* FNIR(N, R, T), the false negative identification rate: the share of mated searches whose mate is outside the top R
  ranks, or below T.

Datasets for re-identification hardly have people who are searched for and are not in the gallery.  So each query is
searched for twice: in the gallery as it is (mated), and with all images of its person taken out (non-mated).  Queries
without a match count as non-mated searches only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError
from reid_edge.evaluation.comparison import Block, Labelled, OnBlock, Rule, compare, no_match
from reid_edge.evaluation.operating_point import OperatingPoint
from reid_edge.manifest import Distance


@dataclass(frozen=True)
class Identification:
    """What the searches returned.

    Attributes:
        nonmated: Highest score of another person in each search, Q float64.
        mated: Highest score of the right person in each search that has a match, M float64.
        ranks: Rank of that image from 1, M; it is below all images of others with the same score or a higher one.
    """

    nonmated: npt.NDArray[np.float64]
    mated: npt.NDArray[np.float64]
    ranks: npt.NDArray[np.int64]

    def fpir(self, threshold: float) -> float:
        """Return FPIR(N, T)."""
        return float(np.mean(self.nonmated >= threshold))

    def fnir(self, threshold: float, *, rank: int | None = None) -> float:
        """Return FNIR(N, R, T).

        Args:
            threshold: T.
            rank: R; None: any rank, so that the threshold alone decides.
        """
        missed = self.mated < threshold
        return float(np.mean(missed if rank is None else missed | (self.ranks > rank)))

    def at(self, limit: float, *, rank: int | None = None) -> OperatingPoint:
        """Return the lowest threshold whose FPIR is at most ``limit``, with both rates there."""
        allowed = int(limit * len(self.nonmated) + 1e-9)
        highest = np.sort(self.nonmated)[::-1]
        threshold = -np.inf if allowed >= len(highest) else float(np.nextafter(highest[allowed], np.inf))
        return OperatingPoint(limit, threshold, self.fpir(threshold), self.fnir(threshold, rank=rank))


def identify(
    query: Labelled,
    gallery: Labelled,
    *,
    distance: Distance = "cosine",
    rule: Rule = "market1501",
    on_block: OnBlock = lambda _queries: None,
) -> Identification:
    """Search for each query with and without its person in the gallery.

    Args:
        query: Labelled queries.
        gallery: Labelled gallery; distractors (identity 0) count as other people.
        distance: ``cosine`` or ``euclidean``.
        rule: Which gallery images are left out of a query's search.
        on_block: Called with the number of queries done in each block.

    Raises:
        InputError: Shapes that do not fit, no query with a match, or a query with nobody else to be taken for.
    """
    nonmated: list[npt.NDArray[np.float64]] = []
    mated: list[npt.NDArray[np.float64]] = []
    ranks: list[npt.NDArray[np.int64]] = []
    for block in compare(query, gallery, distance=distance, rule=rule):
        nonmated.append(_highest(block, block.nonmated))
        found = block.mated.any(axis=1)
        best = _highest(block, block.mated)
        before = (block.nonmated & (block.scores >= best[:, None])).sum(axis=1)
        mated.append(best[found])
        ranks.append(before[found] + 1)
        on_block(len(block.scores))
    result = Identification(np.concatenate(nonmated), np.concatenate(mated), np.concatenate(ranks))
    if not len(result.mated):
        raise no_match(rule)
    if not np.isfinite(result.nonmated).all():
        raise InputError(
            "a query has nobody else in its gallery; two people or more are needed to count false answers."
        )
    return result


def _highest(block: Block, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return each query's highest chosen score, Q; minus infinity where none is chosen."""
    highest: npt.NDArray[np.float64] = np.where(chosen, block.scores, -np.inf).max(axis=1)
    return highest
