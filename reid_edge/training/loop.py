"""The loop of a run: steps, looks at how it goes, evaluations, and saves."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reid_edge.errors import DivergedError, StoppedError
from reid_edge.osnet.checkpoint import save_checkpoint
from reid_edge.training import distributed
from reid_edge.training.augment import Augmenter
from reid_edge.training.evaluator import Evaluator, Figures, endings, named
from reid_edge.training.folder import RunFolder
from reid_edge.training.model import CheckpointMaker
from reid_edge.training.optimisation import frozen, rate
from reid_edge.training.pixels import PixelSource
from reid_edge.training.run_logger import RunLogger
from reid_edge.training.sampling import numbers, rank_slice
from reid_edge.training.settings import TrainSettings
from reid_edge.training.state import SavedState, save_state
from reid_edge.training.step import Stepper
from reid_edge.training.stopping import CollapseWatch, StopRequest
from reid_edge.training.task import TrainingData

#: Steps between looks at the loss; each waits for the device.
LOOK_STEPS = 50
#: Steps between questions, among several processes, whether one was asked to stop.
ASK_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop joins; made, and refused where it does not fit, before the run's folder is touched.

    Attributes:
        batches: Of an epoch: what a step learns from, over all processes.
        steps_per_epoch: How many batches.
        source: Pixels of the training images.
        evaluator: None where nothing is held out.
    """

    settings: TrainSettings
    folder: RunFolder
    batches: Callable[[int], list[Tensor]]
    steps_per_epoch: int
    training_data: TrainingData
    source: PixelSource
    augmenter: Augmenter
    stepper: Stepper
    evaluator: Evaluator | None
    checkpoint_maker: CheckpointMaker


