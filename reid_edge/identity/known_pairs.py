"""Labelled pairs beside the limit from which tracklets are joined: how many of two people reach it.

The limit expects a number of strangers that was measured elsewhere (:mod:`reid_edge.identity.sureness`).  Labelled
pairs of two people that reach it show that there are more here, and raise it.  They never lower it: pairs that a person
chose to label are no sample of those that would be joined.  Pairs that one camera saw at the same time, and parts of
one tracklet, are not counted: neither tells how near strangers or matches of two cameras are (docs/identity.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.identity.clustering import relative_similarities
from reid_edge.identity.sightings import Sightings
from reid_edge.identity.sureness import more_strangers, sure_at_once

Rows = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True)
class KnownPairs:
    """Labelled pairs, and how many of them reach the limit.

    Attributes:
        limit: The limit as it would be without labels: relative similarity from which tracklets are joined.
        one: Number of pairs of one person.
        one_above: Number of them that reach the limit.
        two: Number of pairs of two people.
        two_above: Number of them that reach the limit.
    """

    limit: float
    one: int
    one_above: int
    two: int
    two_above: int

    @property
    def strangers(self) -> float:
        """How many times more strangers are near a tracklet than the limit expects: at least 1."""
        return more_strangers(self.one_above, self.two_above)


def known_pairs(sightings: Sightings, one: Rows, two: Rows) -> KnownPairs:
    """Count the labelled pairs that reach the limit, the lower one of all tracklets together and one at a time.

    Args:
        sightings: N tracklets, at least 20.
        one: Q×2 rows of one person.
        two: P×2 rows of two people.
    """
    similar, limit = relative_similarities(sightings, np.concatenate([one, two]))
    limit = min(limit, sure_at_once(len(sightings)))
    above = similar >= limit
    return KnownPairs(
        limit=limit,
        one=len(one),
        one_above=int(above[: len(one)].sum()),
        two=len(two),
        two_above=int(above[len(one) :].sum()),
    )
