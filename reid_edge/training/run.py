"""Train: from settings to checkpoints."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reid_edge.errors import TrainingError
from reid_edge.files import write_whole
from reid_edge.osnet.checkpoint import IMAGENET_MEAN, IMAGENET_STD, Checkpoint, tool_versions
from reid_edge.osnet.shipped import find_checkpoint
from reid_edge.progress import Notify, silent
from reid_edge.training import distributed
from reid_edge.training.augment import source_size
from reid_edge.training.curriculum import TrainingInputs, pixel_opener
from reid_edge.training.evaluator import Evaluator
from reid_edge.training.folder import MARK, RunFolder, check_new, check_resumable, claimed
from reid_edge.training.loop import Loop, Parts
from reid_edge.training.model import CheckpointMaker, make_models, variant_options
from reid_edge.training.objective import Objective
from reid_edge.training.pixels import open_pixels, pixel_statistics
from reid_edge.training.resolve import check, from_tables, to_tables, to_toml
from reid_edge.training.run_logger import RunLogger, check_packages
from reid_edge.training.sampling import balanced_batches, check_balance, shuffled_batches
from reid_edge.training.settings import TrainSettings
from reid_edge.training.state import Progress, SavedState, check_data, check_settings, load_state
from reid_edge.training.step import Stepper, half_precision
from reid_edge.training.stopping import StopRequest
from reid_edge.training.task import TrainingData, load_training_data
from reid_edge.training.teachers import Teacher, check_same_teachers, load_teachers
from reid_edge.training.teaching import make_staff
from reid_edge.types import PerChannel
from reid_edge.wording import counted

#: What torch raises when a GPU fails: newer releases have a type of their own; of others the text has a library's name.
_GPU_ERROR: type[RuntimeError] | tuple[()] = getattr(torch, "AcceleratorError", ())
_GPU_WORDS = re.compile("CUDA|CUDNN|CUBLAS|NCCL")


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Result of a run.

    Attributes:
        best: Checkpoint of each network, of the epoch in which it was best.
        metrics: Figures on held-out images, by name; of several networks each with its number.  Empty if nothing was
            held out.
        seconds: Duration of training over all sessions, seconds.
    """

    best: tuple[Path, ...]
    metrics: dict[str, float]
    seconds: float


def train(
    settings: TrainSettings,
    out: Path,
    *,
    resume: bool = False,
    force: bool = False,
    minutes: float | None = None,
    notify: Notify = silent,
    say: Callable[[str], object] = lambda _line: None,
) -> TrainResult:
    """Train as the settings say; under torchrun, as one of several processes that train together.

    Everything that can be checked is checked before the first step.  During training SIGTERM and SIGINT are requests
    to save and stop.

    Args:
        settings: Settings of the run.
        out: Folder of the run (docs/training.md lists its files).
        resume: Go on with the run in ``out``; a finished run is left as it is.
        force: Replace the run in ``out``.
        minutes: Minutes from now after which the run saves its state and stops, as at a SIGTERM; None: no limit.
        notify: Starts a progress bar with a text and a number of steps.
        say: Called with a line for each epoch.

    Raises:
        SettingsError: Values contradict each other, or do not suit this machine.
        DatasetError: The dataset is incomplete, has another layout, or is too small.
        CheckpointError: ``model.start`` cannot be read, or does not fit.
        OutputError: ``out`` cannot be used, or the disk is full.
        ResumeError: ``out`` holds no run that can go on with these settings.
        MissingExtraError: A package of the extra ``train`` is not installed.
        StoppedError: A signal, or the end of the given time, asked for a stop; the run can go on.
        DivergedError: A loss or a weight is no longer finite.
        CollapseError: All features have become the same.
        TrainingError: The GPU has failed.
    """
    check(settings)
    check_packages()
    stop = StopRequest(minutes)
    device = distributed.pick_device(settings.run.device)
    with distributed.joined(device):
        writes = distributed.rank() == 0
        notify, say = (notify, say) if writes else (silent, lambda _line: None)
        folder = RunFolder(out, settings.networks)
        saved = _saved(folder) if resume else None
        settings = _with_precision(settings, device, saved)
        if saved is not None:
            check_settings(saved, settings)
        if saved is None and writes:
            check_new(out, force=force)
        if saved is not None and saved.progress.finished:
            return _result(folder, saved.progress)
        with _gpu_errors(lambda: f"before step {saved.progress.step + 1 if saved else 1:,}", folder, saved=bool(saved)):
            parts, state = _prepare(settings, folder, device, saved, notify, say)
        with claimed(folder, new=not resume) if writes else contextlib.nullcontext():
            _train(parts, state, stop, notify, say if writes else None)
    return _result(folder, state.progress)


