"""Evaluate networks on held-out images, and classifiers on a dataset's test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from reid_edge.datasets.attributes import load_attributes
from reid_edge.datasets.categories import load_categories
from reid_edge.errors import DatasetError, InputError
from reid_edge.evaluation.attributes import attribute_quality
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.ranking import rank
from reid_edge.features import l2_normalised
from reid_edge.osnet.checkpoint import Checkpoint, Head
from reid_edge.progress import Notify, silent
from reid_edge.training import distributed
from reid_edge.training.augment import centre, normalise, source_size
from reid_edge.training.model import ReIDModel, classifier_of
from reid_edge.training.pixels import Images, PixelSource, open_pixels
from reid_edge.training.readable import readable_attributes, readable_categories
from reid_edge.training.settings import AugmentSettings, DataSettings
from reid_edge.types import Features, PerChannel, Size

Figures = dict[str, float]
#: N×C float32.
Logits = npt.NDArray[np.float32]

#: Images that go through a network at once.
_BATCH = 128


class Score(Protocol):
    """A measure of features and logits against the labels of held-out images.

    Attributes:
        names: Names of the figures; the first one decides which network is best.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the figures; the first one decides which network is best."""

    def figures(self, features: Features, logits: Logits) -> Figures:
        """Return figures in [0, 1] by name, from N×512 features and N×C logits."""

    def labels(self) -> npt.NDArray[np.generic]:
        """Return the images' labels, for a fingerprint."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RankingScore:
    """mAP and rank-1 of a search for people, by cosine distance and the Market-1501 protocol.

    Attributes:
        identities: N int64, queries first.
        cameras: N int64.
        queries: Number of queries; the other images are the gallery.
    """

    names: ClassVar[tuple[str, ...]] = ("mAP", "R1")
    identities: npt.NDArray[np.int64]
    cameras: npt.NDArray[np.int64]
    queries: int

    def figures(self, features: Features, logits: Logits) -> Figures:  # noqa: ARG002
        """See ``Score``."""
        parts = slice(None, self.queries), slice(self.queries, None)
        query, gallery = (Labelled(features[part], self.identities[part], self.cameras[part]) for part in parts)
        ranking = rank(query, gallery)
        return {"mAP": ranking.mean_ap, "R1": ranking.rank1}

    def labels(self) -> npt.NDArray[np.generic]:
        """See ``Score``."""
        return np.stack([self.identities, self.cameras])


@dataclass(frozen=True, kw_only=True, eq=False)
class CategoryScore:
    """Share of images whose category is predicted correctly.

    Attributes:
        categories: N int64.
    """

    names: ClassVar[tuple[str, ...]] = ("top1",)
    categories: npt.NDArray[np.int64]

    def figures(self, features: Features, logits: Logits) -> Figures:  # noqa: ARG002
        """See ``Score``."""
        return {"top1": float((logits.argmax(1) == self.categories).mean())}

    def labels(self) -> npt.NDArray[np.generic]:
        """See ``Score``."""
        return self.categories


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributeScore:
    """Attribute figures of the PA-100K protocol.

    Attributes:
        values: N×A of 0 and 1.
    """

    names: ClassVar[tuple[str, ...]] = ("mA", "Acc", "Prec", "Rec", "F1")
    values: npt.NDArray[np.uint8]

    def figures(self, features: Features, logits: Logits) -> Figures:  # noqa: ARG002
        """See ``Score``."""
        quality = attribute_quality(logits > 0, self.values)
        values = (quality.mean_accuracy, quality.accuracy, quality.precision, quality.recall, quality.f1)
        return dict(zip(self.names, values, strict=True))

    def labels(self) -> npt.NDArray[np.generic]:
        """See ``Score``."""
        return self.values


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutImages:
    """Held-out images and the measure that they are evaluated by.

    Attributes:
        images: N files, or N×h×w×3 uint8 BGR.
        score: Measure of their features and logits.
    """

    images: Images
    score: Score


