"""Comparison of every query with every gallery image: scores, which pairs show one person, and which pairs count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError
from reid_edge.evaluation.reranking import reranked_scores
from reid_edge.features import l2_normalised
from reid_edge.manifest import Distance

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

#: Called with the number of queries done in each block.
OnBlock = Callable[[int], object]

#: Which gallery images are left out of a query's search.
#: ``market1501``: those of the same person by the same camera, as Zheng et al. (ICCV 2015) and most after them do.
#: ``other-cameras``: all of the same camera, so that one camera is searched for what another saw (VIPeR).
#: ``same-camera``: only the query's own image, for images of one camera; easier, and not comparable with the others.
Rule = Literal["market1501", "other-cameras", "same-camera"]

#: Queries compared at a time: 256 x 20k float64 scores take 41 MB.
QUERY_BLOCK = 256

_NO_MATCH: dict[Rule, str] = {
    "market1501": "no query has a correct match in the gallery from another camera; nothing can be ranked. If all "
    "images are of one camera, count matches of the same camera: --same-camera.",
    "other-cameras": "no query has a correct match in the gallery from another camera; check the cameras.",
    "same-camera": "no query has a correct match in the gallery but itself; check the identities.",
}


@dataclass(frozen=True)
class Labelled:
    """Features with the identity and camera of each: N×D, N, N.

    Attributes:
        features: N×D.
        identities: N whole numbers.
        cameras: N whole numbers.
        images: N whole numbers, the same for the same image in queries and gallery; None: no image is in both.
    """

    features: Floats
    identities: Ints
    cameras: Ints
    images: Ints | None = None

    def __post_init__(self) -> None:
        count = len(self.features)
        if self.features.ndim != 2 or self.identities.shape != (count,) or self.cameras.shape != (count,):
            raise InputError(
                "expected features N×D with N identities and N cameras, got shapes "
                f"{self.features.shape}, {self.identities.shape}, {self.cameras.shape}."
            )
        if not np.isfinite(self.features).all():
            raise InputError("features hold NaN or infinity; the engine or the checkpoint that made them is broken.")


@dataclass(frozen=True)
class Block:
    """Some queries, compared with the whole gallery.

    Attributes:
        scores: Q×G float64, higher is more alike: the cosine similarity, or minus the Euclidean distance.
        same: Q×G, True where both images show one person.
        counted: Q×G, False where the rule leaves the gallery image out of the query's search.
    """

    scores: npt.NDArray[np.float64]
    same: Bools
    counted: Bools

    @cached_property
    def mated(self) -> Bools:
        """Q×G, True for pairs of one person that count (ISO/IEC 19795-1: mated comparisons)."""
        return self.same & self.counted

    @cached_property
    def nonmated(self) -> Bools:
        """Q×G, True for pairs of different people that count."""
        return ~self.same & self.counted


def compare(
    query: Labelled, gallery: Labelled, *, distance: Distance, rule: Rule, rerank: bool = False
) -> Iterator[Block]:
    """Yield the comparisons of all queries, in blocks and in order.

    Args:
        query: Labelled queries.
        gallery: Labelled gallery; distractors (identity 0) belong in it, junk (identity -1) does not.
        distance: ``cosine`` or ``euclidean``.
        rule: Which gallery images are left out of a query's search.
        rerank: Re-rank the first 100 results of each search by the neighbours that they share with the query; scores of
            different queries can then not be compared.

    Raises:
        InputError: The features have different numbers of dimensions.
    """
    if query.features.shape[1] != gallery.features.shape[1]:
        raise InputError(
            f"query features have {query.features.shape[1]} dimensions, gallery features "
            f"{gallery.features.shape[1]}; they come from different models."
        )
    of_query, of_gallery = query.features.astype(np.float64), gallery.features.astype(np.float64)
    if distance == "cosine":
        of_query, of_gallery = l2_normalised(of_query), l2_normalised(of_gallery)
    for start in range(0, len(of_query), QUERY_BLOCK):
        rows = slice(start, start + QUERY_BLOCK)
        scores = of_query[rows] @ of_gallery.T
        if distance == "euclidean":
            scores = _minus_distances(scores, of_query[rows], of_gallery)
        if rerank:
            scores = reranked_scores(scores, of_query[rows], of_gallery, _findable(query, rows, gallery, rule))
        same = gallery.identities == query.identities[rows, None]
        yield Block(scores, same, ~_left_out(query, rows, gallery, rule, same))


def no_match(rule: Rule) -> InputError:
    """Return the error for queries of which none has a match."""
    return InputError(_NO_MATCH[rule])


def _minus_distances(
    products: npt.NDArray[np.float64], query: npt.NDArray[np.float64], gallery: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    squares = [np.einsum("ij,ij->i", rows, rows) for rows in (query, gallery)]
    squared = squares[0][:, None] + squares[1] - 2 * products
    distances: npt.NDArray[np.float64] = np.sqrt(np.maximum(squared, 0))
    return -distances


def _left_out(query: Labelled, rows: slice, gallery: Labelled, rule: Rule, same: Bools) -> Bools:
    if rule == "market1501":
        return np.asarray(gallery.cameras == query.cameras[rows, None]) & same
    return ~_findable(query, rows, gallery, rule)


def _findable(query: Labelled, rows: slice, gallery: Labelled, rule: Rule) -> Bools:
    """Return what a search can find that does not know who is who: Q×G."""
    if rule == "other-cameras":
        return np.asarray(gallery.cameras != query.cameras[rows, None])
    if query.images is None or gallery.images is None:
        return np.ones((len(query.identities[rows]), len(gallery.identities)), np.bool_)
    return np.asarray(gallery.images != query.images[rows, None])
