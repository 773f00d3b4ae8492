"""Re-ranking of a search's answer by the neighbours that answer and query share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError
from reid_edge.features import l2_normalised
from reid_edge.identity.neighbours import Neighbours
from reid_edge.types import Feature, Features

Floats = npt.NDArray[np.float64]


def neighbour_averaged(features: Features, neighbours: Neighbours, *, count: int = 2) -> Features:
    """Replace each feature by the mean of itself and its nearest, weighted by cosine, at unit length.

    Arandjelović and Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012, section 4,
    with the weights of Radenović et al., TPAMI 2018 (αQE with α = 1).

    Args:
        features: N×D float32, unit length.
        neighbours: Their nearest others; at least ``count`` of them where there are as many.
        count: Number of neighbours in a mean.

    Returns:
        N×D float32.
    """
    rows, weights = neighbours.rows[:, :count], np.maximum(neighbours.cosines[:, :count], 0)
    total = features.copy()
    for place in range(rows.shape[1]):  # one neighbour at a time, so that no N×count×D array is needed
        total += weights[:, place, None] * features[np.maximum(rows[:, place], 0)]
    return l2_normalised(total)


def expanded_query(query: Feature, candidates: Features, *, count: int = 2) -> Feature:
    """Return the mean of a query and its nearest candidates, weighted by cosine, at unit length.

    Chum et al., "Total recall", ICCV 2007, with the weights of :func:`neighbour_averaged`.

    Args:
        query: D float32, unit length.
        candidates: M×D float32, unit length, the nearest first.
        count: Number of candidates in the mean.
    """
    nearest = candidates[:count]
    weights = np.maximum(nearest @ query, 0)
    mean: Feature = l2_normalised((query + weights @ nearest)[None])[0]
    return mean


def k_reciprocal_distances(
    query: Feature, candidates: Features, *, k1: int = 8, k2: int = 3, original: float = 0.3
) -> Floats:
    """Return the re-ranked distance of each candidate of a query; smaller is nearer.

    Zhong et al., "Re-ranking person re-identification with k-reciprocal encoding", CVPR 2017, within the candidates:
    R(p, k) are the k nearest of p that have p among their own k nearest (equation 3); R*(p, k1) adds the R(q, k1/2) of
    those members q of which two thirds lie in R(p, k1) (equation 5).  Each is a vector of weights exp(−d) (equation 7),
    averaged over the k2 nearest (equation 11).  The answer is (1 − λ) Jaccard + λ d (equations 10 and 12), with d the
    squared Euclidean distance over its maximum of a row.

    Args:
        query: D float32, unit length.
        candidates: M×D float32, unit length; what the search returned.  Neighbours outside are not known, so M should
            be several times ``k1``.
        k1: Neighbours of which reciprocity is asked.
        k2: Vectors in a mean.
        original: λ, the share of the distance as it was.

    Returns:
        M float64.

    Raises:
        InputError: ``k1`` or ``k2`` below 1, or a share outside 0 to 1.
    """
    if k1 < 1 or k2 < 1 or not 0 <= original <= 1:
        raise InputError(f"expected k1 and k2 of at least 1 and a share of 0 to 1; got {k1}, {k2} and {original}.")
    if not len(candidates):
        return np.empty(0)
    features = np.concatenate([query[None], candidates]).astype(np.float64)
    # row by row, and below in whole numbers: for such small products, waiting for BLAS's threads takes longer
    cosines = np.stack([features @ row for row in features])
    squared = np.maximum(2 - 2 * cosines, 0)
    np.fill_diagonal(squared, 0)
    distances = squared / np.maximum(squared.max(axis=1, keepdims=True), 1e-12)
    order = np.argsort(distances, axis=1, kind="stable")
    weights = _encoded(distances, order, k1)
    weights = weights[order[:, :k2]].mean(axis=1)
    shared = np.minimum(weights[0], weights[1:]).sum(axis=1)
    jaccard = 1 - shared / np.maximum(weights[0].sum() + weights[1:].sum(axis=1) - shared, 1e-12)
    answer: Floats = (1 - original) * jaccard + original * distances[0, 1:]
    return answer


def _encoded(distances: Floats, order: npt.NDArray[np.intp], k1: int) -> Floats:
    """Return the vectors of k-reciprocal neighbours, each with the sum 1: N×N."""
    wide, narrow = (_reciprocal(order, k) for k in (k1, max(1, round(k1 / 2))))
    common = narrow.astype(np.int32) @ wide.T.astype(np.int32)  # [q, p]: members of R(q, k1/2) in R(p, k1)
    taken = wide & (common >= 2 / 3 * narrow.sum(axis=1)[:, None]).T
    members = wide | (taken.astype(np.int32) @ narrow.astype(np.int32) > 0)
    weights = np.where(members, np.exp(-distances), 0)
    encoded: Floats = weights / weights.sum(axis=1, keepdims=True)
    return encoded


def _reciprocal(order: npt.NDArray[np.intp], k: int) -> npt.NDArray[np.bool_]:
    """Return whether q is in R(p, k), and p itself: N×N."""
    near = np.zeros(order.shape, np.bool_)
    np.put_along_axis(near, order[:, : k + 1], True, axis=1)
    return near & near.T
