"""A trained classifier on a dataset's test split: top-1 of categories, mA and the like of attributes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from reid_edge.datasets.attributes import load_attributes
from reid_edge.datasets.categories import load_categories
from reid_edge.errors import DatasetError, InputError
from reid_edge.osnet.checkpoint import Checkpoint, Head
from reid_edge.progress import Notify, silent
from reid_edge.training import distributed
from reid_edge.training.augment import source_size
from reid_edge.training.evaluator import AttributeScore, CategoryScore, Evaluator, Figures
from reid_edge.training.model import Learner
from reid_edge.training.pixels import open_pixels
from reid_edge.training.settings import AugmentConfig, DataConfig
from reid_edge.training.task import HeldOutImages


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
    augment = msgspec.convert(info.training.get("augment", {}), AugmentConfig)
    size = source_size(augment, info.size)
    memory_bytes = int(DataConfig().memory_gb * 1e9)
    on_image = notify(f"reading {dataset}'s test split", len(held_out.images))
    source = open_pixels(held_out.images, size, device, memory_bytes=memory_bytes, on_image=on_image)
    learner = _learner(checkpoint, head).to(device)
    return Evaluator(source, held_out.score, info.size, info.mean, info.std)([learner])[0]


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


def _learner(checkpoint: Checkpoint, head: Head) -> Learner:
    learner = Learner(checkpoint.info.config, len(head.names))
    learner.network.load_state_dict(checkpoint.network().state_dict())
    with torch.no_grad():
        learner.head.weight.copy_(head.weight)
        learner.head.bias.copy_(head.bias)
    return learner.eval()
