"""A small run for tests of the step: seeded batches, a plain stepper."""

import torch

from reid_edge.osnet.architecture import NetworkVariant
from reid_edge.training.augment import Augmenter
from reid_edge.training.distributed import rank, world
from reid_edge.training.model import make_models
from reid_edge.training.objective import Objective
from reid_edge.training.sampling import numbers, rank_slice
from reid_edge.training.settings import (
    AugmentSettings,
    BatchSettings,
    LossSettings,
    ModelSettings,
    OptimiserSettings,
    RunSettings,
    ScheduleSettings,
    TrainSettings,
)
from reid_edge.training.step import Stepper

CPU = torch.device("cpu")
SIZE = (32, 16)
BATCH = 8
CLASSES = 5
SHALLOW = NetworkVariant(blocks=(1, 1, 1), streams=(1, 2))
STEPS_PER_EPOCH = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def small_run(**parts):
    """A run of 3 epochs: the first frozen, triplet loss from the third on, rates that move."""
    run = {
        "model": ModelSettings(width=0.1, size=SIZE, variant=SHALLOW),
        "augment": AugmentSettings(erase=0.5, brightness=0.2),
        "loss": LossSettings(triplet=0.5, triplet_start=2, entropy=0.05),
        "optimiser": OptimiserSettings(learning_rate=0.02),
        "schedule": ScheduleSettings(epochs=3, kind="cosine", milestones=(), warmup=1, frozen=1),
        "batch": BatchSettings(size=BATCH, instances=2),
        "run": RunSettings(seed=3, precision="float32"),
    }
    return TrainSettings(recipe="scratch", **(run | parts))


def make_stepper(config, recorder=None, dtype=torch.float32):
    models = make_models(config, CLASSES, None).to(dtype)
    augmenter = Augmenter(config.augment, SIZE, MEAN, STD, CPU)
    return Stepper(
        models,
        Objective(config),
        augmenter,
        config,
        device=CPU,
        steps_per_epoch=STEPS_PER_EPOCH,
        recorder=recorder,
    )


def batch(config, step):
    """This process's part of the step's batch: pixels, targets, numbers, partners."""
    rng = torch.Generator().manual_seed(step)
    coarse = torch.randint(0, 256, (2 * BATCH, 3, SIZE[0] // 4, SIZE[1] // 4), dtype=torch.uint8, generator=rng)
    pixels, partners = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3).split(BATCH)
    targets = (torch.arange(BATCH) // 2 + step) % CLASSES
    drawn = numbers(config.run.seed, step, BATCH, Augmenter(config.augment, SIZE, MEAN, STD, CPU).columns)
    return tuple(rank_slice(each, rank(), world()) for each in (pixels, targets, drawn, partners))


def take(stepper, config, steps):
    for step in steps:
        stepper(*batch(config, step), step)
    return stepper


def tensors(tree):
    """Everything in a state, by name, copied."""
    if isinstance(tree, torch.Tensor):
        return {"": tree.detach().clone()}
    if not isinstance(tree, dict):
        return {"": torch.tensor(float(tree), dtype=torch.float64)}
    return {f"{key}.{name}": each for key, part in tree.items() for name, each in tensors(part).items()}


def differing(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]
