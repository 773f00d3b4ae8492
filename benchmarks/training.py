"""Milliseconds of a training step, by part, and images a second, on this machine's GPU or CPU.

    python benchmarks/training.py                         # width 0.25, batch 64, 128x64: the recipe `scratch`
    python benchmarks/training.py --width 1 --size 256x128 --recipe mutual

The images are noise held in memory, as a Market-1501 train split is.  *pixels* takes a batch out of them and draws the
augmentation's random numbers, *augmentation*, *forward and backward* and *optimiser* (with the moving average) are the
parts of the step, each waited for; *whole step* is what training does, without waiting in between; *recorded* is the
same, replayed as a CUDA graph.  Medians; *steps* runs of each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

from reid_edge.system.threads import configure_openmp

configure_openmp()

import numpy as np
import torch

from reid_edge.osnet.architecture import format_size, parse_size
from reid_edge.osnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD
from reid_edge.training.augment import Augmenter
from reid_edge.training.distributed import pick_device
from reid_edge.training.model import make_models
from reid_edge.training.objective import Objective
from reid_edge.training.pixels import PixelSource, open_pixels
from reid_edge.training.recipes import RECIPES
from reid_edge.training.sampling import balanced_batches, numbers
from reid_edge.training.settings import RecipeName, TrainSettings
from reid_edge.training.step import Stepper, half_precision

IMAGES = 4096
IDENTITIES = 751
#: Identities of a batch when the recipe does not say.
INSTANCES = 4
STEPS_PER_EPOCH = 200
#: Of the whole step, as the device may queue as many.
QUEUED = 5


class Run:
    """A run of the recipe on noise."""

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        self.augmenter = Augmenter(settings.augment, settings.model.size, IMAGENET_MEAN, IMAGENET_STD, device)
        self.source = _noise(self.augmenter.source_size, device)
        models = make_models(settings, IDENTITIES, None)
        self.stepper = Stepper(
            models, Objective(settings), self.augmenter, settings, device=device, steps_per_epoch=STEPS_PER_EPOCH
        )
        self.identities = torch.arange(IMAGES) % IDENTITIES
        self.batches = balanced_batches(self.identities.tolist(), settings.batch.size, INSTANCES, seed=1, epoch=0)
        # Past the frozen stage: the whole network trains.
        self.step = settings.schedule.frozen * STEPS_PER_EPOCH

    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        chosen = self.batches[self.step % len(self.batches)]
        drawn = numbers(1, self.step, len(chosen), self.augmenter.columns)
        partners = self.source.batch(chosen.flip(0)) if self.augmenter.needs_partner else None
        return self.source.batch(chosen), self.identities[chosen], drawn, partners

    def whole(self) -> None:
        for _ in range(QUEUED):
            self.stepper(*self.inputs(), self.step)
            self.step += 1

    def parts(self) -> list[float]:
        """Seconds of pixels, augmentation, forward and backward, optimiser."""
        clock = _Clock(self.device)
        pixels, targets, drawn, partners = (None if each is None else each.to(self.device) for each in self.inputs())
        self.stepper.prepare(self.step)
        clock.lap()
        images = self.stepper.images(pixels, drawn, partners)
        clock.lap()
        parts = self.stepper.gradients(images, targets)
        clock.lap()
        self.stepper.update(parts)
        clock.lap()
        self.step += 1
        return clock.laps


class _Clock:
    def __init__(self, device: torch.device) -> None:
        self._wait: Callable[[], object] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.laps: list[float] = []
        self._wait()
        self._start = time.perf_counter()

    def lap(self) -> None:
        self._wait()
        now = time.perf_counter()
        self.laps.append(now - self._start)
        self._start = now


def _noise(size: tuple[int, int], device: torch.device) -> PixelSource:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, *size, 3), dtype=np.uint8)
    return open_pixels(pixels, size, device, memory_bytes=8 << 30)


def measure_whole(settings: TrainSettings, device: torch.device, steps: int) -> tuple[float, bool]:
    """Seconds of a step, and whether it was recorded."""
    run = Run(settings, device)
    run.whole()
    found = []
    for _ in range(max(steps // QUEUED, 1)):
        clock = _Clock(device)
        run.whole()
        clock.lap()
        found.append(clock.laps[0] / QUEUED)
    return statistics.median(found), run.stepper.recorded


def measure_parts(settings: TrainSettings, device: torch.device, steps: int) -> list[float]:
    run = Run(settings, device)
    run.parts()
    return [statistics.median(column) for column in zip(*(run.parts() for _ in range(steps)), strict=True)]


def configured(args: argparse.Namespace) -> TrainSettings:
    settings = RECIPES[args.recipe]
    return replace(
        settings,
        model=replace(settings.model, width=args.width, size=args.size),
        batch=replace(settings.batch, size=args.batch),
        run=replace(settings.run, precision=args.precision, ema=args.ema, graph="off"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    one_label = [name for name in get_args(RecipeName) if name != "attributes"]
    parser.add_argument("--recipe", choices=one_label, default="scratch")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--size", type=parse_size, default=(128, 64))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--ema", type=float, default=0.0)
    args = parser.parse_args()
    settings, device = configured(args), pick_device(args.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    precision = "bfloat16" if half_precision(settings.run, device) else "float32"
    print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, {precision}")
    print(f"{args.recipe}, width {args.width:g}, {format_size(args.size)}, batch {args.batch}\n")
    print("| part | ms | images/s |\n|---|---|---|")
    labels = ("pixels", "augmentation", "forward and backward", "optimiser")
    for label, seconds in zip(labels, measure_parts(settings, device, args.steps), strict=True):
        print(f"| {label} | {seconds * 1e3:.2f} | |", flush=True)
    for graph in ("off", "auto"):
        chosen = replace(settings, run=replace(settings.run, graph=graph))
        seconds, recorded = measure_whole(chosen, device, args.steps)
        if graph == "off" or recorded:
            label = "recorded" if recorded else "whole step"
            print(f"| {label} | {seconds * 1e3:.2f} | {args.batch / seconds:,.0f} |", flush=True)
        if device.type == "cpu":
            break


def _processor() -> str:
    lines = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return lines[0].partition(":")[2].strip() if lines else "CPU"


if __name__ == "__main__":
    main()
