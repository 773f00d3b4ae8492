"""Read and check the training and held-out images of a run, for each task."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reid_edge.datasets.attributes import WITH_VALIDATION, load_attributes
from reid_edge.datasets.categories import load_categories
from reid_edge.datasets.combined import load_combined
from reid_edge.datasets.holdout import first_identities, hold_out
from reid_edge.datasets.labelled_images import LabelledImage
from reid_edge.datasets.loading import load_split
from reid_edge.errors import DatasetError, SettingsError
from reid_edge.training.evaluator import AttributeScore, CategoryScore, HeldOutImages, RankingScore
from reid_edge.training.pixels import Images
from reid_edge.training.readable import readable_attributes, readable_categories, readable_rows
from reid_edge.training.settings import DataSettings, TrainSettings

#: Seed that chooses the held-out images of categories: the same in every run, whatever the run's seed.
_HELD_OUT_SEED = 0


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Training images and held-out images of a run.

    Attributes:
        images: Files, or N×h×w×3 uint8 BGR.
        targets: N int64 classes from 0, or N×A float32 attributes of 0 and 1.
        classes: Number of the classifier's outputs.
        names: Names of categories or attributes; empty for identities, whose classifier is dropped after training.
        held_out: Images that the run is evaluated on; None: nothing is held out.
        fingerprint: Hash of names, order and labels of all images.
    """

    images: Images
    targets: Tensor
    classes: int
    names: tuple[str, ...]
    held_out: HeldOutImages | None
    fingerprint: str

    @property
    def positive_rates(self) -> Tensor | None:
        """Share of the images that have each attribute, A float32; None for other tasks."""
        return self.targets.mean(0) if self.targets.is_floating_point() else None


def load_training_data(settings: TrainSettings) -> TrainingData:
    """Read and check a run's dataset; no pixel is decoded.

    Raises:
        DatasetError: The dataset is unknown, incomplete or of another layout, or too small to hold images out of it.
        SettingsError: ``data.identities`` is set for a task without identities.
    """
    load = {"identity": _identities, "category": _categories, "attributes": _attributes}[settings.task]
    try:
        return load(settings.data)
    except DatasetError as error:
        if settings.loss.cross_entropy or settings.task != "identity":
            raise
        raise DatasetError(
            f"{error} Only teachers teach here (loss.cross_entropy is 0): images without labels need --set "
            "data.validation=0 and any identities, at least two in all, e.g. another one for each image; -1 leaves an "
            "image out."
        ) from error


def _identities(data: DataSettings) -> TrainingData:
    if data.combineall:
        images = load_combined(data.dataset, data.root, partial=data.partial)
    else:
        images = load_split(data.dataset, data.root, "train", partial=data.partial, number=data.split)
    if data.skip_bad:
        images = [images[row] for row in readable_rows([image.path for image in images])]
    held_out: HeldOutImages | None = None
    if data.validation:
        held = hold_out(images, data.validation)
        images = list(held.train)
        held_out = _ranked(held.query, held.gallery)
    chosen = first_identities(images, data.identities)
    people, targets = np.unique([image.identity for image in chosen], return_inverse=True)
    paths = tuple(image.path for image in chosen)
    return _training_data(paths, torch.from_numpy(targets), len(people), (), held_out)


def _ranked(query: Sequence[LabelledImage], gallery: Sequence[LabelledImage]) -> HeldOutImages:
    both = [*query, *gallery]
    score = RankingScore(
        identities=np.array([image.identity for image in both]),
        cameras=np.array([image.camera for image in both]),
        queries=len(query),
    )
    return HeldOutImages(images=tuple(image.path for image in both), score=score)


def _categories(data: DataSettings) -> TrainingData:
    held = load_categories(data.dataset, data.root, "train", partial=data.partial)
    if data.skip_bad:
        held = readable_categories(held)
    _check_held_out(data, len(held.labels))
    order = np.random.default_rng(_HELD_OUT_SEED).permutation(len(held.labels))
    train, apart = np.sort(order[data.validation :]), np.sort(order[: data.validation])
    held_out = None
    if data.validation:
        held_out = HeldOutImages(images=_chosen(held.images, apart), score=CategoryScore(categories=held.labels[apart]))
    targets = torch.from_numpy(held.labels[train])
    return _training_data(_chosen(held.images, train), targets, len(held.names), held.names, held_out)


def _attributes(data: DataSettings) -> TrainingData:
    held = load_attributes(data.dataset, data.root, "train", partial=data.partial)
    if data.skip_bad:
        held = readable_attributes(held)
    border, held_out = len(held.values), None
    if data.validation and data.dataset in WITH_VALIDATION:
        apart = load_attributes(data.dataset, data.root, "val", partial=data.partial)
        if data.skip_bad:
            apart = readable_attributes(apart)
        held_out = HeldOutImages(images=apart.images, score=AttributeScore(values=apart.values))
    elif data.validation:
        _check_held_out(data, len(held.values))
        border = _border(held.images, len(held.values) - data.validation)
        held_out = HeldOutImages(images=held.images[border:], score=AttributeScore(values=held.values[border:]))
    targets = torch.from_numpy(held.values[:border].astype(np.float32))
    return _training_data(held.images[:border], targets, len(held.names), held.names, held_out)


def _border(images: Sequence[Path], border: int) -> int:
    """Move the border down until no person (``0002_c1…``, as in Market-1501) has images on both sides."""
    while (
        0 < border < len(images)
        and "_" in images[border].name
        and _person(images[border]) == _person(images[border - 1])
    ):
        border -= 1
    return border


def _person(image: Path) -> str:
    return image.name.partition("_")[0]


def _chosen(images: Images, indices: npt.NDArray[np.int64]) -> Images:
    return images[indices] if isinstance(images, np.ndarray) else tuple(images[index] for index in indices)


def _check_held_out(data: DataSettings, count: int) -> None:
    if data.identities is not None:
        raise SettingsError("data.identities: only re-identification has identities; leave it out.")
    if data.validation >= count:
        raise DatasetError(
            f"data.validation: {data.validation} images would be held out of {count}; none is left to train on. "
            "Hold out fewer."
        )


def _names(paths: Sequence[Path]) -> bytes:
    """Return file names as bytes, since a name need not be UTF-8."""
    return os.fsencode("\n".join(path.name for path in paths))


def _training_data(
    images: Images,
    targets: Tensor,
    classes: int,
    names: tuple[str, ...],
    held_out: HeldOutImages | None,
) -> TrainingData:
    digest = hashlib.sha256()
    for part, labels in (
        (images, targets.numpy()),
        *([(held_out.images, held_out.score.labels())] if held_out else []),
    ):
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else _names(part))
        digest.update(np.ascontiguousarray(labels).tobytes())
    return TrainingData(
        images=images,
        targets=targets,
        classes=classes,
        names=names,
        held_out=held_out,
        fingerprint=digest.hexdigest(),
    )
