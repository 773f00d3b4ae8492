"""``reid-edge tune``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reid_edge.bundle import Bundle
from reid_edge.cli.shared_options import DeviceOption, SkipBadOption
from reid_edge.console import console, extra, print_table, progress_bars, say
from reid_edge.errors import TuningError, UsageError
from reid_edge.manifest import EngineName
from reid_edge.tuning_record import Trial
from reid_edge.wording import counted

if TYPE_CHECKING:
    from reid_edge.datasets.labelled_images import LabelledImage, Split
    from reid_edge.osnet.checkpoint import Checkpoint
    from reid_edge.tune.dry_run import DryRunResult


def tune(
    width: Annotated[float | None, typer.Option(help="Width multiplier β of a shipped checkpoint.")] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="A reid-edge .safetensors or torchreid .pth. May be repeated with --latency-ms."),
    ] = None,
    purpose: Annotated[
        Literal["new-site"] | None,
        typer.Option("--for", help="With --width: the shipped checkpoint that 'export --for new-site' takes."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Input size, HEIGHTxWIDTH in pixels. Default: each checkpoint's.")
    ] = None,
    engine: Annotated[
        Literal[EngineName, "cpu"],
        typer.Option(
            help="Engine that will run the bundle. cpu: the fastest of native, OpenVINO and ONNX Runtime; "
            "with --device, the one that has that device."
        ),
    ] = "cpu",
    device: DeviceOption = "CPU",
    objective: Annotated[
        Literal["p50", "p99", "throughput", "energy"],
        typer.Option(help="Optimise median time, 99th percentile, throughput or energy."),
    ] = "p50",
    crops: Annotated[int, typer.Option(min=1, help="People in a frame to tune for.")] = 1,
    latency_ms: Annotated[
        float | None, typer.Option(min=0, help="Choose the most accurate checkpoint that needs at most this time, ms.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Market-1501 folder, to check the mAP. Default: compare features only.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept a subset: do not check the number of images.")
    ] = False,
    max_drop: Annotated[float, typer.Option(min=0, help="Largest loss of mAP, percentage points.")] = 0.5,
    calibration: Annotated[
        str, typer.Option(help="Folder of person crops for INT8, or 'default', which needs none.")
    ] = "default",
    skip_bad: SkipBadOption = False,
    budget_minutes: Annotated[float, typer.Option(min=0.5, help="Approximate time for tuning, minutes.")] = 15,
    out: Annotated[Path | None, typer.Option(help="Folder to write the bundle to. Default: ./osnet_x…_tuned.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Find the fastest bundle for this device that keeps the accuracy.

    It tries precisions, float types, streams, threads and exact rewrites of the network. With --device, it tunes for
    that GPU or NPU.
    """
    with extra("export", "tuning"):
        from reid_edge.osnet.architecture import format_size, parse_size
        from reid_edge.tune.dry_run import dry_run
        from reid_edge.tune.engines import tuning_engines
        from reid_edge.tune.measurement import Objective
        from reid_edge.tune.run import TuneOptions
        from reid_edge.tune.run import tune as run_tuning

    if latency_ms is None and width is None and not checkpoint:
        raise UsageError("give --width β (0.25 ships with reid-edge), --checkpoint FILE, or --latency-ms X.")
    loaded = _checkpoints(width, checkpoint or [], new_site=purpose is not None)
    if size is not None:
        loaded = [replace(one, info=replace(one.info, size=parse_size(size))) for one in loaded]
    first = loaded[0].info
    name = f"osnet_x{first.width:g}_{format_size(first.size)}_tuned".replace(".", "_")
    options = TuneOptions(
        out=out or Path(name if len(loaded) == 1 else "osnet_tuned"),
        engine=engine,
        device=device,
        objective=Objective(goal=objective, crops=crops),
        budget_minutes=budget_minutes,
        latency_ms=latency_ms,
        labelled=None if root is None else readable_labelled(root, partial=partial, skip_bad=skip_bad),
        max_drop=max_drop,
        calibration=None if calibration == "default" else Path(calibration),
        skip_bad=skip_bad,
        force=force,
    )
    reasons = [one.why_untimed() for one in tuning_engines(engine, options.objective.query.crops, device)]
    if reason := " ".join(filter(None, reasons)):
        with progress_bars() as notify:
            results = [one for model in loaded for one in dry_run(model, options, notify)]
        show_dry_run(results)
        built = sum(not one.failure for one in results)
        raise TuningError(f"{built} of {len(results)} plans could be built: {reason}")
    with progress_bars() as notify:
        bundle = run_tuning(loaded, options, notify)
    show_tuning(bundle)
    on_device = "" if device == "CPU" else f" --device {shlex.quote(device)}"
    console.print(f"Next: reid-edge benchmark {shlex.quote(str(bundle.path))}{on_device}", soft_wrap=True)


