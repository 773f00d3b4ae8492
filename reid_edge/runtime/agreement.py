"""How far a file's features of the golden crops may differ from the checkpoint's, and whether an engine's do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reid_edge.bundle import Bundle
from reid_edge.errors import EngineUnavailableError, ParityError
from reid_edge.features import row_cosines
from reid_edge.manifest import Artifact, Manifest, Parity, Precision
from reid_edge.types import Features, Image

#: Lowest cosine similarity to the checkpoint's features of a file that holds only floats of this precision.
COSINE_LIMITS: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.9999}
#: Largest fall of an INT8 file's cosine similarity on another device, below that on export.
INT8_TOLERANCE = 0.02


def float_limit(artifact: Artifact) -> float | None:
    """Return the lowest cosine similarity to the checkpoint's features that rounding alone explains.

    None where a file holds INT8 or is computed in bfloat16: such a file has a verdict instead.
    """
    precision = artifact.float_precision
    return COSINE_LIMITS[precision] if precision else None


def cosine_limit(manifest: Manifest, artifact: Artifact) -> float:
    """Return the lowest cosine similarity to the golden features that an artifact may show on any device.

    Where :func:`float_limit` gives none, the limit lies :data:`INT8_TOLERANCE` below the file's similarity on export;
    for a plan that was never run, below that of the ONNX file that it was built from.  Where none of them was run, as
    while a tuning only times its candidates, the limit is −1.
    """
    if limit := float_limit(artifact):
        return limit
    like = [held for held in (artifact, *manifest.artifacts) if held.precision == artifact.precision]
    exported = [held.parity for held in like if held.parity]
    return exported[0].cosine_min - INT8_TOLERANCE if exported else -1.0


def require_limit(manifest: Manifest, artifact: Artifact, parity: Parity, name: str) -> None:
    """Raise ParityError where a comparison with the golden features is below :func:`cosine_limit`; naming ``name``."""
    limit = cosine_limit(manifest, artifact)
    if not parity.cosine_min >= limit:
        raise ParityError(
            f"{name}: lowest cosine similarity to the golden features {parity.cosine_min:.6f}, at least {limit:.5f} "
            "expected. Nothing was changed."
        )


def require_agreement(infer: Callable[[Image], Features], bundle: Bundle, artifact: Artifact) -> float:
    """Run the golden crops of a bundle whose files take pixels, one at a time.

    Args:
        infer: Computes features of N×H×W×3 uint8, BGR, by the artifact.
        bundle: Holds the crops and the checkpoint's features.
        artifact: What is run.

    Returns:
        The lowest cosine similarity.

    Raises:
        BundleCorruptError: The golden file is missing or changed.
        EngineUnavailableError: The features are not the checkpoint's.
    """
    crops, expected = bundle.golden()
    got = np.concatenate([infer(crop[None]) for crop in crops])
    cosine = float(np.nan_to_num(row_cosines(got, expected).min(), nan=-1.0))
    if cosine < (limit := cosine_limit(bundle.manifest, artifact)):
        raise EngineUnavailableError(
            f"{artifact.name} computes other features here than where it was exported: cosine {cosine:.6f}, limit "
            f"{limit:.5f}. Please report this, with the output of: reid-edge doctor"
        )
    return cosine
