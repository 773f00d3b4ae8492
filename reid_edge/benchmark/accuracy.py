"""Ranking quality of one model form on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from reid_edge.evaluation.market1501 import LabelledImage, Split, load_market1501
from reid_edge.evaluation.ranking import Labelled, Ranking, rank
from reid_edge.runtime import Extractor
from reid_edge.runtime.images import extract_files

#: The splits that a ranking takes.
_SPLITS: tuple[Split, ...] = ("query", "gallery")

#: Called with a text and a number of steps; returns what to call with the number of steps done since.
Notify = Callable[[str, int], Callable[..., None]]


def load_splits(root: Path, *, partial: bool = False) -> dict[Split, list[LabelledImage]]:
    """Query and gallery of Market-1501.

    Raises:
        DatasetError: Not there, or not whole; ``partial`` takes a subset on purpose.
    """
    return {split: load_market1501(root, split, partial=partial) for split in _SPLITS}


def measure_accuracy(extractor: Extractor, splits: Mapping[Split, Sequence[LabelledImage]], notify: Notify) -> Ranking:
    """CMC and mAP of an extractor's features.

    Args:
        extractor: Any engine and precision.
        splits: See :func:`load_splits`.
        notify: Told of progress.

    Raises:
        FrameError: A file that is not a readable image.
        InputError: No query has a match.
    """
    query, gallery = (_labelled(extractor, split, splits[split], notify) for split in _SPLITS)
    distance = extractor.bundle.manifest.features.distance
    return rank(query, gallery, distance=distance, on_block=notify("ranking", len(query.features)))


def _labelled(extractor: Extractor, split: str, images: Sequence[LabelledImage], notify: Notify) -> Labelled:
    on_block = notify(f"{split} features, {extractor.artifact.name}", len(images))
    return Labelled(
        extract_files(extractor, [image.path for image in images], on_block),
        np.array([image.identity for image in images]),
        np.array([image.camera for image in images]),
    )
