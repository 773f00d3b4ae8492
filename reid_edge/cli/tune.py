"""``reid-edge tune``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reid_edge.bundle import Bundle
from reid_edge.console import console, extra, print_table, progress_bars
from reid_edge.errors import TuningError, UsageError
from reid_edge.tuning_record import Trial

if TYPE_CHECKING:
    from reid_edge.tune.rehearsal import Rehearsed


def tune(
    width: Annotated[float | None, typer.Option(help="Width multiplier β of a checkpoint that ships.")] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A reid-edge .safetensors or torchreid .pth; several with --latency-ms.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Input HEIGHTxWIDTH; each checkpoint's own if not given.")] = None,
    engine: Annotated[
        Literal["openvino", "onnxruntime", "tensorrt"], typer.Option(help="What will run the bundle.")
    ] = "openvino",
    objective: Annotated[
        Literal["p50", "p99", "throughput", "energy"], typer.Option(help="What to minimise (throughput: maximise).")
    ] = "p50",
    crops: Annotated[int, typer.Option(min=1, help="People in a frame.")] = 1,
    latency_ms: Annotated[
        float | None, typer.Option(min=0, help="Take the most accurate checkpoint that is as fast as this.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Market-1501 folder: keep the mAP on it; else features must agree.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="The folder holds a part of the dataset.")] = False,
    max_drop: Annotated[float, typer.Option(min=0, help="Points of mAP that may be lost, of 100.")] = 0.5,
    calibration: Annotated[str, typer.Option(help="Folder of person crops, or 'default': needs none.")] = "default",
    budget_minutes: Annotated[float, typer.Option(min=0.5, help="About how long tuning may take.")] = 15,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; ./osnet_x…_tuned if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Make the bundle that is fastest on this device: exact rewrites, INT8 and float by block, threads, batches."""
    with extra("export", "tuning"):
        from reid_edge.benchmark.accuracy import load_splits
        from reid_edge.osnet.architecture import format_size, parse_size
        from reid_edge.osnet.shipped import find_checkpoint, shipped_checkpoints
        from reid_edge.tune.engines import tuning_engine
        from reid_edge.tune.objective import Objective
        from reid_edge.tune.rehearsal import rehearse
        from reid_edge.tune.run import TuneOptions
        from reid_edge.tune.run import tune as run_tuning

    if latency_ms is None and width is None and not checkpoint:
        raise UsageError("give --width β (0.25 ships with reid-edge), --checkpoint FILE, or --latency-ms X.")
    if checkpoint:
        loaded = [find_checkpoint(path, width) for path in checkpoint]
    else:
        loaded = [find_checkpoint(None, width)] if width is not None else shipped_checkpoints()
    if size is not None:
        loaded = [replace(one, info=replace(one.info, size=parse_size(size))) for one in loaded]
    first = loaded[0].info
    name = f"osnet_x{first.width:g}_{format_size(first.size)}_tuned".replace(".", "_")
    options = TuneOptions(
        out=out or Path(name if len(loaded) == 1 else "osnet_tuned"),
        engine=engine,
        objective=Objective(goal=objective, crops=crops),
        budget_minutes=budget_minutes,
        latency_ms=latency_ms,
        labelled=load_splits(root, partial=partial) if root is not None else None,
        max_drop=max_drop,
        calibration=None if calibration == "default" else Path(calibration),
        force=force,
    )
    if reason := tuning_engine(engine, options.objective.query.crops).why_untimed():
        with progress_bars() as notify:
            rehearsed = [one for model in loaded for one in rehearse(model, options, notify)]
        show_rehearsal(rehearsed)
        built = sum(not one.failure for one in rehearsed)
        raise TuningError(f"{built} of {len(rehearsed)} plans could be built: {reason}")
    with progress_bars() as notify:
        bundle = run_tuning(loaded, options, notify)
    show_tuning(bundle)
    console.print(f"Next: reid-edge benchmark {shlex.quote(str(bundle.path))}", soft_wrap=True)


def show_rehearsal(rehearsed: Sequence[Rehearsed]) -> None:
    """Print what was built and not timed."""
    rows = [
        [
            one.name,
            "–" if one.onnx_bytes is None else f"{one.onnx_bytes / 1e6:.2f}",
            "–" if one.plan_bytes is None else f"{one.plan_bytes / 1e6:.2f}",
            "–" if one.seconds is None else f"{one.seconds:.1f}",
            "–" if one.layers is None else f"{one.layers:,}",
            one.failure or "built, not timed: no GPU here",
        ]
        for one in rehearsed
    ]
    print_table("Plans", ("form", "ONNX MB", "plan MB", "build s", "layers", "outcome"), rows)


def show_tuning(bundle: Bundle) -> None:
    """Print what was tried, what was chosen and what it gains."""
    tuning = bundle.manifest.tuning
    assert tuning is not None
    timed = [trial for trial in tuning.trials if trial.objective is not None]
    rows = [
        [trial.name, trial.heat, f"{trial.objective:.3f}", _interval(trial), trial.outcome, trial.note]
        for trial in sorted(timed, key=lambda trial: (_HEATS.index(trial.heat), trial.objective or 0))
    ]
    print_table(f"{bundle.path}: {tuning.objective}", ("form", "heat", "median", "95 %", "outcome", "note"), rows)
    console.print(
        f"{len(tuning.trials) - len(timed)} more forms were left out by their layers' times, failed, or found no time; "
        f"all stand in the manifest: reid-edge inspect {shlex.quote(str(bundle.path))} --json",
        soft_wrap=True,
    )
    gains = ", ".join(f"{gain:.2f} times as fast as the {name}" for name, gain in tuning.gains.items())
    kept = ", ".join(f"{name} {value:.4g}" for name, value in tuning.accuracy.items())
    console.print(f"Tuned: {gains}. Kept: {kept}. {tuning.minutes:.1f} minutes.", soft_wrap=True)


#: Only times of the same heat were taken side by side.
_HEATS = ("final", "second heat", "first heat", "")


def _interval(trial: Trial) -> str:
    return "–" if trial.ci_low is None else f"{trial.ci_low:.3f} to {trial.ci_high:.3f}"