class Loop:
    """Trains from where ``state`` is to the end.

    Args:
        parts: What is joined.
        state: Where the run is; its progress is changed as it goes.
        stop: Is looked at between steps.
        logger: None in processes that write nothing, all but the first.
        advance: Called after each step.
    """

    def __init__(
        self,
        parts: Parts,
        state: SavedState,
        *,
        stop: StopRequest,
        logger: RunLogger | None,
        advance: Callable[..., object],
    ) -> None:
        self._parts, self._state, self._stop = parts, state, stop
        self._logger, self._advance = logger, advance
        self._settings, self._progress = parts.settings, state.progress
        self._steps_per_epoch = parts.steps_per_epoch
        self._steps = self._steps_per_epoch * parts.settings.schedule.epochs
        self._watch = CollapseWatch(parts.settings.run.collapse_spread)
        self._saved_at = self._time = time.monotonic()

    def run(self) -> None:
        """Train.

        Raises:
            StoppedError: A signal asked for it; the state is saved.
            DivergedError: A loss or a weight is no number; the last good state and checkpoints stay.
            CollapseError: All features are the same; likewise.
            OutputError: A file cannot be written; the one before stays.
        """
        if not self._progress.step:
            self._save()  # also tells, before any work, whether a state can be written here
        for epoch in range(self._progress.step // self._steps_per_epoch, self._settings.schedule.epochs):
            self._epoch(epoch)
        self._progress.finished = True
        self._save()
        if self._logger is not None:
            self._logger.log(f"finished after {self._progress.seconds:,.0f} s; best: {self._progress.figures}")

    def _epoch(self, epoch: int) -> None:
        begun, first = time.monotonic(), self._progress.step - epoch * self._steps_per_epoch
        batches = self._parts.batches(epoch)[first:]
        self._parts.source.prefetch(rank_slice(batch, distributed.rank(), distributed.world()) for batch in batches)
        for number, batch in enumerate(batches, 1):
            self._step(batch)
            if self._progress.step % LOOK_STEPS == 0 or number == len(batches):
                self._look()
            if number == len(batches):
                self._end(epoch, number * self._settings.batch.size / max(time.monotonic() - begun, 1e-9))
            self._pause()

    def _step(self, batch: Tensor) -> None:
        parts, rank, world = self._parts, distributed.rank(), distributed.world()
        own = rank_slice(batch, rank, world)
        pixels = parts.source.batch(own)
        drawn = numbers(self._settings.run.seed, self._progress.step, len(batch), parts.augmenter.columns)
        partners = self._partners(batch, pixels) if parts.augmenter.needs_partner else None
        own_drawn = rank_slice(drawn, rank, world)
        parts.stepper(pixels, parts.training_data.targets[own], own_drawn, partners, self._progress.step)
        self._progress.step += 1
        self._advance()

    def _partners(self, batch: Tensor, pixels: Tensor) -> Tensor:
        """Of each image the one half a batch further: of another identity, also where those stand together."""
        half, world = len(batch) // 2, distributed.world()
        if world == 1:
            return pixels.roll(half, 0)
        return self._parts.source.batch(rank_slice(batch.roll(half), distributed.rank(), world))

    def _pause(self) -> None:
        """Stop, or save, where the time for it has come."""
        step = self._progress.step
        if (distributed.world() == 1 or step % ASK_STEPS == 0) and distributed.any_of(
            bool(self._stop.number), self._parts.stepper.device
        ):
            self._save()
            kept = "its features look collapsed: the state before stays" if self._watch.low else "nothing is lost"
            raise StoppedError(
                f"stopped after step {step:,} of {self._steps:,}; {kept}. Go on with: "
                f"reid-edge train --resume {shlex.quote(str(self._parts.folder.path))}",
                self._stop.number or 15,
            )
        if time.monotonic() - self._saved_at > 60 * self._settings.run.save_minutes:
            self._save()

    def _look(self) -> None:
        """Take note of the means since the last look, and stop if they say that all is lost."""
        progress = self._progress
        steps = progress.step % self._steps_per_epoch or self._steps_per_epoch
        since = steps - progress.summed_steps
        means = self._parts.stepper.read()
        self._refuse_infinite(means)
        for name, mean in means.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + mean * since
        progress.summed_steps = steps
        if not frozen(self._settings.schedule, progress.step - 1, self._steps_per_epoch):
            self._watch.see(means["spread"], progress.step, last=progress.step == self._steps)

    def _end(self, epoch: int, images_per_second: float) -> None:
        """Note an epoch, and evaluate the networks when their time has come."""
        progress, settings = self._progress, self._settings
        last = epoch + 1 == settings.schedule.epochs
        due = last or (settings.run.evaluate_every and (epoch + 1) % settings.run.evaluate_every == 0)
        row = {"epoch": float(epoch + 1), "step": float(progress.step)}
        row["learning_rate"] = rate(
            settings.schedule, settings.optimiser.learning_rate, progress.step - 1, self._steps_per_epoch
        )
        row |= {name: value / progress.summed_steps for name, value in progress.sums.items()}
        progress.sums, progress.summed_steps = {}, 0
        logger = self._logger
        if logger is None:
            return
        figures = self._evaluate() if due else {}
        progress.rows.append(row | figures)
        logger.line(_described(row, figures, settings.schedule.epochs, images_per_second))
        logger.rows(progress.rows, last=last)
        if due:
            self._save()

    def _evaluate(self) -> Figures:
        """Evaluator all networks, and keep those that are better than ever."""
        parts, networks = self._parts, list(self._parts.stepper.evaluated.children())
        self._check_weights()
        found = parts.evaluator(networks) if parts.evaluator else []
        for number, network in enumerate(() if self._watch.low else networks):
            self._keep(number, network, found[number] if found else {})
        return named(found, len(networks))

    def _keep(self, number: int, network: nn.Module, figures: Figures) -> None:
        parts, progress = self._parts, self._progress
        checkpoint = parts.checkpoint_maker.checkpoint(network, figures)
        save_checkpoint(checkpoint, parts.folder.last(number), force=True)
        score = figures[parts.evaluator.best_by] if parts.evaluator else None
        if score is None or score > progress.best[number]:
            save_checkpoint(checkpoint, parts.folder.best(number), force=True)
            progress.best[number] = -math.inf if score is None else score
            end = endings(self._settings.networks)[number]
            progress.figures |= {f"{name}{end}": value for name, value in figures.items()}

    def _save(self) -> None:
        """Save the state, unless it is no good: a good one from before stays."""
        now = time.monotonic()
        self._progress.seconds += now - self._time
        self._saved_at = self._time = now
        if self._logger is None or self._watch.low:
            return
        self._check_weights()
        stepper = self._parts.stepper.state_dict()
        self._refuse_infinite(stepper["sums"])
        save_state(self._parts.folder.state, replace(self._state, stepper=stepper))

    def _check_weights(self) -> None:
        held = self._parts.stepper.models.state_dict().values()
        finite = [tensor.isfinite().all() for tensor in held if tensor.is_floating_point()]
        if not bool(torch.stack(finite).all()):
            self._refuse_infinite({"a weight": math.nan})

    def _refuse_infinite(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"{name} has become {value} by step {self._progress.step:,}: training has diverged. The last good "
                    f"state and checkpoints stay in {self._parts.folder.path}. Start a new run with a lower learning "
                    "rate (--lr), with a warm-up (--set schedule.warmup=5), or with --set run.precision=float32."
                )


def _described(row: dict[str, float], figures: Figures, epochs: int, images_per_second: float) -> str:
    shown = [f"epoch {row['epoch']:.0f}/{epochs}", f"loss {row['loss']:.3f}", f"accuracy {100 * row['accuracy']:.1f}"]
    shown += [f"{name} {100 * value:.2f}" for name, value in figures.items()]
    return "  ".join([*shown, f"rate {row['learning_rate']:.2g}", f"{images_per_second:,.0f} images/s"])
