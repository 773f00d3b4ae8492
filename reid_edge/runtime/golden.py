"""Comparison of a model file's features of the golden crops with the checkpoint's: on export, and on each device."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.bundle import Bundle
from reid_edge.errors import EngineError, EngineUnavailableError, MissingExtraError, ParityError
from reid_edge.features import l2_normalised, row_cosines
from reid_edge.manifest import Artifact, EngineChoice, InputSpec, Parity, PrecisionChoice
from reid_edge.runtime.agreement import cosine_limit
from reid_edge.runtime.engines import Engine, EngineOptions, load_engine
from reid_edge.runtime.extractor import Extractor, as_input


def measure_parity(
    engine: Engine,
    spec: InputSpec,
    crops: npt.NDArray[np.uint8],
    expected: npt.NDArray[np.float32],
    *,
    max_batch: int,
) -> Parity:
    """Run golden crops at batch 1, 2 and the largest, rows permuted, and compare with the checkpoint's features.

    Args:
        engine: The engine with the file loaded.
        spec: Description of the file's input.
        crops: G×H×W×3 uint8, BGR.
        expected: G×D float32, not normalised.
        max_batch: Largest batch to try where the engine names no sizes.
    """
    largest = (engine.batch_sizes or (max_batch,))[-1]
    batches = tuple(sorted({1, min(2, largest), largest}))
    cosines, differences = [], []
    for batch in batches:
        rounds = -(-len(crops) // batch)
        order = np.random.default_rng(batch).permutation(rounds * batch) % len(crops)
        got = np.concatenate([engine.infer(as_input(crops[rows], spec)) for rows in np.split(order, rounds)])
        cosines.append(row_cosines(got, expected[order]).min())
        differences.append(np.abs(l2_normalised(got) - l2_normalised(expected[order])).max())
    return Parity(
        engine=engine.description,
        cosine_min=float(np.nan_to_num(min(cosines), nan=-1.0)),
        max_abs_diff=float(np.nan_to_num(max(differences), nan=2.0)),
        batches=batches,
    )


@dataclass(frozen=True)
class Verification:
    """Result of verifying one artifact here: ``right``, ``wrong`` or ``not run``, with the figures or the reason."""

    artifact: Artifact
    outcome: Literal["right", "wrong", "not run"]
    detail: str


def verify_bundle(
    bundle: Bundle,
    engine: EngineChoice,
    precision: PrecisionChoice,
    options: EngineOptions,
) -> list[Verification]:
    """Check every file's hash, then run each artifact that this machine can run.

    Args:
        bundle: The bundle to verify.
        engine: Only this one; ``auto``: all.
        precision: Only this one; ``auto``: all.
        options: Threads, device and cache of the engines.

    Raises:
        BundleCorruptError: A file is missing or changed.
        EngineUnavailableError: The bundle holds nothing that was asked for.
    """
    bundle.check_files()
    asked = [
        artifact
        for artifact in bundle.manifest.artifacts
        if engine in ("auto", artifact.engine) and precision in ("auto", artifact.precision)
    ]
    if not asked:
        raise EngineUnavailableError(f"{bundle.path} holds no {engine}/{precision}.")
    return [_verification(bundle, artifact, options) for artifact in asked]


def _verification(bundle: Bundle, artifact: Artifact, options: EngineOptions) -> Verification:
    try:
        parity = verify_artifact(bundle, artifact, options)
    except (EngineError, MissingExtraError) as error:
        return Verification(artifact, "not run", str(error))
    limit = cosine_limit(bundle.manifest, artifact)
    detail = f"{parity.engine}: cosine ≥ {parity.cosine_min:.6f}, limit {limit:.5f}"
    return Verification(artifact, "right" if parity.cosine_min >= limit else "wrong", detail)


def verify_artifact(bundle: Bundle, artifact: Artifact, options: EngineOptions) -> Parity:
    """Load an artifact here and compare its features of the golden crops with the checkpoint's.

    Raises:
        BundleCorruptError: A file is missing or changed.
        EngineError: The artifact cannot be loaded or run here.
        MissingExtraError: The engine's package is not installed.
    """
    crops, expected = bundle.golden()
    engine = load_engine(bundle, artifact, options)
    return measure_parity(engine, bundle.manifest.input, crops, expected, max_batch=artifact.max_batch)


def check_extractor(extractor: Extractor) -> float:
    """Compare an extractor's features of the golden crops with the checkpoint's, and return the lowest similarity.

    Where that was done when its engine was chosen, it is not done again.

    Raises:
        ParityError: It is below the limit.
    """
    if extractor.golden_cosine is not None:
        return extractor.golden_cosine
    manifest = extractor.bundle.manifest
    crops, expected = extractor.bundle.golden()
    cosine = float(np.nan_to_num(row_cosines(extractor(list(crops)), expected).min(), nan=-1.0))
    limit = cosine_limit(manifest, extractor.artifact)
    if cosine < limit:
        raise ParityError(
            f"{extractor.bundle.path}: {extractor.description} computes other features here than where it was "
            f"exported: cosine {cosine:.6f}, limit {limit:.5f}. "
            f"Run: reid-edge verify {shlex.quote(str(extractor.bundle.path))}"
        )
    return cosine
