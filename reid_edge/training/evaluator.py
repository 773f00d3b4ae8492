"""Figures of networks on held-out images."""

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
from reid_edge.evaluation.ranking import Labelled, rank
from reid_edge.features import l2_normalised
from reid_edge.osnet.checkpoint import Checkpoint, Head
from reid_edge.progress import Notify, silent
from reid_edge.training import distributed
from reid_edge.training.augment import centre, normalise, source_size
from reid_edge.training.model import ReIDModel
from reid_edge.training.pixels import Images, PixelSource, open_pixels
from reid_edge.training.settings import AugmentSettings, DataSettings

Floats = npt.NDArray[np.float32]
Triple = tuple[float, float, float]
Figures = dict[str, float]

#: Images that go through a network at once.
_BATCH = 128


class Score(Protocol):
    """What makes figures of the features and logits of held-out images.

    Attributes:
        names: Of the figures; the first is the one by which a network is best.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Of the figures; the first is the one by which a network is best."""

    def figures(self, features: Floats, logits: Floats) -> Figures:
        """Figures in [0, 1], by name, of N×512 features and N×C logits."""

    def labels(self) -> npt.NDArray[np.generic]:
        """What the images are labelled with, for a fingerprint."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RankingScore:
    """Search of people among others: mAP and rank-1, cosine distance, Market-1501 protocol.

    Attributes:
        identities: N, queries first.
        cameras: N.
        queries: How many are queries; the others are the gallery.
    """

    names: ClassVar[tuple[str, ...]] = ("mAP", "R1")
    identities: npt.NDArray[np.int64]
    cameras: npt.NDArray[np.int64]
    queries: int

    def figures(self, features: Floats, logits: Floats) -> Figures:  # noqa: ARG002
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
    """Share of images whose category is right.

    Attributes:
        categories: N int64.
    """

    names: ClassVar[tuple[str, ...]] = ("top1",)
    categories: npt.NDArray[np.int64]

    def figures(self, features: Floats, logits: Floats) -> Figures:  # noqa: ARG002
        """See ``Score``."""
        return {"top1": float((logits.argmax(1) == self.categories).mean())}

    def labels(self) -> npt.NDArray[np.generic]:
        """See ``Score``."""
        return self.categories


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributeScore:
    """Figures of the PA-100K protocol.

    Attributes:
        values: N×A of 0 and 1.
    """

    names: ClassVar[tuple[str, ...]] = ("mA", "Acc", "Prec", "Rec", "F1")
    values: npt.NDArray[np.uint8]

    def figures(self, features: Floats, logits: Floats) -> Figures:  # noqa: ARG002
        """See ``Score``."""
        quality = attribute_quality(logits > 0, self.values)
        values = (quality.mean_accuracy, quality.accuracy, quality.precision, quality.recall, quality.f1)
        return dict(zip(self.names, values, strict=True))

    def labels(self) -> npt.NDArray[np.generic]:
        """See ``Score``."""
        return self.values


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutImages:
    """Held-out images.

    Attributes:
        images: Files, or N×h×w×3 uint8 BGR.
        score: What makes figures of their features and logits.
    """

    images: Images
    score: Score


class Evaluator:
    """Evaluates a run's networks; of several also what they are together (supplement B: features concatenated).

    Args:
        source: Pixels of the held-out images; the networks get them as an engine would, without any augmentation.
        score: Makes figures.
        size: Height and width that the networks take: of larger images the middle.
        mean: RGB, full scale = 1.
        std: RGB, full scale = 1.
    """

    def __init__(self, source: PixelSource, score: Score, size: tuple[int, int], mean: Triple, std: Triple) -> None:
        self._source, self._score, self._size, self._mean, self._std = source, score, size, mean, std

    @property
    def best_by(self) -> str:
        """The figure by which a network is best."""
        return self._score.names[0]

    def columns(self, networks: int) -> tuple[str, ...]:
        """Names of all figures: of several networks ``mAP-1``, …, and ``mAP-both`` together."""
        return tuple(name + end for end in endings(networks) for name in self._score.names)

    def __call__(self, models: Sequence[nn.Module]) -> list[Figures]:
        """Figures of each network; of several, last, of all together."""
        seen = [self._look(model) for model in models]
        found = [self._score.figures(*one) for one in seen]
        if len(seen) > 1:
            features = np.concatenate([l2_normalised(one) for one, _ in seen], 1)
            found.append(self._score.figures(features, np.mean([logits for _, logits in seen], 0)))
        return found

    @torch.inference_mode()
    def _look(self, model: nn.Module) -> tuple[Floats, Floats]:
        assert isinstance(model, ReIDModel)
        training = model.training
        model.eval()
        features, logits = [], []
        batches = torch.split(torch.arange(len(self._source)), _BATCH)
        self._source.prefetch(batches)
        for indices in batches:
            pixels = centre(self._source.batch(indices), self._size)
            seen = model(normalise(pixels, self._mean, self._std))
            features.append(seen[0].float().cpu())
            logits.append(seen[1].float().cpu())
        model.train(training)
        return torch.cat(features).numpy(), torch.cat(logits).numpy()


def endings(networks: int) -> tuple[str, ...]:
    """What figures' names end with: nothing for one network; else its number, and ``-both``."""
    return ("",) if networks == 1 else (*(f"-{number + 1}" for number in range(networks)), "-both")


