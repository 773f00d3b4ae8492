"""Train variants of one recipe on the same budget, and print a table of their figures on held-out people.

    python models/compare.py models/ablation.toml --root MARKET1501 --out DIR [--minutes 150] [--seeds 1,2]
    python models/compare.py models/own_people.toml --root MARKET1501 --out DIR --start START.safetensors

The file holds settings of `reid-edge train` (docs/training.md) that all variants share, and a table `[variants."NAME"]`
of settings for each.  The test split is never read: figures are of the identities that `data.validation` holds out of
the train split, at the last epoch.  Each variant is a run in a folder of its own below --out; Ctrl-C, SIGTERM or the
end of --minutes saves, and the same command goes on with what is left.  --only NAME chooses variants.
"""

from __future__ import annotations

import argparse
import csv
import math
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid_edge.system.threads import configure_openmp

configure_openmp()

import torch

from reid_edge.console import console, progress_bars, run_script
from reid_edge.errors import SettingsError
from reid_edge.osnet.shipped import find_checkpoint
from reid_edge.settings import assignment, flattened, read_settings
from reid_edge.training.curriculum import pixel_opener
from reid_edge.training.evaluator import Evaluator
from reid_edge.training.folder import RunFolder
from reid_edge.training.model import make_models
from reid_edge.training.resolve import resolve
from reid_edge.training.run import train
from reid_edge.training.settings import TrainSettings
from reid_edge.training.state import load_state
from reid_edge.training.task import load_training_data

#: Row of the network that all variants start from.
BEFORE = "before"


@dataclass(frozen=True)
class Result:
    """Figures of a variant.

    Attributes:
        figures: In [0, 1] by name, of each seed.
        seconds: Duration of training, over all seeds.
    """

    figures: tuple[dict[str, float], ...]
    seconds: float


def main() -> None:
    """Train what is not done yet, and print the table."""
    arguments = parsed()
    plans = variants(arguments)
    end = math.inf if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    results: dict[str, Result] = {}
    before = figures_before(next(iter(plans.values()))[0])
    if before:
        results[BEFORE] = Result((before,), 0.0)
    try:
        for name, runs in plans.items():
            results[name] = trained(name, runs, arguments.out, end)
    finally:
        if results:
            text = table(results)
            sys.stdout.write(text)
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / "table.md").write_text(text, encoding="utf-8")


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", type=Path, help="TOML file of settings and variants")
    parser.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of table.md")
    parser.add_argument("--start", type=Path, help="checkpoint that all variants start from")
    parser.add_argument("--teacher", type=Path, action="append", help="teacher of the variants with `teach = true`")
    parser.add_argument("--minutes", type=float, help="save and stop after so many; the same command goes on")
    parser.add_argument("--seeds", default="1", help="e.g. 1,2: each variant is trained with each")
    parser.add_argument("--only", action="append", help="name of a variant; may be repeated")
    parser.add_argument("--set", action="append", dest="values", default=[], help="table.key=VALUE, for all variants")
    return parser.parse_args()


def variants(arguments: argparse.Namespace) -> dict[str, list[TrainSettings]]:
    """Return the settings of each variant's runs, one a seed; all are checked before any work.

    Raises:
        SettingsError: There are no variants, or none of a name that was asked for, or their settings are not valid.
    """
    tables = read_settings(arguments.variants, guide="docs/training.md")
    found = tables.pop("variants", None)
    if not isinstance(found, dict) or not found:
        raise SettingsError(f"{arguments.variants} has no variants; give each a table, e.g. [variants.plain].")
    if missing := [name for name in arguments.only or () if name not in found]:
        raise SettingsError(f"no variant {', '.join(missing)}; {arguments.variants} has {', '.join(found)}.")
    common = {"data.root": str(arguments.root), "model.start": arguments.start and str(arguments.start)}
    common |= dict(assignment(value) for value in arguments.values)
    plans: dict[str, list[TrainSettings]] = {}
    told: set[str] = set()
    for name, changes in found.items():
        if arguments.only and name not in arguments.only:
            continue
        given = flattened(changes)
        if given.pop("teach", False):
            if not arguments.teacher:
                console.print(f"{name}: left out, since no --teacher is given", soft_wrap=True)
                continue
            given["distill.teachers"] = [str(teacher) for teacher in arguments.teacher]
        seeds = [int(seed) for seed in arguments.seeds.split(",")]
        resolved = [resolve(None, tables, common | given | {"run.seed": seed}) for seed in seeds]
        plans[name] = [settings for settings, _ in resolved]
        for note in resolved[0][1]:
            if note not in told:  # what all variants share is told once
                console.print(f"{name}: {note}", soft_wrap=True)
            told.add(note)
    if not plans:
        raise SettingsError("every variant needs a teacher; give --teacher CHECKPOINT.")
    return plans