def _saved(folder: RunFolder) -> SavedState:
    check_resumable(folder.path)
    return load_state(folder.state)


def _with_precision(settings: TrainSettings, device: torch.device, saved: SavedState | None) -> TrainSettings:
    """Say what ``auto`` stands for: what the run began with, wherever it goes on, since the result depends on it."""
    run = settings.run
    if saved is not None and run.precision == "auto":
        run = from_tables(saved.settings, origin="the saved state").run
    precision: Literal["float32", "bfloat16"] = "bfloat16" if half_precision(run, device) else "float32"
    return replace(settings, run=replace(settings.run, precision=precision))


def _result(folder: RunFolder, progress: Progress) -> TrainResult:
    best = tuple(folder.best(number) for number in range(folder.networks))
    return TrainResult(best=best, metrics=dict(progress.figures), seconds=progress.seconds)


def _prepare(
    settings: TrainSettings,
    folder: RunFolder,
    device: torch.device,
    saved: SavedState | None,
    notify: Notify,
    say: Callable[[str], object],
) -> tuple[Parts, SavedState]:
    training_data = load_training_data(settings)
    if saved is not None:
        check_data(saved, settings, training_data.fingerprint)
    start = find_checkpoint(settings.model.start, None, say) if settings.model.start and saved is None else None
    teachers = load_teachers(settings, training_data, folder.path, start, say)
    if saved is not None:
        check_same_teachers(saved.teachers, teachers)
    taught = [teacher.feature_size for teacher in teachers] if settings.distill.feature else []
    models = make_models(settings, training_data.classes, start, taught)
    if start is not None and start.info.variant != settings.model.variant:
        keep = variant_options(settings.model.variant, start.info.variant)
        say(f"note: the checkpoint to start from has another stem or pooling than this run; to keep it: {keep}")
    batches = _sampler(settings, training_data)
    steps_per_epoch = len(batches(0))
    inputs = _inputs(settings, training_data, device, saved.progress.step // steps_per_epoch if saved else 0, notify)
    state = saved or _begun(
        settings, training_data, teachers, *_statistics(settings, training_data, inputs, start, device)
    )
    staff = make_staff(
        teachers,
        settings,
        training_data,
        folder.teachers,
        normalised_by=(state.mean, state.std),
        device=device,
        half=half_precision(settings.run, device),
        notify=notify,
    )
    rates = None if training_data.positive_rates is None else training_data.positive_rates.to(device)
    stepper = Stepper(
        models,
        Objective(settings, rates),
        inputs.augmenter(state.mean, state.std),
        settings,
        device=device,
        steps_per_epoch=steps_per_epoch,
        staff=staff,
    )
    if saved is not None:
        stepper.load_state_dict(state.stepper)
    parts = Parts(
        settings=settings,
        folder=folder,
        batches=batches,
        steps_per_epoch=steps_per_epoch,
        training_data=training_data,
        inputs=inputs,
        mean=state.mean,
        std=state.std,
        staff=staff,
        stepper=stepper,
        evaluator=_evaluator(settings, training_data, device, state, notify),
        checkpoint_maker=CheckpointMaker(settings, training_data.names, state.mean, state.std, teachers=state.teachers),
    )
    return parts, state


def _inputs(
    settings: TrainSettings, training_data: TrainingData, device: torch.device, epoch: int, notify: Notify
) -> TrainingInputs:
    images = training_data.images
    open_at = pixel_opener(images, settings, device, notify("reading training images", len(images)))
    return TrainingInputs(settings, open_at, device, min(epoch, settings.schedule.epochs - 1))


def _evaluator(
    settings: TrainSettings, training_data: TrainingData, device: torch.device, state: SavedState, notify: Notify
) -> Evaluator | None:
    held_out = training_data.held_out
    if held_out is None:
        return None
    on_image = notify("reading held-out images", len(held_out.images))
    pixels = pixel_opener(held_out.images, settings, device, on_image)(settings.model.size)
    return Evaluator(pixels, held_out.score, settings.model.size, state.mean, state.std)


def _train(
    parts: Parts, state: SavedState, stop: StopRequest, notify: Notify, say: Callable[[str], object] | None
) -> None:
    """Run the loop; ``say`` is None in all processes but the first, which alone writes."""
    if say is not None and parts.staff is not None:
        parts.staff.save(parts.folder.teachers)
    logger = None if say is None else _open_logger(parts, state, say)
    advance = notify("training", parts.settings.schedule.epochs * parts.steps_per_epoch)
    advance(state.progress.step)
    with contextlib.closing(logger) if logger else contextlib.nullcontext(), stop.listening():
        try:
            with _gpu_errors(lambda: f"after step {state.progress.step:,}", parts.folder, saved=True):
                Loop(parts, state, stop=stop, logger=logger, advance=advance).run()
        except TrainingError as error:
            if logger:
                logger.log(f"{type(error).__name__}: {error}")
            raise


@contextlib.contextmanager
def _gpu_errors(when: Callable[[], str], folder: RunFolder, *, saved: bool) -> Iterator[None]:
    """Turn a failure of the GPU inside the block into an error that says how to go on.

    Args:
        when: Returns when it happened, in steps.
        folder: Folder of the run.
        saved: The folder has a state to go on from.

    Raises:
        TrainingError: The GPU, or one of its libraries, has failed.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, _GPU_ERROR) and not _GPU_WORDS.search(str(error)):
            raise
        place = shlex.quote(str(folder.path))
        if saved:
            kept = f"The last saved state and checkpoints stay in {folder.path}. Go on with: "
            next_step = f"{kept}reid-edge train --resume {place}, without a GPU with --device cpu."
        else:
            next_step = "Nothing was written. Start again, without a GPU with --device cpu."
        reason = str(error).partition("\n")[0]
        raise TrainingError(
            f"the GPU failed {when()} ({reason}). {next_step} If its memory was too small, start a new run with a "
            "smaller --batch."
        ) from error


def _open_logger(parts: Parts, state: SavedState, say: Callable[[str], object]) -> RunLogger:
    write_whole(parts.folder.config, f"{MARK}\n\n{to_toml(parts.settings)}".encode())
    figures = parts.evaluator.columns(parts.settings.networks) if parts.evaluator else ()
    logger = RunLogger(parts.folder, figures, step=state.progress.step, say=say)
    logger.log(f"{tool_versions()}, {counted(torch.get_num_threads(), 'thread')}")
    logger.line(_begin_line(parts, state))
    return logger


def _begin_line(parts: Parts, state: SavedState) -> str:
    training_data, steps = parts.training_data, parts.steps_per_epoch
    text = (
        f"{counted(len(training_data.targets), 'image')}, {counted(training_data.classes, 'class', 'classes')}, "
        f"{counted(steps, 'step')} an epoch, "
        f"{parts.settings.run.precision} on {parts.stepper.device.type}"
    )
    if state.progress.step:
        text = f"going on after step {state.progress.step:,}; {text}"
        if state.torch_version != str(torch.__version__):
            text += f"; begun with torch {state.torch_version}, now {torch.__version__}: results may differ by rounding"
    return text


def _begun(
    settings: TrainSettings,
    training_data: TrainingData,
    teachers: tuple[Teacher, ...],
    mean: PerChannel,
    std: PerChannel,
) -> SavedState:
    return SavedState(
        settings=to_tables(settings),
        data=training_data.fingerprint,
        torch_version=str(torch.__version__),
        mean=mean,
        std=std,
        teachers=tuple(teacher.sha256 for teacher in teachers),
        progress=Progress(best=[float("-inf")] * settings.networks),
        stepper={},
    )


def _sampler(settings: TrainSettings, training_data: TrainingData) -> Callable[[int], list[Tensor]]:
    """Return the function that draws an epoch's batches; refuse here, or at its first call, what cannot be drawn."""
    size, instances, seed = settings.batch.size, settings.batch.instances, settings.run.seed
    count, start = len(training_data.targets), settings.balanced_start
    if instances is None or start is None:
        return lambda epoch: shuffled_batches(count, size, seed=seed, epoch=epoch)
    identities = training_data.targets.tolist()
    names = None if isinstance(training_data.images, np.ndarray) else training_data.images
    check_balance(identities, size, instances, names=names)

    def batches(epoch: int) -> list[Tensor]:
        if epoch < start:
            return shuffled_batches(count, size, seed=seed, epoch=epoch)
        return balanced_batches(identities, size, instances, seed=seed, epoch=epoch)

    return batches


def _statistics(
    settings: TrainSettings,
    training_data: TrainingData,
    inputs: TrainingInputs,
    start: Checkpoint | None,
    device: torch.device,
) -> tuple[PerChannel, PerChannel]:
    """Return mean and standard deviation of the input; those of the dataset are measured at the network's size."""
    if settings.model.statistics == "dataset":
        if inputs.size == settings.model.size:
            return pixel_statistics(inputs.source)
        size = source_size(settings.augment, settings.model.size)
        return pixel_statistics(open_pixels(training_data.images, size, device, memory_bytes=0))
    return (IMAGENET_MEAN, IMAGENET_STD) if start is None else (start.info.mean, start.info.std)
