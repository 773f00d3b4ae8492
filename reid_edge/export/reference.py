"""Run model files against the checkpoint: do they compute the same, and what does INT8 do to the ranking?

Cosine similarity alone misses features that have collapsed, so INT8 is judged by what it does to crops' neighbours too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reid_edge.bundle import Bundle
from reid_edge.crops import normalised
from reid_edge.errors import ParityError, QuantizationRejected
from reid_edge.export.calibration import GOLDEN_STEPS, CalibrationSet, distill, shipped_set
from reid_edge.features import l2_normalised, row_cosines
from reid_edge.manifest import RANDOM_WEIGHTS, Artifact, InputSpec, Verdict
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.osnet.network import OSNet
from reid_edge.progress import Notify
from reid_edge.runtime.agreement import COSINE_LIMITS, float_limit
from reid_edge.runtime.engines import Batch, EngineOptions, load_engine
from reid_edge.runtime.extractor import as_input
from reid_edge.runtime.golden import measure_parity
from reid_edge.types import Features, Image

GOLDEN_CROPS = 8
GOLDEN_SEED = 1

#: Good INT8 of two x0.25 checkpoints reached at least 0.98 / 0.95 / 0.83 / 0.98 / 0.94; calibrated with noise, which
#: cost 2 mAP and more, at most 0.95 / 0.89 / 0.75 / 0.92 / 0.84 (docs/quantization.md).
MIN_COSINE = 0.97
MIN_RANKING = 0.93
MIN_NEIGHBOURS = 0.80
VARIANCE = (0.95, 1.05)
MIN_GOLDEN_COSINE = 0.90
NEIGHBOURS = 10


@dataclass(frozen=True)
class Reference:
    """A checkpoint, crops, and its own features of them in PyTorch.

    Attributes:
        checkpoint: At the size that is exported.
        network: Its network.
        calibration: Crops that calibrate INT8 and others that judge it; None where no INT8 is made.
        golden: Crops of nobody, G×H×W×3 uint8 BGR: a bundle travels to cameras.
        golden_features: G×D float32, not normalised.
        held_out_features: The checkpoint's features of the crops that judge.
    """

    checkpoint: Checkpoint
    network: OSNet
    calibration: CalibrationSet | None
    golden: Image
    golden_features: Features
    held_out_features: Features | None

    def save_golden(self, path: Path) -> None:
        """Write golden crops and features as a bundle holds them."""
        np.savez_compressed(path, crops=self.golden, features=self.golden_features)

    def calibration_batches(self, spec: InputSpec) -> list[Batch]:
        """Calibration crops, one a batch, as the model files take them."""
        assert self.calibration is not None
        return [as_input(crop[None], spec) for crop in self.calibration.calibration]

    def check(self, bundle: Bundle, artifact: Artifact, *, keep_rejected: bool = False) -> Artifact:
        """Run an artifact's files against the checkpoint.

        Args:
            bundle: Where its files lie; only the manifest's input spec matters.
            artifact: Not yet checked.
            keep_rejected: Return INT8 that changes the ranking too much, with that verdict, instead of raising.

        Returns:
            The artifact with its parity, and its verdict where it is INT8 or tuned.

        Raises:
            ParityError: It does not compute what the checkpoint computes.
            QuantizationRejected: It changes the ranking too much.
            EngineError: It cannot run here.
        """
        spec = bundle.manifest.input
        engine = load_engine(bundle, artifact, EngineOptions())
        parity = measure_parity(engine, spec, self.golden, self.golden_features, max_batch=artifact.max_batch)
        _require_parity(artifact, parity.cosine_min)
        if artifact.precision in COSINE_LIMITS:
            return replace(artifact, parity=parity)
        assert self.calibration is not None and self.held_out_features is not None
        inputs = (as_input(crop[None], spec) for crop in self.calibration.held_out)
        kind = "distilled crops" if self.calibration.record.source == "distilled" else "crops"
        verdict = judge(
            self.held_out_features,
            np.concatenate([engine.infer(crop) for crop in inputs]),
            golden_cosine=parity.cosine_min,
            crops=f"{len(self.calibration.held_out)} {kind}",
        )
        if verdict.reasons and not keep_rejected:
            raise QuantizationRejected(
                f"{artifact.name} rejected: {'; '.join(verdict.reasons)} (judged on {verdict.crops}, not used to "
                "calibrate). Nothing was written. Try other calibration crops (--calibration DIR), leave INT8 out "
                "(--precision fp32,fp16), or keep it all the same (--keep-rejected)."
            )
        return replace(artifact, parity=parity, verdict=verdict)


def make_reference(checkpoint: Checkpoint, calibration: CalibrationSet | None, notify: Notify) -> Reference:
    """Run a checkpoint on golden crops, and on those that judge INT8.

    Args:
        checkpoint: At the size that is exported.
        calibration: For INT8; None where none will be made.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
    """
    network = checkpoint.network()
    golden = _golden(checkpoint, calibration, notify)
    return Reference(
        checkpoint=checkpoint,
        network=network,
        calibration=calibration,
        golden=golden,
        golden_features=reference_features(network, checkpoint, golden),
        held_out_features=reference_features(network, checkpoint, calibration.held_out) if calibration else None,
    )


def _golden(checkpoint: Checkpoint, calibration: CalibrationSet | None, notify: Notify) -> Image:
    size = checkpoint.info.size
    distilled = calibration if calibration and calibration.record.source == "distilled" else None
    if made := distilled or shipped_set(checkpoint, size):
        return made.held_out[:GOLDEN_CROPS]
    if checkpoint.info.dataset == RANDOM_WEIGHTS:  # nothing was learnt that crops could be distilled from
        return np.random.default_rng(GOLDEN_SEED).integers(0, 256, (GOLDEN_CROPS, *size, 3), dtype=np.uint8)
    on_step = notify("distilling golden crops from the checkpoint", GOLDEN_STEPS)
    return distill(checkpoint, GOLDEN_CROPS, size=size, seed=GOLDEN_SEED, steps=GOLDEN_STEPS, on_step=on_step)


def reference_features(network: OSNet, checkpoint: Checkpoint, crops: Image) -> Features:
    """Compute a checkpoint's features in PyTorch, which every exported file is measured against.

    Args:
        network: The checkpoint's network.
        checkpoint: Says mean and std.
        crops: N×H×W×3 uint8, BGR.

    Returns:
        N×D float32, not normalised.
    """
    batches = np.array_split(crops, -(-len(crops) // 32))
    with torch.no_grad():
        outputs = [
            network(torch.from_numpy(normalised(batch, checkpoint.info.mean, checkpoint.info.std))) for batch in batches
        ]
    features: Features = torch.cat(outputs).numpy()
    return features


def _require_parity(artifact: Artifact, cosine: float) -> None:
    limit = float_limit(artifact)
    if limit is not None and not cosine >= limit:
        raise ParityError(
            f"{artifact.name} does not compute what the checkpoint computes: lowest cosine similarity {cosine:.6f} "
            f"on the golden crops, at least {limit} expected. Nothing was written."
        )


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
