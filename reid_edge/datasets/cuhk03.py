"""Reader of CUHK03 (Li et al., CVPR 2014): detected boxes, protocol of 767 and 700 people (Zhong et al., CVPR 2017).

The images come in ``cuhk-03.mat``, which is MATLAB 7.3 (HDF5 with every axis reversed), and are extracted once.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.datasets.boxes import CUHK03_NP, FOLDERS, load_boxes
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.layout import locate, read_mat, require_files, variable
from reid_edge.errors import DatasetError, MissingExtraError, OutputError

_log = logging.getLogger(__name__)

_PROTOCOL = "cuhk03_new_protocol_config_detected.mat"
_PIXELS = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat")
_EXTRACTED = "images_detected"
_INDICES: dict[Split, str] = {"train": "train_idx", "query": "query_idx", "gallery": "gallery_idx"}
#: camera pair _ person _ view (1 or 2) _ image
_NAME = re.compile(r"^\d+_\d+_(\d)_\d+\.png$")
#: A person's images 1 to 5 are of the first view, 6 to 10 of the second.
_PER_VIEW = 5


def load_cuhk03(root: Path, split: Split) -> list[LabelledImage]:
    """List one split, from either form in which CUHK03 is distributed.

    * ``cuhk-03.mat`` with ``cuhk03_new_protocol_config_detected.mat``.  The images are extracted to ``images_detected``
      beside them, once; if that folder is there already, ``cuhk-03.mat`` is not needed.
    * CUHK03-NP: ``detected/bounding_box_train``, ``query`` and ``bounding_box_test``.

    Raises:
        DatasetError: Neither form is there, or a file does not hold what the dataset's does.
        MissingExtraError: h5py or scipy is not installed.
        OutputError: The images cannot be extracted.
    """
    holds = (_PROTOCOL, *_PIXELS, "detected", *FOLDERS.values())
    folder = locate("CUHK03", root, ("cuhk03", "cuhk03_release", "cuhk03-np", "detected"), holds)
    if not (folder / _PROTOCOL).is_file():
        if any((folder / name).exists() for name in _PIXELS):
            raise DatasetError(f"{folder} has cuhk-03.mat, but not {_PROTOCOL}, which says who is for training.")
        return load_boxes(CUHK03_NP, folder, split)
    images = _listed(folder / _PROTOCOL, split, folder / _EXTRACTED)
    if not (folder / _EXTRACTED).is_dir():
        extract_detected(_pixel_file(folder), folder / _EXTRACTED)
    require_files([image.path for image in images], folder / _PROTOCOL)
    return images


def _pixel_file(folder: Path) -> Path:
    for name in _PIXELS:
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(
        f"{folder} holds neither {_EXTRACTED} nor {_PIXELS[0]}, to extract it from. Unpack CUHK03 again."
    )


def _listed(protocol: Path, split: Split, images: Path) -> list[LabelledImage]:
    variables = read_mat(protocol)
    names = np.atleast_1d(variable(variables, "filelist", protocol))
    identities = _whole_numbers(variable(variables, "labels", protocol), protocol)
    rows = _whole_numbers(variable(variables, _INDICES[split], protocol), protocol) - 1  # MATLAB counts from 1
    if len(identities) != len(names) or rows.min() < 0 or rows.max() >= len(names):
        raise DatasetError(
            f"{protocol}: {len(names)} names, {len(identities)} labels, and indices from {rows.min() + 1} to "
            f"{rows.max() + 1} do not fit together. Download it again."
        )
    return [
        LabelledImage(images / str(names[row]), int(identities[row]), _camera(protocol, str(names[row])))
        for row in rows
    ]


def _whole_numbers(values: object, protocol: Path) -> npt.NDArray[np.int64]:
    numbers = np.atleast_1d(np.asarray(values))
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iuf":
        raise DatasetError(f"{protocol}: expected a list of numbers, got shape {numbers.shape} of {numbers.dtype}.")
    return numbers.astype(np.int64)


def _camera(protocol: Path, name: str) -> int:
    match = _NAME.match(name)
    if match is None:
        raise DatasetError(f"{protocol} names {name!r}; CUHK03's images are named like 1_001_1_01.png.")
    return int(match[1])


def extract_detected(pixels: Path, folder: Path) -> None:
    """Write the detected boxes as ``<camera pair>_<person>_<view>_<image>.png``, all or nothing.

    Args:
        pixels: ``cuhk-03.mat``.
        folder: Target folder; it appears when all images are written.

    Raises:
        DatasetError: ``pixels`` is not MATLAB 7.3, or does not hold CUHK03's cells.
        MissingExtraError: h5py is not installed.
        OutputError: The images cannot be written.
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
        images: Pairs of file name and image, H×W×3 uint8 BGR.
        folder: Target folder.  If another process makes it meanwhile, that process's folder stays.

    Raises:
        OutputError: The images cannot be written.
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
    """Yield file names and images, H×W×3 uint8 BGR."""
    try:
        for pair, people in enumerate(file["detected"][0], 1):
            for person, references in enumerate(file[people][:].T, 1):
                for number, reference in enumerate(references, 1):
                    image = file[reference][:].T
                    if image.ndim == 3:  # an empty cell holds two numbers, its size
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
