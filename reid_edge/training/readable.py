"""Leave out images that cannot be read, before anything is counted on them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reid_edge.datasets.attributes import Attributes
from reid_edge.datasets.categories import Categories
from reid_edge.errors import DatasetError
from reid_edge.images import left_out, read_images
from reid_edge.system.limits import usable_cpus
from reid_edge.wording import counted

_log = logging.getLogger(__name__)


def readable_rows(paths: Sequence[Path]) -> npt.NDArray[np.int64]:
    """Decode every image; return the indices of those that can be read, in order, and log the others.

    Raises:
        DatasetError: None can be read.
    """
    with ThreadPoolExecutor(usable_cpus(), "readable") as pool:
        good = np.fromiter(pool.map(_is_readable, paths), np.bool_, len(paths))
    if not good.any():
        raise DatasetError(f"none of {counted(len(paths), 'image')} can be read, e.g. {paths[0]}. Copy them again.")
    if unreadable := [path for path, fine in zip(paths, good, strict=True) if not fine]:
        _log.warning("%s", left_out(unreadable, len(paths)))
    return np.flatnonzero(good)


def readable_categories(categories: Categories) -> Categories:
    """Leave out images that cannot be read; pixels that are in memory already stay."""
    images = categories.images
    if isinstance(images, np.ndarray):
        return categories
    rows = readable_rows(images)
    return replace(categories, images=tuple(images[row] for row in rows), labels=categories.labels[rows])


def readable_attributes(attributes: Attributes) -> Attributes:
    """Leave out images that cannot be read."""
    rows = readable_rows(attributes.images)
    images = tuple(attributes.images[row] for row in rows)
    return replace(attributes, images=images, values=attributes.values[rows])


def _is_readable(path: Path) -> bool:
    [(_, image)] = read_images([path], skip_bad=True)
    return image is not None
