"""Readers of images with attributes that are present or absent: Market-1501's and PA-100K's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from reid_edge.datasets.boxes import MARKET1501, load_boxes
from reid_edge.datasets.labelled_images import LabelledImage, check_size
from reid_edge.datasets.layout import locate, read_mat, require_files, variable
from reid_edge.errors import DatasetError
from reid_edge.wording import counted

AttributeSplit = Literal["train", "val", "test"]
#: Datasets that have a split ``val`` of their own.
WITH_VALIDATION = ("pa100k",)
#: Names that :func:`load_attributes` takes.
ATTRIBUTE_DATASETS: tuple[str, ...] = ("market1501", "pa100k")

_MARKET_FILE = "market_attribute.mat"
#: Field of Market-1501's file → meaning of its values from 1 on.  Of two values the second is the attribute.
_VALUES: dict[str, tuple[str, ...]] = {
    "gender": ("male", "female"),
    "hair": ("short hair", "long hair"),
    "up": ("long sleeves", "short sleeves"),
    "down": ("long lower clothing", "short lower clothing"),
    "clothes": ("dress", "trousers"),
    "hat": ("no hat", "hat"),
    "backpack": ("no backpack", "backpack"),
    "bag": ("no bag", "bag"),
    "handbag": ("no handbag", "handbag"),
    "age": ("young", "teenager", "adult", "old"),
}
_UPPER = ("black", "white", "red", "purple", "yellow", "gray", "blue", "green")
_LOWER = ("black", "white", "pink", "purple", "yellow", "gray", "blue", "green", "brown")
_VALUES |= {f"up{colour}": ("", f"upper {colour}") for colour in _UPPER}
_VALUES |= {f"down{colour}": ("", f"lower {colour}") for colour in _LOWER}

_PA100K_COUNTS: dict[AttributeSplit, int] = {"train": 80_000, "val": 10_000, "test": 10_000}
_PA100K_ANNOTATION = ("annotation.mat", "annotation/annotation.mat")
_PA100K_PICTURES = ("data", "release_data", "release_data/release_data", "data/release_data/release_data")


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """Images with attributes.

    Attributes:
        images: N files.
        values: N×A uint8, 1 where an image has an attribute.
        names: Names of the A attributes.
    """

    images: tuple[Path, ...]
    values: npt.NDArray[np.uint8]
    names: tuple[str, ...]


def load_attributes(name: str, root: Path, split: AttributeSplit, *, partial: bool = False) -> Attributes:
    """Load one split, always in the same order.

    * ``market1501`` (Lin et al., Pattern Recognition 2019): ``market_attribute.mat`` beside ``bounding_box_train`` and
      ``bounding_box_test``.  27 annotations of each identity; age, which has four values, becomes four attributes: 30
      in all.  ``test`` is the gallery without distractors (13,115 images), as its authors evaluate.
    * ``pa100k`` (Liu et al., ICCV 2017): ``annotation.mat`` beside ``data`` or ``release_data``; 26 attributes.

    Args:
        name: One of :data:`ATTRIBUTE_DATASETS`.
        root: Folder that the dataset unpacks to, or the one above.
        split: Split whose images are loaded; ``val`` only of datasets in ``WITH_VALIDATION``.
        partial: Accept a subset: numbers of images are not checked.

    Raises:
        DatasetError: The name is unknown, the dataset has no such split, the folder or its layout is not the
            dataset's, or the numbers differ from the published ones.
        MissingExtraError: scipy is not installed.
    """
    if name not in _LOADERS:
        raise DatasetError(f"{name!r} is not a known dataset of attributes; known: {', '.join(ATTRIBUTE_DATASETS)}.")
    if split == "val" and name not in WITH_VALIDATION:
        raise DatasetError(f"{name} has no split of its own for validation; hold images of its train split out.")
    try:
        return _LOADERS[name](root, split, partial)
    except OSError as error:  # a folder without permission, a disk that fails
        raise DatasetError(f"{root} cannot be read ({error}).") from error


def _market1501(root: Path, split: AttributeSplit, partial: bool) -> Attributes:
    folder = locate("Market-1501 with attributes", root, MARKET1501.nested, (_MARKET_FILE,))
    boxes = load_boxes(MARKET1501, folder, "train" if split == "train" else "gallery")
    if not partial:
        check_size("market1501", "train" if split == "train" else "gallery", boxes)
    names, people = _read_market_file(folder / _MARKET_FILE, split)
    images = [image for image in boxes if image.identity]
    if not images:
        raise DatasetError(f"{folder}: the {split} split holds nothing but distractors. Unpack Market-1501 again.")
    if unknown := sorted({image.identity for image in images} - people.keys()):
        raise DatasetError(
            f"{folder / _MARKET_FILE} has no attributes of {counted(len(unknown), 'identity', 'identities')} of the "
            f"{split} split, e.g. "
            f"{unknown[0]:04d}. Is it Market-1501's?"
        )
    return _attributes_of(images, people, names)


def _attributes_of(
    images: list[LabelledImage], people: dict[int, npt.NDArray[np.uint8]], names: tuple[str, ...]
) -> Attributes:
    values = [people[image.identity] for image in images]
    return Attributes(
        images=tuple(image.path for image in images),
        values=np.array(values, np.uint8).reshape(len(images), len(names)),
        names=names,
    )


def _read_market_file(path: Path, split: AttributeSplit) -> tuple[tuple[str, ...], dict[int, npt.NDArray[np.uint8]]]:
    """Read the names of the attributes, and for each identity a row of 0 and 1.

    Fields are taken by name, since their order differs between the file's train and test parts.
    """
    part: Any = getattr(variable(read_mat(path), "market_attribute", path), split, None)
    if missing := [field for field in (*_VALUES, "image_index") if not hasattr(part, field)]:
        raise DatasetError(f"{path}: its {split} part has no {', '.join(missing[:5])}. Download it again.")
    columns: dict[str, npt.NDArray[np.bool_]] = {}
    for field, meanings in _VALUES.items():
        values = np.atleast_1d(getattr(part, field))
        if not np.isin(values, np.arange(1, len(meanings) + 1)).all():
            raise DatasetError(f"{path}: {field} must be 1 to {len(meanings)}. Download it again.")
        for value, meaning in enumerate(meanings, 1):
            if value == 2 or len(meanings) > 2:
                columns[meaning] = values == value
    try:
        rows = np.stack(list(columns.values()), 1).astype(np.uint8)
        identities = [int(identity) for identity in np.atleast_1d(part.image_index)]
        return tuple(columns), dict(zip(identities, rows, strict=True))
    except (TypeError, ValueError) as error:  # columns of different lengths, or an identity that is no number
        raise DatasetError(f"{path}: its {split} part does not fit together ({error}). Download it again.") from error


def _pa100k(root: Path, split: AttributeSplit, partial: bool) -> Attributes:
    folder = locate("PA-100K", root, ("PA-100K",), _PA100K_ANNOTATION)
    annotation = next(folder / name for name in _PA100K_ANNOTATION if (folder / name).is_file())
    variables = read_mat(annotation)
    files, values, attributes = (
        np.atleast_1d(variable(variables, name, annotation))
        for name in (f"{split}_images_name", f"{split}_label", "attributes")
    )
    if values.shape != (len(files), len(attributes)) or not np.isin(values, (0, 1)).all():
        raise DatasetError(
            f"{annotation}: expected {len(files)}×{len(attributes)} labels of 0 and 1 for the {split} split, got shape "
            f"{values.shape}. Download it again."
        )
    if not partial and len(files) != _PA100K_COUNTS[split]:
        raise DatasetError(
            f"{annotation} names {len(files):,} images; PA-100K's {split} split has {_PA100K_COUNTS[split]:,}. "
            "Download it again, or use --partial for an intended subset."
        )
    pictures = _pa100k_pictures(folder, str(files[0]))
    images = tuple(pictures / str(file) for file in files)
    require_files(images, annotation)
    return Attributes(images=images, values=values.astype(np.uint8), names=tuple(str(name) for name in attributes))


def _pa100k_pictures(folder: Path, first: str) -> Path:
    for name in _PA100K_PICTURES:
        if (folder / name / first).is_file():
            return folder / name
    raise DatasetError(f"{folder} holds no image {first} in {' or '.join(_PA100K_PICTURES)}. Unpack PA-100K again.")


_LOADERS: dict[str, Callable[[Path, AttributeSplit, bool], Attributes]] = {
    "market1501": _market1501,
    "pa100k": _pa100k,
}
