"""Arithmetic on features that runtime, evaluation and export share."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Real = TypeVar("Real", np.float32, np.float64)


def l2_normalised(features: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Rows scaled to unit length, N×D; a row of zeros stays zero."""
    lengths = np.sqrt(np.einsum("nd,nd->n", features, features))
    unit: npt.NDArray[Real] = features / np.maximum(lengths, 1e-12)[:, None]
    return unit


def row_cosines(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Cosine similarity of row i with row i, in float64; N×D twice → N."""
    units = [l2_normalised(rows.astype(np.float64)) for rows in (first, second)]
    cosines: npt.NDArray[np.float64] = np.einsum("nd,nd->n", *units)
    return cosines