class Evaluator:
    """Evaluates a run's networks; several also as an ensemble with concatenated features (supplement B).

    Args:
        source: Pixels of the held-out images; the networks get them as an engine does, without any augmentation.
        score: Measure of features and logits.
        size: Height and width that the networks take; larger images are cropped in the middle.
        mean: RGB, full scale = 1.
        std: RGB, full scale = 1.
    """

    def __init__(self, source: PixelSource, score: Score, size: Size, mean: PerChannel, std: PerChannel) -> None:
        self._source, self._score, self._size, self._mean, self._std = source, score, size, mean, std

    @property
    def best_by(self) -> str:
        """Name of the figure that decides which network is best."""
        return self._score.names[0]

    def columns(self, networks: int) -> tuple[str, ...]:
        """Return the names of all figures; for several networks ``mAP-1``, …, and ``mAP-both`` for the ensemble."""
        return tuple(name + end for end in endings(networks) for name in self._score.names)

    def __call__(self, models: Sequence[nn.Module]) -> list[Figures]:
        """Return the figures of each network, and of several networks, last, those of the ensemble."""
        outputs = [self._outputs(model) for model in models]
        found = [self._score.figures(*one) for one in outputs]
        if len(outputs) > 1:
            features = np.concatenate([l2_normalised(one) for one, _ in outputs], 1)
            found.append(self._score.figures(features, np.mean([logits for _, logits in outputs], 0)))
        return found

    @torch.inference_mode()
    def _outputs(self, model: nn.Module) -> tuple[Features, Logits]:
        """Return N×512 features and N×C logits of all held-out images."""
        assert isinstance(model, ReIDModel)
        training = model.training
        model.eval()
        features, logits = [], []
        batches = torch.split(torch.arange(len(self._source)), _BATCH)
        self._source.prefetch(batches)
        for indices in batches:
            pixels = centre(self._source.batch(indices), self._size)
            outputs = model(normalise(pixels, self._mean, self._std))
            features.append(outputs.features.float().cpu())
            logits.append(outputs.logits.float().cpu())
        model.train(training)
        return torch.cat(features).numpy(), torch.cat(logits).numpy()


def endings(networks: int) -> tuple[str, ...]:
    """Return the suffixes of figures' names: none for one network; else ``-1``, ``-2``, … and ``-both``."""
    return ("",) if networks == 1 else (*(f"-{number + 1}" for number in range(networks)), "-both")


def named(found: Sequence[Figures], networks: int) -> Figures:
    """Join the figures of all networks, each under a name with its suffix."""
    pairs = zip(endings(networks), found, strict=True) if found else ()
    return {f"{name}{end}": value for end, figures in pairs for name, value in figures.items()}


def evaluate_classifier(
    checkpoint: Checkpoint,
    dataset: str,
    root: Path,
    *,
    partial: bool = False,
    skip_bad: bool = False,
    notify: Notify = silent,
) -> Figures:
    """Evaluate a checkpoint's classifier on the test split; figures in [0, 1] by name.

    Images are treated as those held out in training: resized, and cropped in the middle if training cropped.

    Args:
        checkpoint: Checkpoint of the recipe ``classify`` or ``attributes``.
        dataset: Name of a dataset of categories or attributes, as the checkpoint's classifier is.
        root: Folder of the dataset.
        partial: Accept a subset: counts are not checked.
        skip_bad: Leave out images that cannot be read; they are logged.
        notify: Starts a progress bar with a text and a number of steps.

    Raises:
        InputError: The checkpoint has no classifier.
        DatasetError: The dataset cannot be read, or has other categories or attributes than the classifier.
    """
    head, info = checkpoint.head, checkpoint.info
    if head is None:
        raise InputError("this checkpoint has no classifier: only the recipes classify and attributes keep theirs.")
    held_out = _test_split(head, dataset, root, partial=partial, skip_bad=skip_bad)
    device = distributed.pick_device("auto")
    augment = msgspec.convert(info.training.get("augment", {}), AugmentSettings)
    size = source_size(augment, info.size)
    memory_bytes = int(DataSettings().memory_gb * 1e9)
    on_image = notify(f"reading {dataset}'s test split", len(held_out.images))
    source = open_pixels(held_out.images, size, device, memory_bytes=memory_bytes, on_image=on_image)
    model = _restored(checkpoint, head).to(device)
    return Evaluator(source, held_out.score, info.size, info.mean, info.std)([model])[0]


def _test_split(head: Head, dataset: str, root: Path, *, partial: bool, skip_bad: bool) -> HeldOutImages:
    if head.kind == "category":
        categories = load_categories(dataset, root, "test", partial=partial)
        _check_names(head, categories.names)
        if skip_bad:
            categories = readable_categories(categories)
        return HeldOutImages(images=categories.images, score=CategoryScore(categories=categories.labels))
    attributes = load_attributes(dataset, root, "test", partial=partial)
    _check_names(head, attributes.names)
    if skip_bad:
        attributes = readable_attributes(attributes)
    return HeldOutImages(images=attributes.images, score=AttributeScore(values=attributes.values))


def _check_names(head: Head, names: tuple[str, ...]) -> None:
    if head.names != names:
        raise DatasetError(
            f"the classifier has {len(head.names)} outputs ({', '.join(head.names[:3])}, …), the dataset has "
            f"{len(names)} ({', '.join(names[:3])}, …); use the dataset that it was trained on."
        )


def _restored(checkpoint: Checkpoint, head: Head) -> ReIDModel:
    model = ReIDModel(checkpoint.info.config, len(head.names))
    model.network.load_state_dict(checkpoint.network().state_dict())
    model.head = classifier_of(head)
    return model.eval()
