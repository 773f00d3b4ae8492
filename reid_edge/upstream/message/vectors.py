"""A feature as bytes, and back."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.errors import MessageError

Encoding = Literal["fp16", "fp32", "int8"]
ENCODINGS: tuple[Encoding, ...] = ("fp32", "fp16", "int8")
"""In the order of their numbers on the wire, from 1."""

_DTYPES = (np.dtype("<f4"), np.dtype("<f2"), np.dtype("i1"))
_LENGTH_TOLERANCE = 0.01
"""Of the squared length: fp16 needs 1e-3."""


def pack(feature: npt.NDArray[np.float32], encoding: Encoding) -> tuple[int, float, bytes]:
    """Number of the encoding, scale and bytes of a feature of unit length.

    int8 rounds to 127 steps of the largest number; the scale gives the rounded feature unit length again.

    Raises:
        MessageError: Not a vector of unit length, or no such encoding.
    """
    if encoding not in ENCODINGS:
        raise MessageError(f"encoding must be one of {', '.join(ENCODINGS)}; got {encoding!r}.")
    number = ENCODINGS.index(encoding) + 1
    with np.errstate(all="ignore"):
        vector = np.asarray(feature, np.float32)
    _check(vector)
    if encoding != "int8":
        return number, 0.0, vector.astype(_DTYPES[number - 1]).tobytes()
    steps = np.rint(vector * (127 / np.abs(vector).max()))
    return number, float(1 / np.sqrt(steps @ steps)), steps.astype(np.int8).tobytes()


def unpack(number: int, dim: int, scale: float, data: bytes) -> npt.NDArray[np.float32]:
    """A feature, D float32 of unit length.

    Raises:
        MessageError: An unknown encoding, bytes that are not ``dim`` numbers, or another length than 1.
    """
    if not 1 <= number <= len(ENCODINGS):
        raise MessageError(f"its encoding has number {number}, and this release reads 1 to {len(ENCODINGS)}; upgrade.")
    dtype = _DTYPES[number - 1]
    if len(data) != dim * dtype.itemsize:
        raise MessageError(
            f"its feature of {dim} {ENCODINGS[number - 1]} numbers should take {dim * dtype.itemsize} bytes; "
            f"got {len(data)}."
        )
    vector = np.frombuffer(data, dtype).astype(np.float32)
    if ENCODINGS[number - 1] == "int8":
        with np.errstate(all="ignore"):  # what overflows is refused below
            vector *= np.float32(scale)
    _check(vector)
    return vector


def _check(vector: npt.NDArray[np.float32]) -> None:
    if vector.ndim != 1 or not len(vector):
        raise MessageError(f"a feature is one row of numbers; got shape {vector.shape}.")
    with np.errstate(all="ignore"):  # what overflows is refused below
        squared = float(vector @ vector)
    if not abs(squared - 1) <= _LENGTH_TOLERANCE:  # also when it is not a number
        raise MessageError(f"a feature has length 1; got {squared**0.5:.4g}. Normalise it.")
