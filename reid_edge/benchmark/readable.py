"""Images of query and gallery that can be read: damaged ones are found before anything long begins."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from reid_edge.benchmark.embedder import SPLITS
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.errors import InputError
from reid_edge.images import read_images
from reid_edge.progress import Notify


def readable_splits(
    splits: Mapping[Split, Sequence[LabelledImage]], notify: Notify, *, skip_bad: bool = False
) -> tuple[dict[Split, list[LabelledImage]], tuple[Path, ...]]:
    """Decode every image once.

    Args:
        splits: See :func:`reid_edge.benchmark.embedder.load_splits`.
        notify: Called before the work, with the number of images.
        skip_bad: Leave out files that are no readable images.

    Returns:
        The splits without the images that cannot be read, and the files of these.

    Raises:
        FrameError: A file is no readable image, and ``skip_bad`` is off.
        InputError: No image of query or gallery can be read.
    """
    paths = list(dict.fromkeys(image.path for split in SPLITS for image in splits[split]))
    on_image = notify("reading the images", len(paths))
    unreadable = []
    for path, image in read_images(paths, skip_bad=skip_bad):
        if image is None:
            unreadable.append(path)
        on_image(1)
    return only_of(splits, set(paths) - set(unreadable)), tuple(unreadable)


def only_of(
    splits: Mapping[Split, Sequence[LabelledImage]], readable: Container[Path]
) -> dict[Split, list[LabelledImage]]:
    """Return query and gallery without the images of other files.

    Raises:
        InputError: Nothing is left of one of them.
    """
    kept = {split: [image for image in splits[split] if image.path in readable] for split in SPLITS}
    if empty := [split for split in SPLITS if not kept[split]]:
        raise InputError(f"no image of the {' and '.join(empty)} can be read. Copy the dataset again.")
    return kept
