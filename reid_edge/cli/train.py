"""``reid-edge train``: train a checkpoint on labelled images."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reid_edge.cli.shared_options import SkipBadOption
from reid_edge.console import console, extra, progress_bars, say
from reid_edge.errors import StoppedError, UsageError
from reid_edge.progress import silent

if TYPE_CHECKING:
    from reid_edge.training.run import TrainResult
    from reid_edge.training.settings import TrainSettings


def train(
    recipe: Annotated[
        str | None, typer.Option(help="Recipe: scratch, finetune, cross-domain, mutual, classify or attributes.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset: a name, several joined by +, or mix4 (docs/datasets.md).")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the dataset.")] = None,
    combineall: Annotated[
        bool,
        typer.Option(
            "--combineall",
            help="Train on query and gallery too, without junk and distractors. The model is for other datasets: it "
            "has seen the test people of this one.",
        ),
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept a subset: do not check the number of images.")
    ] = False,
    skip_bad: SkipBadOption = False,
    width: Annotated[
        float | None, typer.Option(help="Width multiplier β: more than 0, at most 1.5. Default: 1.0.")
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(help="Resolution multiplier γ: the input is γ times 256x128. Default: 1.0.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Input size, HEIGHTxWIDTH in pixels. Default: 256x128.")] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Number of epochs; the recipe's stages are scaled to fit. Default: the recipe's.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Images in each training step, over all processes. Default: the recipe's.")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate. Default: the recipe's.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Weights to start from: a reid-edge .safetensors or torchreid .pth.")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            help="Frozen network to learn from: a checkpoint, a finished run's folder, or the features that another "
            "network has of the training images (.npy). May be repeated."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed. Default: 1.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. Default: auto.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings (docs/training.md). Other options override it.")
    ] = None,
    values: Annotated[
        list[str] | None, typer.Option("--set", help="Set any setting: table.key=VALUE. May be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write the run to. Default: ./train-….")] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of an interrupted run to continue.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in --out.")] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0, help="Save the state and stop after so many minutes; --resume continues. Default: no limit."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the complete settings as TOML, and exit.")] = False,
) -> None:
    """Train OSNet on labelled images with a recipe of the OSNet paper, or of its authors' project."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))  # until there is something to save
    with extra("train", "training"):
        from reid_edge.training.resolve import run_name, to_toml
        from reid_edge.training.run import train as run

    if resume is not None and (config is not None or out is not None or force or recipe is not None):
        raise UsageError(
            "--resume FOLDER continues with the run's own settings: leave out --config, --recipe, --out and --force."
        )
    given: dict[str, object] = {
        "data.dataset": dataset,
        "data.root": root and str(root),
        "data.combineall": combineall or None,
        "data.partial": partial or None,
        "data.skip_bad": skip_bad or None,
        "model.width": width,
        "model.size": _size(size, resolution),
        "model.start": start and str(start),
        "distill.teachers": [str(one) for one in teacher] if teacher else None,
        "schedule.epochs": epochs,
        "batch.size": batch,
        "optimiser.learning_rate": lr,
        "run.seed": seed,
        "run.device": device,
    }
    resolved, notes = _resolved(recipe, config, resume, given, values or [])
    if show:
        sys.stdout.write(to_toml(resolved))
        return
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    for note in notes if first else ():
        say(note)
    folder = resume or out or run_name(resolved)
    try:
        with progress_bars() if first else contextlib.nullcontext(silent) as notify:
            result = run(
                resolved, folder, resume=resume is not None, force=force, minutes=minutes, notify=notify, say=say
            )
    except StoppedError as stopped:
        if first:
            say(str(stopped))
        sys.exit(stopped.exit_code)
    if first:
        _report(resolved, result)


def _resolved(
    recipe: str | None, config: Path | None, resume: Path | None, given: dict[str, object], values: list[str]
) -> tuple[TrainSettings, tuple[str, ...]]:
    from reid_edge.settings import assignment, read_settings
    from reid_edge.training.folder import RunFolder, check_resumable
    from reid_edge.training.resolve import GUIDE, resolve

    if resume is not None:
        check_resumable(resume)
        config = RunFolder(resume).config
    tables = {} if config is None else read_settings(config, guide=GUIDE)
    return resolve(recipe, tables, given | dict(assignment(value) for value in values))


def _size(size: str | None, resolution: float | None) -> list[int] | None:
    from reid_edge.osnet.architecture import parse_size, size_of_resolution

    if size is not None and resolution is not None:
        raise UsageError("give --size or --resolution, not both.")
    if size is None and resolution is None:
        return None
    return list(parse_size(size) if size is not None else size_of_resolution(resolution or 0))


def _report(settings: TrainSettings, result: TrainResult) -> None:
    figures = ", ".join(f"{name} {100 * value:.2f}" for name, value in result.metrics.items())
    evaluation = f"held-out {settings.data.dataset}: {figures}" if figures else "nothing was held out for evaluation"
    console.print(f"{evaluation}; trained in {result.seconds:,.0f} s", soft_wrap=True)
    for path in result.best:
        console.print(str(path), soft_wrap=True)
    console.print(f"Next: reid-edge export --checkpoint {shlex.quote(str(result.best[0]))}", soft_wrap=True)
