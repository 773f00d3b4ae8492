"""Verdict on INT8: what it does to the ranking of crops, beside FP32 features of the same crops.

Cosine similarity alone misses features that have collapsed, so INT8 is judged by what it does to crops' neighbours too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reid_edge.features import l2_normalised, row_cosines
from reid_edge.manifest import Verdict
from reid_edge.types import Features

#: Good INT8 of two x0.25 checkpoints reached at least 0.98 / 0.95 / 0.83 / 0.98 / 0.94; calibrated with noise, which
#: cost 2 mAP and more, at most 0.95 / 0.89 / 0.75 / 0.92 / 0.84 (docs/quantization.md).
MIN_COSINE = 0.97
MIN_RANKING = 0.93
MIN_NEIGHBOURS = 0.80
VARIANCE = (0.95, 1.05)
MIN_GOLDEN_COSINE = 0.90
NEIGHBOURS = 10


def judge(exact: Features, quantized: Features, *, golden_cosine: float, crops: str) -> Verdict:
    """Compare INT8 features with FP32 features of the same crops, none of which calibrated.

    Args:
        exact: N×D of the checkpoint.
        quantized: N×D of the INT8 file.
        golden_cosine: Lowest cosine similarity on the golden crops.  These excite the network as its training data
            did, so a calibration set that is nothing like that is found out even when the N crops are like it.
        crops: What the N crops are, for the record.
    """
    exact_unit, quantized_unit = l2_normalised(exact), l2_normalised(quantized)
    orders = _neighbour_order(exact_unit), _neighbour_order(quantized_unit)
    cosine = float(np.nan_to_num(row_cosines(exact, quantized).mean(), nan=-1))
    ranking, neighbours = _mean_spearman(*orders), _mean_overlap(*orders)
    variance = float(np.nan_to_num(quantized_unit.var(axis=0).sum() / exact_unit.var(axis=0).sum()))
    low, high = VARIANCE
    checks = (
        (cosine >= MIN_COSINE, f"mean cosine {cosine:.4f} is under {MIN_COSINE}"),
        (ranking >= MIN_RANKING, f"ranking agreement {ranking:.4f} is under {MIN_RANKING}"),
        (neighbours >= MIN_NEIGHBOURS, f"neighbour agreement {neighbours:.4f} is under {MIN_NEIGHBOURS}"),
        (low <= variance <= high, f"feature variance is {variance:.3f} of FP32's, outside {low} to {high}"),
        (
            golden_cosine >= MIN_GOLDEN_COSINE,
            f"lowest cosine on crops made from the checkpoint {golden_cosine:.4f} is under {MIN_GOLDEN_COSINE}",
        ),
    )
    reasons = tuple(reason for passed, reason in checks if not passed)
    return Verdict(
        verdict="rejected" if reasons else "accepted",
        crops=crops,
        cosine_mean=cosine,
        ranking=ranking,
        neighbours=neighbours,
        variance=variance,
        reasons=reasons,
    )


def _neighbour_order(unit: Features) -> np.ndarray[Any, np.dtype[np.intp]]:
    """List in row i the other crops, nearest first: N×(N−1)."""
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :-1]


def _mean_spearman(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Average over rows Spearman's rank correlation, 1 − 6 Σd² / (n(n² − 1))."""
    count = first.shape[1]
    rank_of = [np.argsort(order, axis=1) for order in (_dense(first), _dense(second))]
    squares = ((rank_of[0] - rank_of[1]) ** 2).sum(axis=1)
    return float((1 - 6 * squares / (count * (count**2 - 1))).mean())


def _dense(order: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Number each row's neighbours 0…N−2 by leaving out the row itself."""
    return order - (order > np.arange(len(order))[:, None])


def _mean_overlap(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    nearest = min(NEIGHBOURS, first.shape[1])
    shared = [
        len(set(a) & set(b)) for a, b in zip(first[:, :nearest].tolist(), second[:, :nearest].tolist(), strict=True)
    ]
    return float(np.mean(shared) / nearest)
