"""QMUL GRID (Loy et al., CVPR 2009): 250 people seen by two cameras each, and 775 others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from reid_edge.datasets.layout import images_in, locate
from reid_edge.datasets.matlab import read_mat, variable
from reid_edge.datasets.records import LabelledImage, Split
from reid_edge.datasets.splits import SPLITS, training_half
from reid_edge.errors import DatasetError

_PARTITIONS = "features_and_partitions.mat"
_NESTED = ("underground_reid", "grid", "grid/underground_reid")
#: identity (0000: one of the others) _ camera _ …
_NAME = re.compile(r"^(\d{4})_(\d)_[\d_]+\.jpeg$")


def load_grid(root: Path, split: Split, number: int) -> list[LabelledImage]:
    """List one split of one of the ten halvings: those of ``features_and_partitions.mat`` if it is there, else our own.

    The probe images of the test half are the queries; their gallery images and all of the others are the gallery.

    Raises:
        DatasetError: No such folder, a strange file name, or partitions that cannot be read.
    """
    folder = locate("GRID", root, _NESTED, ("probe",))
    probe, gallery = ([_parse(path) for path in images_in(folder / name, (".jpeg",))] for name in ("probe", "gallery"))
    identities = {image.identity for image in probe}
    partitions = folder / _PARTITIONS
    train = _told(partitions, number, identities) if partitions.is_file() else training_half("grid", number, identities)
    if split == "train":
        return [image for image in probe + gallery if image.identity in train]
    return [image for image in (probe if split == "query" else gallery) if image.identity not in train]


def _told(path: Path, number: int, identities: set[int]) -> frozenset[int]:
    """A training half as the dataset's authors drew it: the third field of each cell's struct."""
    cells = np.atleast_1d(variable(read_mat(path), "trainIdxAll", path))
    try:
        told: Any = np.atleast_1d(_third_field(cells[number]))
        train = frozenset(int(identity) for identity in told)
    except (AttributeError, IndexError, TypeError, ValueError):
        train = frozenset()
    if len(cells) != SPLITS or not train or not train < identities:
        raise DatasetError(
            f"{path} does not hold the {SPLITS} partitions of these {len(identities)} people. Unpack GRID again, or "
            "take the file away: then seeded random splits are used."
        )
    return train


def _third_field(struct: Any) -> Any:
    return getattr(struct, struct._fieldnames[2])


def _parse(path: Path) -> LabelledImage:
    match = _NAME.match(path.name)
    if match is None:
        raise DatasetError(f"{path} is not named as GRID names images (e.g. 0001_1_25004_107_32_106_221.jpeg).")
    return LabelledImage(path, int(match[1]), int(match[2]))
