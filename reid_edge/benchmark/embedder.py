"""Features of labelled images: of one model, of one with mirrored crops, or of several together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.loading import load_split
from reid_edge.errors import InputError
from reid_edge.features import l2_normalised
from reid_edge.manifest import Distance
from reid_edge.runtime import Extractor
from reid_edge.types import Features, Image

#: The splits that a ranking takes.
SPLITS: tuple[Split, ...] = ("query", "gallery")


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
        for split in SPLITS
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

    @property
    def unit(self) -> bool:
        """True where the models' features are of unit length."""
        return self.extractors[0].bundle.manifest.features.norm == "l2"

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
