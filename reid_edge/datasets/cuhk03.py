"""CUHK03 (Li et al., CVPR 2014): detected boxes, new protocol of 767 and 700 people (Zhong et al., CVPR 2017)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reid_edge.datasets.boxes import CUHK03_NP, FOLDERS, load_boxes
from reid_edge.datasets.cuhk03_extraction import extract_detected
from reid_edge.datasets.layout import locate, require_files
from reid_edge.datasets.matlab import read_mat, variable
from reid_edge.datasets.records import LabelledImage, Split
from reid_edge.errors import DatasetError

_PROTOCOL = "cuhk03_new_protocol_config_detected.mat"
_PIXELS = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat")
_EXTRACTED = "images_detected"
_INDICES: dict[Split, str] = {"train": "train_idx", "query": "query_idx", "gallery": "gallery_idx"}
#: camera pair _ person _ view (1 or 2) _ image
_NAME = re.compile(r"^\d+_\d+_(\d)_\d+\.png$")


def load_cuhk03(root: Path, split: Split) -> list[LabelledImage]:
    """List one split, from either form that CUHK03 is handed on in.

    * ``cuhk-03.mat`` with ``cuhk03_new_protocol_config_detected.mat``.  The images are extracted to ``images_detected``
      beside them, once; if that folder is there already, ``cuhk-03.mat`` is not needed.
    * CUHK03-NP: ``detected/bounding_box_train``, ``query`` and ``bounding_box_test``.

    Raises:
        DatasetError: Neither, or files that are not what they should be.
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
        extract_detected(_pixels(folder), folder / _EXTRACTED)
    require_files([image.path for image in images], folder / _PROTOCOL)
    return images


def _pixels(folder: Path) -> Path:
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
