"""The result of an evaluation, as ``evaluate --json`` and ``matrix --json`` write it.

``docs/evaluation.schema.json`` is made from the classes below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reid_edge.benchmark.accuracy import Errors
from reid_edge.evaluation.comparison import Rule
from reid_edge.evaluation.operating_point import OperatingPoint, is_supported
from reid_edge.manifest import Distance

FORMAT_VERSION = 1
#: Rates of false answers at which the rate of misses is told, as far as the number of comparisons supports them.
LIMITS = tuple(first * 10.0**-place for place in range(1, 8) for first in (5, 2, 1))


@dataclass(frozen=True, kw_only=True)
class Point:
    """Error rates at one threshold; over several random splits, their means.

    Attributes:
        limit: Highest rate of false answers that was asked for, FMR or FPIR, in [0, 1].
        threshold: Lowest score called the same person: a cosine similarity, or minus a Euclidean distance.  None: there
            is none that misses less than all.
        false_rate: Rate of false answers there.
        miss_rate: Rate of misses there, FNMR or FNIR.
    """

    limit: float
    threshold: float | None
    false_rate: float
    miss_rate: float


@dataclass(frozen=True, kw_only=True)
class PairErrors:
    """False match rate against false non-match rate of single pairs (``reid_edge.evaluation.verification``).

    Attributes:
        mated: Pairs of one person, of all splits.
        nonmated: Pairs of different people, of all splits.
        equal_error_rate: Both rates where they are equal.
        points: The curve.
    """

    mated: int
    nonmated: int
    equal_error_rate: float
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class SearchErrors:
    """FPIR against FNIR of open-set identification (``reid_edge.evaluation.identification``).

    Attributes:
        mated: Searches for people who are in the gallery, of all splits.
        nonmated: Searches for people who are not.
        points: FNIR where a mate at any rank counts.
        first_rank_points: FNIR where the mate must be the first candidate.
    """

    mated: int
    nonmated: int
    points: tuple[Point, ...]
    first_rank_points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Treated:
    """The same features and searches, treated as a gallery can treat them; rates are in [0, 1].

    Attributes:
        centred: What the features of a camera have in common is taken off, as far as the gallery shows it
            (``reid_edge.identity.centring``).
        reranked: The first 100 results of each search are re-ranked (``reid_edge.identity.reranking``).
        cmc: As in ``Evaluation``.
        mean_ap: Mean average precision.
        mean_inp: Mean inverse negative penalty.
        pairs: Error rates of single pairs; None: not asked for, or re-ranked, where the scores of different queries
            cannot be compared.
        searches: Error rates of searches with a threshold; None likewise.
    """

    centred: bool
    reranked: bool
    cmc: tuple[float, ...]
    mean_ap: float
    mean_inp: float
    pairs: PairErrors | None = None
    searches: SearchErrors | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One or several bundles together on one dataset; rates are in [0, 1].

    Attributes:
        bundles: Folders of the bundles, several for an ensemble.
        model_hashes: Their models.
        trained_on: What the models were trained on, as their manifests say.
        engine: Files, libraries and devices.
        dataset: Name of the dataset.
        splits: Numbers of the random splits, over which all figures are means.
        rule: Which gallery images were left out of a query's search.
        single_shot: One gallery image of each person, mean over all choices.
        distance: Distance of features.
        tracklet_gap: Frames between two images of one tracklet at most, where tracklets were averaged.
        queries: Queries, or tracklets of them, of all splits.
        queries_with_match: Those that count.
        gallery: Gallery images, or tracklets of them, of all splits.
        unreadable: Images that were left out.
        cmc: cmc[k-1] is the share of queries with a correct match among the first k.
        mean_ap: Mean average precision.
        mean_inp: Mean inverse negative penalty.
        pairs: Error rates of single pairs; None: not asked for.
        searches: Error rates of searches with a threshold; None: not asked for.
        treated: The same after centring, re-ranking or both, as far as asked for.
    """

    format_version: int = FORMAT_VERSION
    bundles: tuple[str, ...]
    model_hashes: tuple[str, ...]
    trained_on: tuple[str, ...]
    engine: str
    dataset: str
    splits: tuple[int, ...]
    rule: Rule
    single_shot: bool = False
    distance: Distance
    tracklet_gap: int | None = None
    queries: int
    queries_with_match: int
    gallery: int
    unreadable: int = 0
    cmc: tuple[float, ...]
    mean_ap: float
    mean_inp: float
    pairs: PairErrors | None = None
    searches: SearchErrors | None = None
    treated: tuple[Treated, ...] = ()


def pair_errors(errors: Sequence[Errors]) -> PairErrors:
    """Sum up the verification of several splits, all of the same weight."""
    each = [one.verification for one in errors]
    fewest = min(one.nonmated for one in each)
    return PairErrors(
        mated=sum(one.mated for one in each),
        nonmated=sum(one.nonmated for one in each),
        equal_error_rate=float(np.mean([one.eer for one in each])),
        points=tuple(_mean([one.at(limit) for one in each]) for limit in LIMITS if is_supported(limit, fewest)),
    )


def search_errors(errors: Sequence[Errors]) -> SearchErrors:
    """Sum up the identification of several splits, all of the same weight."""
    each = [one.identification for one in errors]
    fewest = min(len(one.nonmated) for one in each)
    limits = [limit for limit in LIMITS if is_supported(limit, fewest)]
    return SearchErrors(
        mated=sum(len(one.mated) for one in each),
        nonmated=sum(len(one.nonmated) for one in each),
        points=tuple(_mean([one.at(limit) for one in each]) for limit in limits),
        first_rank_points=tuple(_mean([one.at(limit, rank=1) for one in each]) for limit in limits),
    )


def _mean(points: Sequence[OperatingPoint]) -> Point:
    threshold = float(np.mean([point.threshold for point in points]))
    return Point(
        limit=points[0].limit,
        threshold=threshold if np.isfinite(threshold) else None,
        false_rate=float(np.mean([point.false_rate for point in points])),
        miss_rate=float(np.mean([point.miss_rate for point in points])),
    )
