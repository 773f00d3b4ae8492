"""Ranking quality on labelled images: of one model, of one with mirrored crops, or of several together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.loading import load_split
from reid_edge.errors import InputError
from reid_edge.evaluation.comparison import Labelled, Rule
from reid_edge.evaluation.ranking import Ranking, rank
from reid_edge.features import l2_normalised
from reid_edge.manifest import Distance
from reid_edge.progress import Notify
from reid_edge.runtime import Extractor
from reid_edge.runtime.extractor import extract_files
from reid_edge.types import Features, Image

#: The splits that a ranking takes.
_SPLITS: tuple[Split, ...] = ("query", "gallery")


def load_splits(
    root: Path, *, dataset: str = "market1501", number: int = 0, partial: bool = False, same_camera: bool = False
) -> dict[Split, list[LabelledImage]]:
    """Load query and gallery of a re-identification dataset.

    Args:
        root: Folder of the dataset.
        dataset: Of :data:`reid_edge.datasets.loading.REID_DATASETS`, or a union of them.
        number: Number of the random split, 0 to 9, where a dataset has such (VIPeR, GRID).
        partial: Take a subset on purpose: do not check the number of images.
        same_camera: Matches of the same camera will count: cameras need not be known.

    Raises:
        DatasetError: The dataset is not there, or not complete.
    """
    return {
        split: load_split(dataset, root, split, partial=partial, number=number, same_camera=same_camera)
        for split in _SPLITS
    }


@dataclass(frozen=True)
class Embedder:
    """Computes one feature of each crop, with one model or with several.

    With ``flip`` each model's feature is the mean of the crop's f and the mirrored crop's f′: (f + f′) / 2; where the
    manifest's norm is l2 both are of unit length, and so is the mean made: (f + f′) / ‖f + f′‖.  The features of
    several models are concatenated, each normalised as its manifest says (OSNet paper, supplement B: not averaged,
    since two networks' dimensions have nothing to do with each other).  Of unit features the cosine then is the mean
    of the models' cosines.

    Args:
        extractors: One or more.
        flip: Average over mirrored crops; costs twice the time.

    Raises:
        InputError: The models normalise their features differently, so that one's lengths would outweigh another's.
    """

    extractors: tuple[Extractor, ...]
    flip: bool = False

    def __post_init__(self) -> None:
        norms = {extractor.bundle.manifest.features.norm for extractor in self.extractors}
        if len(norms) > 1:
            listed = ", ".join(f"{one.bundle.path}: {one.bundle.manifest.features.norm}" for one in self.extractors)
            raise InputError(
                "features of several models are concatenated, so all must be normalised alike, "
                f"got norms {listed}. Export them with the same --norm."
            )

    @property
    def name(self) -> str:
        """Names of the files, e.g. ``openvino/fp32``, joined by ``+``."""
        return " + ".join(extractor.artifact.name for extractor in self.extractors)

    @property
    def description(self) -> str:
        """Files, libraries and devices, and whether crops are mirrored too."""
        each = Counter(extractor.description for extractor in self.extractors)
        joined = " + ".join(text if count == 1 else f"{count} × {text}" for text, count in each.items())
        return f"{joined}, with mirrored crops" if self.flip else joined

    @property
    def distance(self) -> Distance:
        """The distance that all manifests name.

        Raises:
            InputError: They name different ones.
        """
        named = {extractor.bundle.manifest.features.distance for extractor in self.extractors}
        if len(named) > 1:
            raise InputError(
                f"the bundles name different distances, {' and '.join(sorted(named))}; choose one with --distance."
            )
        return named.pop()

    def __call__(self, crops: Sequence[Image]) -> Features:
        """Compute features of crops.

        Args:
            crops: N of any sizes, H×W×3 uint8 BGR.

        Returns:
            N×D float32, D the sum of the models' dimensions.

        Raises:
            FrameError: A crop that is not H×W×3 uint8.
        """
        return np.concatenate([self._of_one(extractor, crops) for extractor in self.extractors], axis=1)

    def _of_one(self, extractor: Extractor, crops: Sequence[Image]) -> Features:
        features = extractor(crops)
        if not self.flip:
            return features
        mirrored = extractor([np.asarray(cv2.flip(crop, 1), np.uint8) for crop in crops])
        mean: Features = np.mean([features, mirrored], axis=0, dtype=np.float32)
        return l2_normalised(mean) if extractor.bundle.manifest.features.norm == "l2" else mean


def measure_accuracy(extractor: Extractor, splits: Mapping[Split, Sequence[LabelledImage]], notify: Notify) -> Ranking:
    """Measure CMC, mAP and mINP of an extractor's features, by the distance that its manifest names.

    Args:
        extractor: Any engine and precision.
        splits: See :func:`load_splits`.
        notify: Called before each stage.

    Raises:
        FrameError: A file is not a readable image.
        InputError: No query has a match.
    """
    return measure_splits(Embedder((extractor,)), [splits], notify).rankings[0]


@dataclass(frozen=True)
class Measured:
    """Ranking quality on random splits, and what could not be read.

    Attributes:
        rankings: One for each split.
        unreadable: Files of all splits that were left out.
    """

    rankings: tuple[Ranking, ...]
    unreadable: tuple[Path, ...] = ()


def measure_splits(
    embedder: Embedder,
    numbered: Sequence[Mapping[Split, Sequence[LabelledImage]]],
    notify: Notify,
    *,
    distance: Distance | None = None,
    rule: Rule = "market1501",
    skip_bad: bool = False,
) -> Measured:
    """Measure CMC, mAP and mINP on each of several random splits of one dataset; each image is embedded once.

    Args:
        embedder: Computes the features.
        numbered: See :func:`load_splits`; most datasets have one.
        notify: Called before each stage.
        distance: ``cosine`` or ``euclidean``; None: the manifests'.
        rule: Which gallery images are left out of a query's search.
        skip_bad: Leave out files that are no readable images.

    Raises:
        FrameError: A file is not a readable image.
        InputError: No query has a match, or the manifests name different distances and none is given.
    """
    distance = distance or embedder.distance
    paths = list(dict.fromkeys(image.path for splits in numbered for split in _SPLITS for image in splits[split]))
    on_block = notify(f"features, {embedder.name}", len(paths))
    extracted = extract_files(embedder, paths, on_block, skip_bad=skip_bad)
    rows = {path: row for row, path in enumerate(extracted.paths)}
    numbered = [_readable(splits, rows) for splits in numbered]
    on_block = notify("ranking", sum(len(splits["query"]) for splits in numbered))
    rankings = [
        rank(
            *(_labelled(extracted.features, rows, splits[split]) for split in _SPLITS),
            distance=distance,
            rule=rule,
            on_block=on_block,
        )
        for splits in numbered
    ]
    return Measured(tuple(rankings), extracted.unreadable)


def _readable(
    splits: Mapping[Split, Sequence[LabelledImage]], rows: Mapping[Path, int]
) -> dict[Split, list[LabelledImage]]:
    kept = {split: [image for image in splits[split] if image.path in rows] for split in _SPLITS}
    if empty := [split for split in _SPLITS if not kept[split]]:
        raise InputError(f"no image of the {' and '.join(empty)} can be read. Copy the dataset again.")
    return kept


def mean_ranking(rankings: Sequence[Ranking]) -> Ranking:
    """Return the mean over random splits, all of the same weight; ``queries`` is their sum."""
    ranks = min(len(ranking.cmc) for ranking in rankings)
    return Ranking(
        cmc=np.mean([ranking.cmc[:ranks] for ranking in rankings], axis=0),
        mean_ap=float(np.mean([ranking.mean_ap for ranking in rankings])),
        mean_inp=float(np.mean([ranking.mean_inp for ranking in rankings])),
        queries=sum(ranking.queries for ranking in rankings),
    )


def _labelled(features: Features, rows: Mapping[Path, int], images: Sequence[LabelledImage]) -> Labelled:
    chosen = np.array([rows[image.path] for image in images])
    return Labelled(
        features[chosen],
        np.array([image.identity for image in images]),
        np.array([image.camera for image in images]),
        chosen,
    )