def figures_before(settings: TrainSettings) -> dict[str, float]:
    """Return the figures of the network that the variants start from, as it is; empty without one."""
    if settings.model.start is None:
        return {}
    training_data, checkpoint = load_training_data(settings), find_checkpoint(settings.model.start, None)
    held_out, info, cpu = training_data.held_out, checkpoint.info, torch.device("cpu")
    if held_out is None:
        return {}
    source = pixel_opener(held_out.images, settings, cpu, lambda _count: None)(settings.model.size)
    models = make_models(settings, training_data.classes, checkpoint)
    return Evaluator(source, held_out.score, settings.model.size, info.mean, info.std)(list(models))[0]


def trained(name: str, runs: Sequence[TrainSettings], out: Path, end: float) -> Result:
    """Train a variant's runs, or go on with them, until a time of the monotonic clock.

    Raises:
        StoppedError: A signal, or the end of the time, asked for a stop.
        ReidEdgeError: As training raises.
    """
    figures, seconds = [], 0.0
    for settings in runs:
        folder = out / f"{re.sub(r'[^a-z0-9.]+', '-', name.lower()).strip('-')}-seed{settings.run.seed}"
        begun = RunFolder(folder).state.is_file()
        left = None if end == math.inf else max(0.0, end - time.monotonic()) / 60
        console.print(f"{name}, seed {settings.run.seed}", soft_wrap=True)
        with progress_bars() as notify:
            done = train(
                settings, folder, resume=begun, force=not begun, minutes=left, notify=notify, say=console.print
            )
        figures.append(last_figures(folder))
        seconds += done.seconds
    return Result(tuple(figures), seconds)


def last_figures(folder: Path) -> dict[str, float]:
    """Return the figures of a finished run's last epoch."""
    rows: list[dict[str, Any]] = load_state(RunFolder(folder).state).progress.rows
    with RunFolder(folder).metrics.open(encoding="utf-8") as file:
        columns = csv.DictReader(file).fieldnames or []
    known = [name for name in ("mAP", "R1", "mAP-both", "R1-both", "mAP-1", "R1-1", "top1", "mA") if name in columns]
    return {name: float(rows[-1][name]) for name in known}


def table(results: dict[str, Result]) -> str:
    """Format results as Markdown: per cent, means over the seeds with their range."""
    names = list(dict.fromkeys(name for result in results.values() for one in result.figures for name in one))
    lines = [f"| variant | {' | '.join(names)} | seeds | minutes |", "|---" * (len(names) + 3) + "|"]
    for variant, result in results.items():
        cells = [_mean(name, result.figures) for name in names]
        minutes = f"{result.seconds / 60:.0f}" if result.seconds else "–"
        lines.append(f"| {variant} | {' | '.join(cells)} | {len(result.figures)} | {minutes} |")
    return "\n".join(lines) + "\n"


def _mean(name: str, figures: Sequence[dict[str, float]]) -> str:
    values = [100 * one[name] for one in figures if name in one]
    if not values:
        return "–"
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.1f}{spread}"


if __name__ == "__main__":
    run_script(main)