def named(found: Sequence[Figures], networks: int) -> Figures:
    """Figures of all networks under names of their own."""
    pairs = zip(endings(networks), found, strict=True) if found else ()
    return {f"{name}{end}": value for end, figures in pairs for name, value in figures.items()}


def evaluate_classifier(
    checkpoint: Checkpoint,
    dataset: str,
    root: Path,
    *,
    partial: bool = False,
    notify: Notify = silent,
) -> Figures:
    """Figures in [0, 1] of a checkpoint's classifier on the test split, by name.

    Images are treated as those held out in training: resized, and cropped in the middle if training cropped.

    Args:
        checkpoint: Of the recipe ``classify`` or ``attributes``.
        dataset: Name; of categories or attributes, as the checkpoint's classifier is.
        root: Its folder.
        partial: A subset: counts are not checked.
        notify: Starts a progress bar with a text and a number of steps.

    Raises:
        InputError: The checkpoint has no classifier.
        DatasetError: The dataset is not what it should be, or has other categories or attributes.
    """
    head, info = checkpoint.head, checkpoint.info
    if head is None:
        raise InputError("this checkpoint has no classifier: only the recipes classify and attributes keep theirs.")
    held_out = _test_split(head, dataset, root, partial=partial)
    device = distributed.pick_device("auto")
    augment = msgspec.convert(info.training.get("augment", {}), AugmentSettings)
    size = source_size(augment, info.size)
    memory_bytes = int(DataSettings().memory_gb * 1e9)
    on_image = notify(f"reading {dataset}'s test split", len(held_out.images))
    source = open_pixels(held_out.images, size, device, memory_bytes=memory_bytes, on_image=on_image)
    model = _restored(checkpoint, head).to(device)
    return Evaluator(source, held_out.score, info.size, info.mean, info.std)([model])[0]


def _test_split(head: Head, dataset: str, root: Path, *, partial: bool) -> HeldOutImages:
    if head.kind == "category":
        categories = load_categories(dataset, root, "test", partial=partial)
        _check_names(head, categories.names)
        return HeldOutImages(images=categories.images, score=CategoryScore(categories=categories.labels))
    attributes = load_attributes(dataset, root, "test", partial=partial)
    _check_names(head, attributes.names)
    return HeldOutImages(images=attributes.images, score=AttributeScore(values=attributes.values))


def _check_names(head: Head, names: tuple[str, ...]) -> None:
    if head.names != names:
        raise DatasetError(
            f"the classifier tells {len(head.names)} apart ({', '.join(head.names[:3])}, …), the dataset has "
            f"{len(names)} ({', '.join(names[:3])}, …); use the dataset that it was trained on."
        )


def _restored(checkpoint: Checkpoint, head: Head) -> ReIDModel:
    model = ReIDModel(checkpoint.info.config, len(head.names))
    model.network.load_state_dict(checkpoint.network().state_dict())
    with torch.no_grad():
        model.head.weight.copy_(head.weight)
        model.head.bias.copy_(head.bias)
    return model.eval()
