"""The training loop: steps, checks of the loss, evaluations, and saves."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reid_edge.errors import DivergedError, StoppedError
from reid_edge.osnet.architecture import format_size
from reid_edge.osnet.checkpoint import save_checkpoint
from reid_edge.training import distributed
from reid_edge.training.curriculum import TrainingInputs
from reid_edge.training.evaluator import Evaluator, Figures, endings, named
from reid_edge.training.folder import RunFolder
from reid_edge.training.model import CheckpointMaker
from reid_edge.training.optimisation import frozen, rate
from reid_edge.training.run_logger import RunLogger
from reid_edge.training.sampling import numbers, rank_slice
from reid_edge.training.settings import TrainSettings
from reid_edge.training.state import SavedState, save_state
from reid_edge.training.step import Stepper
from reid_edge.training.stopping import CollapseWatch, StopRequest
from reid_edge.training.task import TrainingData
from reid_edge.training.teaching import TeachingStaff
from reid_edge.types import PerChannel

#: Steps between checks of the loss; each check waits for the device.
CHECK_STEPS = 50
#: Steps after which several processes agree on whether one of them was asked to stop.
STOP_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a run that the loop uses; they are made and checked before the run's folder is touched.

    Attributes:
        settings: The run's settings.
        folder: Folder of the run.
        batches: Returns the batches of an epoch, as indices of training images, over all processes.
        steps_per_epoch: Number of batches of an epoch.
        training_data: Training images with their targets.
        inputs: Pixels of the training images, at the size of the epoch.
        mean: Mean that the input is normalised with, RGB, full scale = 1.
        std: Standard deviation that it is normalised with, likewise.
        staff: Teachers of the run; None: there are none.
        stepper: Takes the optimisation steps.
        evaluator: Evaluates models on held-out images; None if nothing is held out.
        checkpoint_maker: Makes checkpoints of models.
    """

    settings: TrainSettings
    folder: RunFolder
    batches: Callable[[int], list[Tensor]]
    steps_per_epoch: int
    training_data: TrainingData
    inputs: TrainingInputs
    mean: PerChannel
    std: PerChannel
    staff: TeachingStaff | None
    stepper: Stepper
    evaluator: Evaluator | None
    checkpoint_maker: CheckpointMaker


