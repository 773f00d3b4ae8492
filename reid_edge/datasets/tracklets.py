"""Tracklets of labelled images: the images of one person that one camera took in a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from reid_edge.datasets.labelled_images import LabelledImage
from reid_edge.errors import DatasetError

#: Frames between two images of one tracklet at most: 10 s in Market-1501, whose images are 25 frames apart or more.
GAP = 250


def tracklets_of(images: Iterable[LabelledImage], *, gap: int = GAP) -> dict[Path, int]:
    """Number the tracklets of images.

    A tracklet is one person in one sequence of one camera; where the frames are known, a longer gap begins another.
    Distractors (identity 0) are different people, so each is a tracklet of its own.

    Args:
        images: Images of query and gallery together, so that a tracklet has one number in both.
        gap: Frames between two images of one tracklet at most.

    Returns:
        The number of each image's tracklet, from 0.

    Raises:
        DatasetError: The sequences are not known.
    """
    ordered = sorted(images, key=lambda image: (image.identity, image.camera, image.sequence, image.frame, image.path))
    _check_sequences(ordered)
    numbers: dict[Path, int] = {}
    number, before = -1, None
    for image in ordered:
        if before is None or not _follows(before, image, gap):
            number += 1
        numbers.setdefault(image.path, number)
        before = image
    return numbers


def _follows(before: LabelledImage, image: LabelledImage, gap: int) -> bool:
    if before.path == image.path:  # in query and gallery both
        return True
    same = (before.identity, before.camera, before.sequence) == (image.identity, image.camera, image.sequence)
    return same and bool(image.identity) and image.frame - before.frame <= gap


def _check_sequences(images: Sequence[LabelledImage]) -> None:
    unknown = [image.path for image in images if not image.sequence]
    if unknown:
        raise DatasetError(
            f"the tracklets of {len(unknown):,} of {len(images):,} images are not known, e.g. of {unknown[0]}: the "
            "file names of market1501 and dukemtmc tell them; in a CSV file, name them in a column 'tracklet'."
        )
