"""Run model files against the checkpoint: do they compute the same, and what does INT8 do to the ranking?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from reid_edge.bundle import Bundle
from reid_edge.crops import normalised
from reid_edge.errors import ParityError, QuantizationRejected
from reid_edge.export.calibration import GOLDEN_STEPS, CalibrationSet, distill, shipped_set
from reid_edge.manifest import RANDOM_WEIGHTS, Artifact, InputSpec
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.osnet.network import OSNet
from reid_edge.progress import Notify
from reid_edge.runtime.agreement import COSINE_LIMITS, float_limit
from reid_edge.runtime.engines import Batch, EngineOptions, load_engine
from reid_edge.runtime.extractor import as_input
from reid_edge.runtime.golden import measure_parity
from reid_edge.runtime.verdict import judge
from reid_edge.types import Features, Image

GOLDEN_CROPS = 8
GOLDEN_SEED = 1


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

    def check(
        self, bundle: Bundle, artifact: Artifact, options: EngineOptions | None = None, *, keep_rejected: bool = False
    ) -> Artifact:
        """Run an artifact's files against the checkpoint.

        Args:
            bundle: Where its files lie; only the manifest's input spec matters.
            artifact: Not yet checked.
            options: Of the engine.
            keep_rejected: Return INT8 that changes the ranking too much, with that verdict, instead of raising.

        Returns:
            The artifact with its parity, and its verdict where it is INT8 or tuned.

        Raises:
            ParityError: It does not compute what the checkpoint computes.
            QuantizationRejected: It changes the ranking too much.
            EngineError: It cannot run here.
        """
        spec = bundle.manifest.input
        engine = load_engine(bundle, artifact, options or EngineOptions())
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
