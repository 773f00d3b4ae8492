"""The file of golden crops and features: an ``.npz`` that is checked before an array is made of it."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.errors import BundleCorruptError, shortened
from reid_edge.types import Size

#: More than an exporter makes.
MAX_CROPS = 256


def parse_golden(
    content: bytes, *, size: Size, dim: int, name: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Read golden crops and features from the content of an ``.npz`` file.

    No memory is taken for other sizes and types: a packed file of a few kilobytes cannot fill it.

    Args:
        content: The file.
        size: Height and width of the crops.
        dim: Dimensions of the features.
        name: Of the file, for the error.

    Returns:
        Crops G×H×W×3 uint8 BGR, and features G×D float32.

    Raises:
        BundleCorruptError: It holds something else.
        MemoryError: There is none left.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            crops = _array(archive, "crops.npy", np.dtype(np.uint8), (*size, 3))
            features = _array(archive, "features.npy", np.dtype(np.float32), (dim,))
        if len(crops) != len(features):
            raise ValueError(f"{len(crops)} crops and features of {len(features)}")
        if not np.isfinite(features).all():
            raise ValueError("features that are not finite numbers")
    except MemoryError:  # says nothing of the file, which takes no more than it should
        raise
    except Exception as error:  # zipfile's and NumPy's have no common base
        raise BundleCorruptError(
            f"{name} holds no golden crops and features ({shortened(error)}); copy the bundle again or export it again."
        ) from error
    return crops, features


def _array(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], row: tuple[int, ...]) -> npt.NDArray[Any]:
    """Read an array of 1 to :data:`MAX_CROPS` rows of this type and shape."""
    with archive.open(name) as file:
        shape, fortran, found = _header(file)
        if found != dtype or fortran or shape[1:] != row or not 1 <= shape[0] <= MAX_CROPS:
            raise ValueError(f"{name} is {shape} {found}; expected 1 to {MAX_CROPS} rows of {row} {dtype}")
        size = int(np.prod(shape)) * dtype.itemsize
        content = file.read(size)
    if len(content) != size:
        raise ValueError(f"{name} ends after {len(content)} of {size} bytes")
    return np.frombuffer(content, dtype).reshape(shape)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)