def _checkpoints(width: float | None, paths: list[Path], *, new_site: bool) -> list[Checkpoint]:
    """Read the checkpoints that were named, the shipped one of a width, or the shipped ones of all widths."""
    from reid_edge.osnet.shipped import find_checkpoint, usual_checkpoints

    if new_site and (width is None or paths):
        raise UsageError("--for new-site chooses a shipped checkpoint: give --width, and no --checkpoint.")
    if paths:
        return [find_checkpoint(path, width, say) for path in paths]
    return usual_checkpoints() if width is None else [find_checkpoint(None, width, new_site=new_site)]


def readable_labelled(root: Path, *, partial: bool, skip_bad: bool) -> dict[Split, list[LabelledImage]]:
    """Read query and gallery, and say which images are left out."""
    from reid_edge.benchmark.embedder import load_splits
    from reid_edge.benchmark.readable import readable_splits
    from reid_edge.images import left_out

    splits = load_splits(root, partial=partial)
    with progress_bars() as notify:
        readable, unreadable = readable_splits(splits, notify, skip_bad=skip_bad)
    if unreadable:
        say(left_out(unreadable, sum(map(len, splits.values()))))
    return readable


def show_dry_run(results: Sequence[DryRunResult]) -> None:
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
        for one in results
    ]
    print_table("Plans", ("candidate", "ONNX MB", "plan MB", "build s", "layers", "outcome"), rows)


def show_tuning(bundle: Bundle) -> None:
    """Print what was tried, what was chosen and what it gains."""
    tuning = bundle.manifest.tuning
    assert tuning is not None
    timed = [trial for trial in tuning.trials if trial.objective is not None]
    rows = [
        [trial.name, trial.heat, f"{trial.objective:.3f}", _interval(trial), trial.outcome, trial.note]
        for trial in sorted(timed, key=lambda trial: (_STAGES.index(trial.heat), trial.objective or 0))
    ]
    print_table(f"{bundle.path}: {tuning.objective}", ("candidate", "stage", "median", "95 %", "outcome", "note"), rows)
    console.print(
        f"{counted(len(tuning.trials) - len(timed), 'more candidate')} failed or left out for lack of time; "
        f"all are in the manifest: reid-edge inspect {shlex.quote(str(bundle.path))} --json",
        soft_wrap=True,
    )
    gains = ", ".join(f"{gain:.2f} times as fast as the {name}" for name, gain in tuning.gains.items())
    kept = ", ".join(f"{name} {value:.4g}" for name, value in tuning.accuracy.items())
    console.print(f"Tuned: {gains}. Kept: {kept}. {tuning.minutes:.1f} minutes.", soft_wrap=True)


#: Only times of the same stage were taken side by side.
_STAGES = ("final", "second stage", "first stage", "")


def _interval(trial: Trial) -> str:
    return "–" if trial.ci_low is None else f"{trial.ci_low:.3f} to {trial.ci_high:.3f}"
