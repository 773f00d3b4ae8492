"""Similarity relative to strangers: how much nearer two tracklets are than each is to those most like it.

Cosines of strangers lie around 0.5 in one scene and 0.9 in another, and some people look like many others.  Both are
taken off: the cosine is compared with the mean cosine that each of the two has with its neighbours of rank 5 to 12,
most of whom are other people (cross-domain similarity local scaling, CSLS: Conneau et al., "Word translation without
parallel data", ICLR 2018, section 2.3), in units of the spread of all cosines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError
from reid_edge.identity.neighbours import Neighbours
from reid_edge.types import Features

Floats = npt.NDArray[np.float64]

#: Tracklets below which too little is known of strangers.
LEAST_TRACKLETS = 20
#: Ranks of the neighbours that stand for strangers, the first left out, the last included.
RANKS = (4, 12)
#: Pairs that are drawn to measure the spread.
DRAWN_PAIRS = 200_000
#: Spreads above what strangers reach by chance, beyond which the neighbours of these ranks are taken to be the same
#: person: somebody with a dozen tracklets has no strangers among the twelve nearest.
SLACK = 1.5
#: Share of the pairs of strangers whose cosine lies so many spreads above the median, once cameras are centred:
#: measured on two models and two datasets, which agree within half a spread.
_TAIL = ((0.5, 0.0), (0.1, 1.65), (0.01, 3.5), (0.001, 5.0), (0.0001, 6.0), (0.000001, 8.5))


@dataclass(frozen=True, kw_only=True)
class Background:
    """Cosines of pairs drawn at random, nearly all of them strangers.

    Attributes:
        median: Their median.
        spread: Median minus the quantile 0.1587, the standard deviation of a normal distribution; the lower half is
            taken since pairs of one person are in the upper one.
        tracklets: Number of tracklets that they were drawn from.
    """

    median: float
    spread: float
    tracklets: int

    def reached_by(self, share: float) -> float:
        """Return the cosine that about this share of the pairs of strangers exceeds."""
        shares, heights = zip(*reversed(_TAIL), strict=True)
        height = np.interp(np.log10(np.clip(share, shares[0], shares[-1])), np.log10(shares), heights)
        return self.median + self.spread * float(height)


def measured_background(features: Features) -> Background:
    """Measure the cosines of random pairs.

    The pairs drawn depend on the order of the rows, which should therefore be one that does not change.

    Args:
        features: N×D float32, unit length, cameras centred.

    Raises:
        InputError: Fewer than two features.
    """
    count = len(features)
    if count < 2:
        raise InputError(f"expected at least 2 features to compare, got {count}.")
    if count * (count - 1) // 2 <= DRAWN_PAIRS:
        first, second = np.triu_indices(count, 1)
    else:
        generator = np.random.default_rng(0)
        first = generator.integers(count, size=DRAWN_PAIRS)
        second = (first + generator.integers(1, count, size=DRAWN_PAIRS)) % count
    cosines = np.concatenate(
        [
            np.einsum("nd,nd->n", features[first[part]], features[second[part]])
            for part in np.array_split(np.arange(len(first)), max(1, len(first) // 10_000))
        ]
    )
    lower, median = np.quantile(cosines, [0.1587, 0.5])
    return Background(median=float(median), spread=max(float(median - lower), 1e-6), tracklets=count)


def stranger_levels(neighbours: Neighbours, background: Background, *, among: int) -> Floats:
    """Return the cosine that each tracklet has with the strangers most like it.

    Args:
        neighbours: Neighbours of N tracklets, at least 12 of each where there are as many.
        background: Of the tracklets that were searched.
        among: Number of tracklets that were searched.

    Returns:
        N float64.
    """
    ranked = neighbours.cosines[:, RANKS[0] : RANKS[1]].astype(np.float64)
    known = np.isfinite(ranked)
    sums = np.where(known, ranked, 0).sum(axis=1)
    means = np.where(known.any(axis=1), sums / np.maximum(known.sum(axis=1), 1), background.median)
    highest = background.reached_by(sum(RANKS) / 2 / max(among, 1)) + SLACK * background.spread
    return np.clip(means, background.median, highest)


def relative_similarity(
    cosines: npt.NDArray[np.floating], first: Floats, second: Floats, background: Background
) -> Floats:
    """Return cosines above what strangers reach, in spreads: 0 is as near as the strangers most like the two.

    Args:
        cosines: Of pairs.
        first: The strangers' level of the one of each pair.
        second: That of the other.
        background: Its spread is the unit.
    """
    relative: Floats = (np.asarray(cosines, np.float64) - (first + second) / 2) / background.spread
    return relative
