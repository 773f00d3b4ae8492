"""Labelled features of query and gallery, of one or several random splits; each image is embedded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid_edge.benchmark.embedder import SPLITS, Embedder
from reid_edge.benchmark.readable import only_of
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.tracklets import tracklets_of
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.tracklets import averaged
from reid_edge.progress import Notify
from reid_edge.runtime.extractor import extract_files
from reid_edge.types import Features


@dataclass(frozen=True)
class Embedded:
    """Features of a dataset's splits, and what could not be read.

    Attributes:
        splits: Query and gallery of each random split; most datasets have one.
        unreadable: Files of all splits that were left out.
    """

    splits: tuple[Mapping[Split, Labelled], ...]
    unreadable: tuple[Path, ...] = ()


def embed_splits(
    embedder: Embedder,
    numbered: Sequence[Mapping[Split, Sequence[LabelledImage]]],
    notify: Notify,
    *,
    skip_bad: bool = False,
    tracklet_gap: int | None = None,
) -> Embedded:
    """Compute the features of each of several random splits of one dataset.

    Args:
        embedder: Computes the features.
        numbered: See :func:`reid_edge.benchmark.embedder.load_splits`.
        notify: Called before the work, with the number of images.
        skip_bad: Leave out files that are no readable images.
        tracklet_gap: Average the features of each tracklet, whose images are at most so many frames apart; None: each
            image counts by itself.

    Raises:
        DatasetError: The tracklets are not known.
        FrameError: A file is not a readable image.
        InputError: No image of query or gallery can be read, or a tracklet is not one person in one camera.
    """
    images = {image.path: image for splits in numbered for split in SPLITS for image in splits[split]}
    tracklets = None if tracklet_gap is None else tracklets_of(images.values(), gap=tracklet_gap)
    extracted = extract_files(
        embedder, list(images), notify(f"features, {embedder.name}", len(images)), skip_bad=skip_bad
    )
    rows = {path: row for row, path in enumerate(extracted.paths)}
    splits = [
        {split: _labelled(extracted.features, rows, images_of[split]) for split in SPLITS}
        for images_of in (only_of(splits, rows) for splits in numbered)
    ]
    if tracklets is not None:
        numbers = np.array([tracklets[path] for path in extracted.paths])
        splits = [
            {split: averaged(part, numbers[part.images], unit=embedder.unit) for split, part in parts.items()}
            for parts in splits
        ]
    return Embedded(tuple(splits), extracted.unreadable)


def _labelled(features: Features, rows: Mapping[Path, int], images: Sequence[LabelledImage]) -> Labelled:
    chosen = np.array([rows[image.path] for image in images])
    return Labelled(
        features[chosen],
        np.array([image.identity for image in images]),
        np.array([image.camera for image in images]),
        chosen,
    )
