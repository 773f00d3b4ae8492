"""Is a pair of images one person? False match rate against false non-match rate, and the equal error rate.

The terms and definitions are those of ISO/IEC 19795-1 and of NIST's FRVT 1:1: at a threshold t, the false match rate
FMR(t) is the share of non-mated comparisons whose score is t or higher, and the false non-match rate FNMR(t) is the
share of mated comparisons whose score is below t.  The comparisons are those of the search: each query with each
gallery image that the rule leaves in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError
from reid_edge.evaluation.comparison import Labelled, OnBlock, Rule, compare, no_match
from reid_edge.evaluation.operating_point import OperatingPoint
from reid_edge.manifest import Distance


@dataclass(frozen=True)
class Verification:
    """Error rates of the decision "same person", exact, at every threshold that matters.

    These are the scores of mated comparisons: at any other threshold one of the two rates is higher, and none is lower,
    than at the next such score above.

    Attributes:
        thresholds: T scores, ascending, float64.
        fmr: False match rate at each threshold, T.
        fnmr: False non-match rate at each threshold, T.
        eer: Equal error rate: both rates where they are equal, on the straight line between neighbouring points.
        mated: Number of mated comparisons.
        nonmated: Number of non-mated comparisons.
    """

    thresholds: npt.NDArray[np.float64]
    fmr: npt.NDArray[np.float64]
    fnmr: npt.NDArray[np.float64]
    eer: float
    mated: int
    nonmated: int

    def at(self, limit: float) -> OperatingPoint:
        """Return the point of fewest misses among those whose false match rate is at most ``limit``."""
        place = int(np.argmax(self.fmr <= limit))
        if self.fmr[place] > limit:
            return OperatingPoint(limit, np.inf, 0.0, 1.0)
        return OperatingPoint(limit, float(self.thresholds[place]), float(self.fmr[place]), float(self.fnmr[place]))


def verify(
    query: Labelled,
    gallery: Labelled,
    *,
    distance: Distance = "cosine",
    rule: Rule = "market1501",
    on_block: OnBlock = lambda _queries: None,
) -> Verification:
    """Compute FMR, FNMR and EER over all pairs that a search compares.

    The blocks are gone through twice, for the scores of mated comparisons and then to count the others against them,
    so memory does not grow with the number of pairs.

    Args:
        query: Labelled queries.
        gallery: Labelled gallery; distractors (identity 0) count as other people.
        distance: ``cosine`` or ``euclidean``.
        rule: Which gallery images are left out of a query's search.
        on_block: Called with the number of queries done in each block, of the second pass.

    Raises:
        InputError: Shapes that do not fit, or no pair of one person, or none of two people.
    """
    mated = [block.scores[block.mated] for block in compare(query, gallery, distance=distance, rule=rule)]
    thresholds, counts = np.unique(np.concatenate(mated), return_counts=True)
    if not thresholds.size:
        raise no_match(rule)
    reaching, above = np.zeros_like(counts), np.zeros_like(counts)
    nonmated = 0
    for block in compare(query, gallery, distance=distance, rule=rule):
        scores = np.sort(block.scores[block.nonmated])
        nonmated += len(scores)
        reaching += len(scores) - np.searchsorted(scores, thresholds, side="left")
        above += len(scores) - np.searchsorted(scores, thresholds, side="right")
        on_block(len(block.scores))
    if not nonmated:
        raise InputError("all images show one person; two people or more are needed to count false matches.")
    missed = np.cumsum(counts) / counts.sum()
    fmr, fnmr = reaching / nonmated, np.concatenate([[0.0], missed[:-1]])
    eer = _equal_error_rate(fmr, fnmr, above / nonmated, missed)
    return Verification(thresholds, fmr, fnmr, eer, int(counts.sum()), nonmated)


def _equal_error_rate(
    fmr: npt.NDArray[np.float64],
    fnmr: npt.NDArray[np.float64],
    fmr_above: npt.NDArray[np.float64],
    fnmr_above: npt.NDArray[np.float64],
) -> float:
    """Return both rates where the curve crosses the diagonal, from the rates at T thresholds and just above each."""
    false = np.concatenate([[1.0], np.stack([fmr, fmr_above], axis=1).ravel(), [0.0]])
    missed = np.concatenate([[0.0], np.stack([fnmr, fnmr_above], axis=1).ravel(), [1.0]])
    after = int(np.argmax(missed >= false))
    gaps = (false - missed)[after - 1 : after + 1]
    share = gaps[0] / (gaps[0] - gaps[1])
    return float(false[after - 1] + share * (false[after] - false[after - 1]))
