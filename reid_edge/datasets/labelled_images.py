"""Labelled images of people, and the sizes of the published datasets (OSNet paper, Table 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reid_edge.errors import DatasetError
from reid_edge.wording import counted

Split = Literal["train", "query", "gallery"]
#: Identity of boxes that are neither a person of the dataset nor a distractor; they are left out of every split.
JUNK = -1


@dataclass(frozen=True)
class LabelledImage:
    """An image with its identity and camera.

    Attributes:
        path: The file.
        identity: Number of the person; 0 in a gallery marks a distractor, which matches no query.
        camera: Number of the camera; 0 where it is not known.
        member: Index of its dataset in a union, from 0.
        sequence: Name of the recording or of the tracklet that it was taken from; empty where it is not known.
        frame: Number of its frame in the sequence; 0 where it is not known.
    """

    path: Path
    identity: int
    camera: int
    member: int = 0
    sequence: str = ""
    frame: int = 0


@dataclass(frozen=True)
class SplitSize:
    """Images, and identities among them; distractors (identity 0) count as images only."""

    images: int
    identities: int

    def __str__(self) -> str:
        return f"{counted(self.images, 'image')} of {counted(self.identities, 'identity', 'identities')}"


#: The table counts 900 "identities" in GRID's gallery: 125, and 775 distractors, each a person of its own.
TABLE_2: dict[str, dict[Split, SplitSize]] = {
    "market1501": {"train": SplitSize(12_936, 751), "query": SplitSize(3_368, 750), "gallery": SplitSize(15_913, 750)},
    "cuhk03": {"train": SplitSize(7_365, 767), "query": SplitSize(1_400, 700), "gallery": SplitSize(5_332, 700)},
    "dukemtmc": {"train": SplitSize(16_522, 702), "query": SplitSize(2_228, 702), "gallery": SplitSize(17_661, 1_110)},
    "msmt17": {
        "train": SplitSize(30_248, 1_041),
        "query": SplitSize(11_659, 3_060),
        "gallery": SplitSize(82_161, 3_060),
    },
    "viper": {"train": SplitSize(632, 316), "query": SplitSize(632, 316), "gallery": SplitSize(632, 316)},
    "grid": {"train": SplitSize(250, 125), "query": SplitSize(125, 125), "gallery": SplitSize(900, 125)},
}
#: Sizes that are right too: what the table does not count, and forms in which datasets are passed on.
_ALSO: dict[str, dict[Split, SplitSize]] = {
    # Zhong et al., CVPR 2017
    "cuhk03-labeled": {
        "train": SplitSize(7_368, 767),
        "query": SplitSize(1_400, 700),
        "gallery": SplitSize(5_328, 700),
    },
    # with the 2,373 images of list_val.txt
    "msmt17": {"train": SplitSize(32_621, 1_041)},
}
#: People in each split of datasets whose numbers of images differ from split to split.
_PEOPLE: dict[str, dict[Split, int]] = {
    "cuhk03-classic": {"train": 1_367, "query": 100, "gallery": 100},
    "cuhk03-classic-labeled": {"train": 1_367, "query": 100, "gallery": 100},
}


def without_junk(images: Sequence[LabelledImage], source: object) -> list[LabelledImage]:
    """Leave out junk.

    Args:
        images: Images of one split.
        source: File or folder that they come from, for the message.

    Raises:
        DatasetError: Nothing is left.
    """
    kept = [image for image in images if image.identity != JUNK]
    if images and not kept:
        raise DatasetError(f"{source} holds nothing but junk (identity -1). Unpack the dataset again, or add people.")
    return kept


def size_of(images: Sequence[LabelledImage]) -> SplitSize:
    """Count images and identities."""
    return SplitSize(len(images), len({image.identity for image in images if image.identity}))


def check_size(name: str, split: Split, images: Sequence[LabelledImage]) -> None:
    """Compare the numbers of images and identities with the published ones, of datasets that have any.

    Raises:
        DatasetError: The numbers differ.
    """
    known = [sizes[name][split] for sizes in (TABLE_2, _ALSO) if split in sizes.get(name, ())]
    if known and size_of(images) not in known:
        raise DatasetError(
            f"{images[0].path.parent} holds {size_of(images)}; {name}'s {split} split has "
            f"{' or '.join(map(str, known))}. Unpack it again, or use --partial for an intended subset."
        )
    people = _PEOPLE.get(name, {}).get(split)
    if people is not None and size_of(images).identities != people:
        raise DatasetError(
            f"{images[0].path.parent} holds {size_of(images)}; {name}'s {split} split has {people:,} identities. "
            "Remove the folder, and it is extracted again, or use --partial for an intended subset."
        )
