"""CMC and mAP, single query, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError
from reid_edge.features import l2_normalised
from reid_edge.manifest import Distance

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

#: Which gallery images are left out of a query's search.
#: ``market1501``: those of the same person by the same camera, as Zheng et al. (ICCV 2015) and most after them do.
#: ``other-cameras``: all of the same camera, so that one camera is searched for what another saw (VIPeR).
#: ``same-camera``: only the query's own image, for images of one camera; easier, and not comparable with the others.
Rule = Literal["market1501", "other-cameras", "same-camera"]

#: Queries ranked at a time: 256 x 20k float64 distances take 41 MB.
QUERY_BLOCK = 256


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
class Ranking:
    """Ranking quality of a gallery search.

    Attributes:
        cmc: cmc[k-1] is the fraction of queries with a correct match among the first k, float64.
        mean_ap: Mean average precision.
        queries: Queries that have at least one correct match in the gallery; only these count.
    """

    cmc: npt.NDArray[np.float64]
    mean_ap: float
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
    on_block: Callable[[int], object] = lambda _queries: None,
) -> Ranking:
    """CMC and mAP, single query.

    Average precision is the mean, over the correct matches, of the precision at each.  Equal distances keep the
    gallery's order.

    Args:
        query: Labelled queries.
        gallery: Labelled gallery; distractors (identity 0) belong in it, junk (identity -1) does not.
        distance: ``cosine`` or ``euclidean``.
        rule: Which gallery images are left out of a query's search.
        max_rank: Length of ``cmc``, at most the gallery's size.
        on_block: Called with the number of queries done in each block.

    Raises:
        InputError: Shapes that do not fit, or no query with a correct match.
    """
    if query.features.shape[1] != gallery.features.shape[1]:
        raise InputError(
            f"query features have {query.features.shape[1]} dimensions, gallery features "
            f"{gallery.features.shape[1]}; they come from different models."
        )
    distances = _distance_blocks(query.features, gallery.features, distance)
    max_rank = min(max_rank, len(gallery.features))
    hits = np.zeros(max_rank)
    precisions: list[float] = []
    for start, block in distances:
        for row, row_distances in enumerate(block, start):
            matches = _matches_in_order(row_distances, query, row, gallery, rule)
            first = np.flatnonzero(matches)
            if first.size:
                hits[first[0] :] += 1
                precisions.append(_average_precision(matches))
        on_block(len(block))
    if not precisions:
        raise InputError(_NO_MATCH[rule])
    return Ranking(hits / len(precisions), float(np.mean(precisions)), len(precisions))


_NO_MATCH: dict[Rule, str] = {
    "market1501": "no query has a correct match in the gallery from another camera; nothing can be ranked. If all "
    "images are of one camera, count matches of the same camera: --same-camera.",
    "other-cameras": "no query has a correct match in the gallery from another camera; check the cameras.",
    "same-camera": "no query has a correct match in the gallery but itself; check the identities.",
}


def _matches_in_order(
    distances: Floats, query: Labelled, row: int, gallery: Labelled, rule: Rule
) -> npt.NDArray[np.bool_]:
    order = np.argsort(distances, kind="stable")
    same_identity = gallery.identities[order] == query.identities[row]
    matches: npt.NDArray[np.bool_] = same_identity[~_left_out(query, row, gallery, rule)[order]]
    return matches


def _left_out(query: Labelled, row: int, gallery: Labelled, rule: Rule) -> npt.NDArray[np.bool_]:
    if rule == "same-camera":
        if query.images is None or gallery.images is None:
            return np.zeros(len(gallery.features), np.bool_)
        return np.asarray(gallery.images == query.images[row])
    same_camera = gallery.cameras == query.cameras[row]
    return np.asarray(
        same_camera if rule == "other-cameras" else same_camera & (gallery.identities == query.identities[row])
    )


def _average_precision(matches: npt.NDArray[np.bool_]) -> float:
    positions = np.flatnonzero(matches)
    return float(np.mean(np.arange(1, len(positions) + 1) / (positions + 1)))


def _distance_blocks(query: Floats, gallery: Floats, distance: Distance) -> Iterator[tuple[int, Floats]]:
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    if distance == "cosine":
        query, gallery = l2_normalised(query), l2_normalised(gallery)
    gallery_squares = np.einsum("ij,ij->i", gallery, gallery)
    for start in range(0, len(query), QUERY_BLOCK):
        block = query[start : start + QUERY_BLOCK]
        # ‖g‖² − 2 q·g ranks as ‖q − g‖² does, and for unit vectors as the cosine distance does.
        yield start, gallery_squares - 2 * (block @ gallery.T)
