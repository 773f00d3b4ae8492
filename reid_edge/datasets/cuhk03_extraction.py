"""CUHK03's images out of ``cuhk-03.mat``, which is MATLAB 7.3: HDF5 with every axis reversed."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.errors import DatasetError, MissingExtraError, OutputError

_log = logging.getLogger(__name__)

#: A person's images 1 to 5 are of the first view, 6 to 10 of the second.
_PER_VIEW = 5


def extract_detected(pixels: Path, folder: Path) -> None:
    """Write the detected boxes as ``<camera pair>_<person>_<view>_<image>.png``, all or nothing.

    Args:
        pixels: ``cuhk-03.mat``.
        folder: Where they shall be; it appears when all are written.

    Raises:
        DatasetError: Not the file it should be.
        MissingExtraError: h5py is not installed.
        OutputError: Cannot be written.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "train", f"reading {pixels.name}") from error
    try:
        file = h5py.File(pixels, "r")
    except OSError as error:
        raise DatasetError(f"{pixels} is not a readable MATLAB 7.3 file ({error}). Unpack CUHK03 again.") from error
    _log.info("extracting the images of %s to %s, once", pixels, folder)
    with file:
        write_all(_images(file, pixels), folder)


def write_all(images: Iterator[tuple[str, npt.NDArray[np.uint8]]], folder: Path) -> None:
    """Write PNG files into a folder that appears when all are there.

    Args:
        images: Names, and images H×W×3 uint8 BGR.
        folder: If another process makes it meanwhile, that one stays.

    Raises:
        OutputError: Cannot be written.
    """
    try:
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error}). CUHK03 is extracted beside its file.") from error
    try:
        for name, image in images:
            (partial / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
        partial.chmod(0o755)  # mkdtemp's is for its owner only
        partial.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster, with the same images
            raise OutputError(f"{folder} cannot be written ({error}). Make room, or extract elsewhere.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _images(file: Any, pixels: Path) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Names, and images H×W×3 BGR."""
    try:
        for pair, people in enumerate(file["detected"][0], 1):
            for person, references in enumerate(file[people][:].T, 1):
                for number, reference in enumerate(references, 1):
                    image = file[reference][:].T
                    if image.ndim == 3:  # an empty cell holds its size, as two numbers
                        view = 1 if number <= _PER_VIEW else 2
                        yield f"{pair}_{person:03d}_{view}_{number:02d}.png", _as_bgr(image, pixels)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{pixels} does not hold CUHK03's cells 'detected' ({error}). Unpack CUHK03 again."
        ) from error


def _as_bgr(image: npt.NDArray[Any], pixels: Path) -> npt.NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.shape[2] != 3:
        raise DatasetError(f"{pixels}: expected images H×W×3 uint8, got {image.shape} {image.dtype}.")
    return np.ascontiguousarray(image[:, :, ::-1])