class Loop:
    """Trains from a state to the end of the run.

    Args:
        parts: Parts of the run.
        state: State to start from; its progress is updated in place.
        stop: Request to stop, checked between steps.
        logger: Logger of the first process; None in all others, which write nothing.
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
        """Train to the end.

        Raises:
            StoppedError: A signal, or the end of the given time, asked for a stop; the state is saved.
            DivergedError: A loss or a weight is not finite; the last good state and checkpoints stay.
            CollapseError: All features have become the same; the last good state and checkpoints stay.
            OutputError: A file cannot be written; its previous version stays.
        """
        if not self._progress.step:
            self._save()  # fails before any work if no state can be written here
        for epoch in range(self._progress.step // self._steps_per_epoch, self._settings.schedule.epochs):
            self._epoch(epoch)
        self._progress.finished = True
        self._save()
        if self._logger is not None:
            self._logger.log(f"finished after {self._progress.seconds:,.0f} s; best: {self._progress.figures}")

    def _epoch(self, epoch: int) -> None:
        begun, first = time.monotonic(), self._progress.step - epoch * self._steps_per_epoch
        batches = self._parts.batches(epoch)[first:]
        self._enter_size(epoch)
        self._parts.inputs.source.prefetch(
            rank_slice(batch, distributed.rank(), distributed.world()) for batch in batches
        )
        for number, batch in enumerate(batches, 1):
            self._step(batch)
            if self._progress.step % CHECK_STEPS == 0 or number == len(batches):
                self._check()
            if number == len(batches):
                self._end_epoch(epoch, number * self._settings.batch.size / max(time.monotonic() - begun, 1e-9))
            self._stop_or_save()

    def _enter_size(self, epoch: int) -> None:
        """Go on to the epoch's input size, if it is another one."""
        parts = self._parts
        if parts.inputs.enter(epoch):
            parts.stepper.augment_with(parts.inputs.augmenter(parts.mean, parts.std))
            if self._logger is not None:
                self._logger.line(f"from epoch {epoch + 1} on the input is {format_size(parts.inputs.size)}")

    def _step(self, batch: Tensor) -> None:
        parts, rank, world = self._parts, distributed.rank(), distributed.world()
        own = rank_slice(batch, rank, world)
        augmenter, pixels = parts.stepper.augmenter, parts.inputs.source.batch(own)
        drawn = numbers(self._settings.run.seed, self._progress.step, len(batch), augmenter.columns)
        partners = self._partners(batch, pixels) if augmenter.needs_partner else None
        own_drawn = rank_slice(drawn, rank, world)
        known = parts.staff.known(own) if parts.staff else None
        parts.stepper(pixels, parts.training_data.targets[own], own_drawn, partners, self._progress.step, known)
        self._progress.step += 1
        self._advance()

    def _partners(self, batch: Tensor, pixels: Tensor) -> Tensor:
        """Return for each image the one half a batch further, of another identity even in balanced batches."""
        half, world = len(batch) // 2, distributed.world()
        if world == 1:
            return pixels.roll(half, 0)
        return self._parts.inputs.source.batch(rank_slice(batch.roll(half), distributed.rank(), world))

    def _stop_or_save(self) -> None:
        """Stop if a signal, or the end of the given time, asks for it; save if ``run.save_minutes`` have passed."""
        step = self._progress.step
        if (distributed.world() == 1 or step % STOP_STEPS == 0) and distributed.any_of(
            self._stop.made, self._parts.stepper.device
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

    def _check(self) -> None:
        """Add up the means since the last check; stop if they are not finite or show a collapse."""
        progress = self._progress
        steps = progress.step % self._steps_per_epoch or self._steps_per_epoch
        since = steps - progress.summed_steps
        means = self._parts.stepper.read()
        self._refuse_not_finite(means)
        for name, mean in means.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + mean * since
        progress.summed_steps = steps
        if not frozen(self._settings.schedule, progress.step - 1, self._steps_per_epoch):
            self._watch.check(means["spread"], progress.step, last=progress.step == self._steps)

    def _end_epoch(self, epoch: int, images_per_second: float) -> None:
        """Log an epoch; evaluate the networks, and save, if an evaluation is due."""
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
        """Evaluate all networks, and save the checkpoints of those that are better than before."""
        parts, networks = self._parts, list(self._parts.stepper.evaluated.children())
        self._check_weights()
        found = parts.evaluator(networks) if parts.evaluator else []
        for number, network in enumerate(() if self._watch.low else networks):
            self._save_checkpoints(number, network, found[number] if found else {})
        return named(found, len(networks))

    def _save_checkpoints(self, number: int, network: nn.Module, figures: Figures) -> None:
        parts, progress = self._parts, self._progress
        checkpoint = parts.checkpoint_maker.checkpoint(network, figures, steps=progress.step)
        save_checkpoint(checkpoint, parts.folder.last(number), force=True)
        score = figures[parts.evaluator.best_by] if parts.evaluator else None
        if score is None or score > progress.best[number]:
            save_checkpoint(checkpoint, parts.folder.best(number), force=True)
            progress.best[number] = -math.inf if score is None else score
            end = endings(self._settings.networks)[number]
            progress.figures |= {f"{name}{end}": value for name, value in figures.items()}

    def _save(self) -> None:
        """Save the state, unless its features look collapsed: then the last good state stays."""
        now = time.monotonic()
        self._progress.seconds += now - self._time
        self._saved_at = self._time = now
        if self._logger is None or self._watch.low:
            return
        self._check_weights()
        stepper = self._parts.stepper.state_dict()
        self._refuse_not_finite(stepper["sums"])
        save_state(self._parts.folder.state, replace(self._state, stepper=stepper))

    def _check_weights(self) -> None:
        tensors = self._parts.stepper.models.state_dict().values()
        finite = [tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point()]
        if not bool(torch.stack(finite).all()):
            self._refuse_not_finite({"a weight": math.nan})

    def _refuse_not_finite(self, values: dict[str, float]) -> None:
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
