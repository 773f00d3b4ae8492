"""Reader of CUHK03 (Li et al., CVPR 2014): detected or labelled boxes, protocol of 767 and 700 people.

The protocol is that of Zhong et al., CVPR 2017, which the field calls new; ``cuhk03_classic`` reads that of 2014.
The images come in ``cuhk-03.mat``, which is MATLAB 7.3 (HDF5 with every axis reversed), and are extracted once.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.datasets.boxes import FOLDERS, BoxLayout, load_boxes
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.layout import entry, locate, read_mat, require_files, variable
from reid_edge.errors import DatasetError, MissingExtraError, OutputError

_log = logging.getLogger(__name__)

#: Who drew the boxes: a detector, or people.
Boxes = Literal["detected", "labeled"]

NESTED = ("cuhk03", "cuhk03_release", "cuhk03-np")
PIXELS = "cuhk-03.mat"
_INDICES: dict[Split, str] = {"train": "train_idx", "query": "query_idx", "gallery": "gallery_idx"}
#: camera pair _ person _ view (1 or 2) _ image
_NAME = re.compile(r"^\d+_\d+_(\d)_\d+\.png$")
#: A person's images 1 to 5 are of the first view, 6 to 10 of the second.
_PER_VIEW = 5
_NP_NAME = re.compile(r"^(?P<identity>\d{4})_c(?P<camera>\d)\w*$", re.IGNORECASE)


def load_cuhk03(boxes: Boxes, root: Path, split: Split) -> list[LabelledImage]:
    """List one split, from either form in which CUHK03 is distributed.

    * ``cuhk-03.mat`` with ``cuhk03_new_protocol_config_detected.mat`` (or ``…_labeled.mat``).  The images are extracted
      to ``images_detected`` (``images_labeled``) beside the latter, once; if that folder is there already,
      ``cuhk-03.mat`` is not needed.
    * CUHK03-NP: ``detected/bounding_box_train``, ``query`` and ``bounding_box_test`` (or ``labeled/…``).

    Raises:
        DatasetError: Neither form is there, or a file does not hold what the dataset's does.
        MissingExtraError: h5py or scipy is not installed.
        OutputError: The images cannot be extracted.
    """
    wanted = f"cuhk03_new_protocol_config_{boxes}.mat"
    names = (*NESTED, boxes)
    folder = locate("CUHK03", root, names, (wanted, PIXELS, boxes, *FOLDERS.values()))
    protocol = entry(folder, wanted) or entry(folder.parent, wanted)
    if protocol is None and entry(folder, PIXELS):
        raise DatasetError(
            f"{folder} has {PIXELS}, but not {wanted}, which says who is for training. Its authors publish it in "
            "github.com/zhunzhong07/person-re-ranking, evaluation/data/CUHK03."
        )
    if protocol is None:
        layout = BoxLayout(title="CUHK03-NP", nested=names, name=_NP_NAME, example="0001_c1_1.png")
        return load_boxes(layout, entry(folder, boxes) or folder, split)
    extracted = protocol.parent / f"images_{boxes}"
    images = _listed(protocol, split, extracted)
    if not extracted.is_dir():
        pixels = pixel_file(protocol.parent)
        if pixels is None:
            raise DatasetError(
                f"{protocol.parent} holds neither {extracted.name} nor {PIXELS}, to extract it from. "
                "Unpack CUHK03 again."
            )
        extract(pixels, boxes, extracted)
    require_files([image.path for image in images], protocol)
    return images


def pixel_file(folder: Path) -> Path | None:
    """Return ``cuhk-03.mat`` in a folder or in its ``cuhk03_release``; None: it is not there."""
    for place in (folder, entry(folder, "cuhk03_release")):
        if place is not None and (pixels := entry(place, PIXELS)):
            return pixels
    return None


@contextlib.contextmanager
def open_pixels(pixels: Path) -> Iterator[Any]:
    """Open ``cuhk-03.mat`` as an h5py file.

    Raises:
        DatasetError: It is not MATLAB 7.3.
        MissingExtraError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "train", f"reading {pixels.name}") from error
    try:
        file = h5py.File(pixels, "r")
    except OSError as error:
        raise DatasetError(f"{pixels} is not a readable MATLAB 7.3 file ({error}). Unpack CUHK03 again.") from error
    with file:
        yield file


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


def extract(pixels: Path, boxes: Boxes, folder: Path) -> None:
    """Write the boxes as ``<camera pair>_<person>_<view>_<image>.png``, all or nothing.

    Args:
        pixels: ``cuhk-03.mat``.
        boxes: Detected or labelled ones.
        folder: Target folder; it appears when all images are written.

    Raises:
        DatasetError: ``pixels`` is not MATLAB 7.3, or does not hold CUHK03's cells.
        MissingExtraError: h5py is not installed.
        OutputError: The images cannot be written.
    """
    with open_pixels(pixels) as file:
        _log.info("extracting the images of %s to %s, once", pixels, folder)
        write_all(_images(file, boxes, pixels), folder)


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


def _images(file: Any, boxes: Boxes, pixels: Path) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yield file names and images, H×W×3 uint8 BGR."""
    try:
        for pair, people in enumerate(file[boxes][0], 1):
            for person, references in enumerate(file[people][:].T, 1):
                for number, reference in enumerate(references, 1):
                    image = file[reference][:].T
                    if image.ndim == 3:  # an empty cell holds two numbers, its size
                        view = 1 if number <= _PER_VIEW else 2
                        yield f"{pair}_{person:03d}_{view}_{number:02d}.png", _as_bgr(image, pixels)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{pixels} does not hold CUHK03's cells '{boxes}' ({error}). Unpack CUHK03 again."
        ) from error


def _as_bgr(image: npt.NDArray[Any], pixels: Path) -> npt.NDArray[np.uint8]:
    if image.dtype != np.uint8 or image.shape[2] != 3:
        raise DatasetError(f"{pixels}: expected images H×W×3 uint8, got {image.shape} {image.dtype}.")
    return np.ascontiguousarray(image[:, :, ::-1])
