"""Labelled images of people, and the sizes of the published datasets (OSNet paper, Table 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reid_edge.errors import DatasetError

Split = Literal["train", "query", "gallery"]


@dataclass(frozen=True)
class LabelledImage:
    """An image with its identity and camera.

    Attributes:
        path: The file.
        identity: Number of the person; 0 in a gallery marks a distractor, which matches no query.
        camera: Number of the camera; 0 where it is not known, which only training allows.
        member: Index of its dataset in a union, from 0.
    """

    path: Path
    identity: int
    camera: int
    member: int = 0


@dataclass(frozen=True)
class Size:
    """Images, and identities among them; distractors (identity 0) count as images only."""

    images: int
    identities: int

    def __str__(self) -> str:
        return f"{self.images:,} images of {self.identities:,} identities"


#: The table counts 900 "identities" in GRID's gallery: 125, and 775 distractors, each a person of its own.
TABLE_2: dict[str, dict[Split, Size]] = {
    "market1501": {"train": Size(12_936, 751), "query": Size(3_368, 750), "gallery": Size(15_913, 750)},
    "cuhk03": {"train": Size(7_365, 767), "query": Size(1_400, 700), "gallery": Size(5_332, 700)},
    "dukemtmc": {"train": Size(16_522, 702), "query": Size(2_228, 702), "gallery": Size(17_661, 1_110)},
    "msmt17": {"train": Size(30_248, 1_041), "query": Size(11_659, 3_060), "gallery": Size(82_161, 3_060)},
    "viper": {"train": Size(632, 316), "query": Size(632, 316), "gallery": Size(632, 316)},
    "grid": {"train": Size(250, 125), "query": Size(125, 125), "gallery": Size(900, 125)},
}


def size_of(images: Sequence[LabelledImage]) -> Size:
    """Count images and identities."""
    return Size(len(images), len({image.identity for image in images if image.identity}))


def check_size(name: str, split: Split, images: Sequence[LabelledImage]) -> None:
    """Compare the numbers of images and identities with Table 2, if the table has this dataset.

    Raises:
        DatasetError: The numbers differ.
    """
    expected = TABLE_2.get(name, {}).get(split)
    if expected is not None and size_of(images) != expected:
        raise DatasetError(
            f"{images[0].path.parent} holds {size_of(images)}; {name}'s {split} split has {expected}. "
            "Unpack it again, or use --partial for a subset on purpose."
        )
