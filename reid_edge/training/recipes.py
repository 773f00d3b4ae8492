"""The settings of the paper's recipes."""

from __future__ import annotations

from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.training.settings import (
    AugmentSettings,
    BatchSettings,
    DataSettings,
    LossSettings,
    ModelSettings,
    OptimiserSettings,
    RecipeName,
    ScheduleSettings,
    TrainSettings,
)

_AMSGRAD = OptimiserSettings(name="amsgrad", learning_rate=0.0015)
_STAGED = ScheduleSettings(epochs=150, milestones=(60, 120), frozen=10)

RECIPES: dict[RecipeName, TrainSettings] = {
    # Section 4.1: SGD 0.065, ×0.1 at 150, 225, 300 of 350 epochs, random flip, crop and patch.
    "scratch": TrainSettings(recipe="scratch"),
    # Section 4.1: AMSGrad 0.0015, ×0.1 every 60 of 150 epochs, base frozen for 10; random flip and erasing.
    "finetune": TrainSettings(
        recipe="finetune",
        augment=AugmentSettings(translate=0.0, patch=0.0, erase=0.5),
        optimiser=_AMSGRAD,
        schedule=_STAGED,
    ),
    # Supplement A: as fine-tuning, with OSNet-IBN, colour jitter, and without random erasing.
    "cross-domain": TrainSettings(
        recipe="cross-domain",
        model=ModelSettings(variant=NetworkVariant(instance_norm=True)),
        augment=AugmentSettings(translate=0.0, patch=0.0, brightness=0.2, contrast=0.15),
        optimiser=_AMSGRAD,
        schedule=_STAGED,
    ),
    # Supplement B: cross-entropy + 0.5 × triplet + mutual learning, cosine schedule.
    "mutual": TrainSettings(
        recipe="mutual",
        augment=AugmentSettings(translate=0.0, patch=0.0, erase=0.5),
        loss=LossSettings(triplet=0.5, mutual=1.0),
        optimiser=_AMSGRAD,
        schedule=ScheduleSettings(epochs=250, kind="cosine", milestones=(), frozen=10),
        batch=BatchSettings(instances=4),
    ),
    # Section 4.3, "following the setting in" Wide ResNet (Zagoruyko & Komodakis, BMVC 2016): SGD 0.1 with Nesterov's
    # momentum, batch 128, ×0.2 at 60, 120, 160 of 200 epochs, flip and shift.
    "classify": TrainSettings(
        recipe="classify",
        task="category",
        data=DataSettings(dataset="cifar10", validation=5000),
        model=ModelSettings(size=(32, 32)),
        augment=AugmentSettings(translate=0.0, patch=0.0, shift=4),
        loss=LossSettings(smoothing=0.0),
        optimiser=OptimiserSettings(learning_rate=0.1, nesterov=True),
        schedule=ScheduleSettings(epochs=200, milestones=(60, 120, 160), gamma=0.2),
        batch=BatchSettings(size=128),
    ),
    # Section 4.2 (PA-100K) leaves the schedule open: fine-tuning's, with flips only.
    "attributes": TrainSettings(
        recipe="attributes",
        task="attributes",
        data=DataSettings(dataset="pa100k", validation=10_000),
        augment=AugmentSettings(translate=0.0, patch=0.0),
        loss=LossSettings(smoothing=0.0),
        optimiser=_AMSGRAD,
        schedule=_STAGED,
    ),
}

# Section 4.4: SGD 0.4, batch 1024, weight decay 4e-5, 120 epochs, random 224 crops of 256, flip.  How the rate goes
# down is not said: along a cosine.
_IMAGENET = TrainSettings(
    recipe="classify",
    task="category",
    data=DataSettings(dataset="imagenet", validation=10_000),
    model=ModelSettings(size=(224, 224)),
    augment=AugmentSettings(translate=0.0, patch=0.0, crop=True),
    loss=LossSettings(smoothing=0.0),
    optimiser=OptimiserSettings(learning_rate=0.4, weight_decay=4e-5),
    schedule=ScheduleSettings(epochs=120, kind="cosine", milestones=()),
    batch=BatchSettings(size=1024),
)


def recipe_for(name: RecipeName, dataset: object) -> TrainSettings:
    """The recipe's values for a dataset: ``classify`` has its own for ImageNet."""
    return _IMAGENET if name == "classify" and dataset == "imagenet" else RECIPES[name]
