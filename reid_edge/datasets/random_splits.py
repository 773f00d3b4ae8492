"""Readers of VIPeR and QMUL GRID, small datasets whose figures are means over ten random halvings of their people.

* VIPeR (Gray et al., PETS 2007): 632 people, each seen once by camera a and once by camera b.
* QMUL GRID (Loy et al., CVPR 2009): 250 people seen by two cameras each, and 775 others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.layout import entry, images_in, locate, read_mat, variable
from reid_edge.errors import DatasetError
from reid_edge.images import bare_name
from reid_edge.wording import counted

#: Random splits of each dataset (paper, section 4.1).
SPLITS = 10

VIPER_NESTED = ("VIPeR", "VIPeR.v1.0")
_VIPER_CAMERAS = ("cam_a", "cam_b")
_VIPER_NAME = re.compile(r"^(\d+)_\d+$")

GRID_NESTED = ("underground_reid", "grid", "QMUL_GRID")
_GRID_PARTITIONS = "features_and_partitions.mat"
#: identity (0000: one of the others) _ camera _ …
_GRID_NAME = re.compile(r"^(\d{4})_(\d)_[\d_]+$")


def load_grid(root: Path, split: Split, number: int) -> list[LabelledImage]:
    """List one split of one of the ten halvings of GRID.

    The halvings are those of ``features_and_partitions.mat`` if that file is there, else those of ``training_half``.
    The probe images of the test half are the queries; their gallery images and all of the others are the gallery.

    Raises:
        DatasetError: The folder is not there, a file name is not GRID's, or the partitions cannot be read.
    """
    folder = locate("GRID", root, GRID_NESTED, ("probe",))
    probe, gallery = (
        [_grid_image(path) for path in images_in(entry(folder, name) or folder / name)] for name in ("probe", "gallery")
    )
    identities = {image.identity for image in probe}
    partitions = entry(folder, _GRID_PARTITIONS)
    if partitions is not None:
        train = _published_half(partitions, number, identities)
    else:
        train = training_half("grid", number, identities)
    if split == "train":
        return [image for image in probe + gallery if image.identity in train]
    return [image for image in (probe if split == "query" else gallery) if image.identity not in train]


def _published_half(path: Path, number: int, identities: set[int]) -> frozenset[int]:
    """Read a training half as the dataset's authors drew it: the third field of each cell's struct."""
    cells = np.atleast_1d(variable(read_mat(path), "trainIdxAll", path))
    try:
        half: Any = np.atleast_1d(_third_field(cells[number]))
        train = frozenset(int(identity) for identity in half)
    except (AttributeError, IndexError, TypeError, ValueError):
        train = frozenset()
    if len(cells) != SPLITS or not train or not train < identities:
        raise DatasetError(
            f"{path} does not hold the {SPLITS} partitions of these {len(identities)} people. Unpack GRID again, or "
            "remove the file: then seeded random splits are used."
        )
    return train


def _third_field(struct: Any) -> Any:
    return getattr(struct, struct._fieldnames[2])


def _grid_image(path: Path) -> LabelledImage:
    match = _GRID_NAME.match(bare_name(path))
    if match is None:
        raise DatasetError(f"{path} is not named as GRID names images (e.g. 0001_1_25004_107_32_106_221.jpeg).")
    return LabelledImage(path, int(match[1]), int(match[2]))


def load_viper(root: Path, split: Split, number: int) -> list[LabelledImage]:
    """List one split of one of the ten random halvings of VIPeR.

    As in the paper's Table 2, query and gallery are both the 632 images of the other 316 people.  Each is to be
    searched for among the 316 of the other camera (:func:`reid_edge.datasets.loading.searches_other_cameras`), so that
    figures are means over camera a in camera b and b in a, as the field reports.  VIPeR counts people from 0, which
    elsewhere stands for distractors: 1 is added.

    Raises:
        DatasetError: The folder is not there, a file name is not VIPeR's, or a person is not seen once by each camera.
    """
    folder = locate("VIPeR", root, VIPER_NESTED, _VIPER_CAMERAS)
    views = [_viper_view(entry(folder, name) or folder / name, n) for n, name in enumerate(_VIPER_CAMERAS, 1)]
    if unpaired := sorted(set(views[0]) ^ set(views[1])):
        raise DatasetError(
            f"{folder}: {counted(len(unpaired), 'person', 'people')} not seen by both cameras, e.g. number "
            f"{unpaired[0] - 1:03d}. "
            "Unpack VIPeR again."
        )
    train = training_half("viper", number, views[0])
    return [view[identity] for view in views for identity in view if (identity in train) == (split == "train")]


def _viper_view(folder: Path, camera: int) -> dict[int, LabelledImage]:
    view: dict[int, LabelledImage] = {}
    for path in images_in(folder):
        match = _VIPER_NAME.match(bare_name(path))
        if match is None:
            raise DatasetError(f"{path} is not named as VIPeR names images (e.g. 000_45.bmp).")
        identity = int(match[1]) + 1
        if identity in view:
            raise DatasetError(f"{view[identity].path} and {path} show the same person; VIPeR has one image of each.")
        view[identity] = LabelledImage(path, identity, camera)
    return view


def described(name: str, number: int) -> str:
    """Describe one random split, for the metadata of a checkpoint that was trained on it."""
    return f"{name}, random split {number}"


def training_half(seed: str, number: int, identities: Iterable[int]) -> frozenset[int]:
    """Return the first half of the identities in a random order; the other half is for testing.

    The order is that of SHA-256 digests, and so the same on every machine and with every library version: random
    generators of libraries do not promise the same numbers in later releases.

    Args:
        seed: Name of the dataset.
        number: Number of the split, 0 to 9.
        identities: All identities, in any order.
    """
    order = sorted(
        set(identities), key=lambda identity: hashlib.sha256(f"{seed} {number} {identity}".encode()).digest()
    )
    return frozenset(order[: len(order) // 2])
