"""Train the checkpoints that ship, from random weights to files, cards and calibration sets.

    python models/train_shipped.py --root MARKET1501 --out DIR [--widths 0.25,1.0] [--install]

For each width (0.25, 0.5, 0.75 and 1.0 if none are given) by the recipe in shipped.toml:

1. DIR/x0_25/validated: trained without the last 100 identities of the train split, evaluated on them.  The test split
   is never read, here or below.
2. DIR/x0_25/whole: the same again on all 751 identities; this is what ships (--keep-held-out: ship the first instead).
3. DIR/models/*.safetensors in half precision, a card beside it, and DIR/calibration/*.npz.

--install copies these into the repository: models/, the cards in models/README.md, calibration/; `export --width` takes
them from there.  Ctrl-C or SIGTERM saves; the same command goes on.  To compare recipes give each its own --config and
--out, and --validate-only.  A try without a GPU, in minutes:

    python models/train_shipped.py --root MARKET1501 --out DIR --widths 0.25 --epochs 1 --identities 20 --size 64x32
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from reid_edge.system.threads import configure_openmp

configure_openmp()

import msgspec
import torch

from reid_edge.console import console, error_console, progress_bars
from reid_edge.errors import OutputError, ReidEdgeError, StoppedError
from reid_edge.export.calibration import shipped_name
from reid_edge.osnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from reid_edge.osnet.complexity import complexity
from reid_edge.settings import read_settings
from reid_edge.training.folder import RunFolder
from reid_edge.training.resolve import resolve, to_tables
from reid_edge.training.run import train
from reid_edge.training.settings import TrainSettings
from reid_edge.training.task import load_training_data

HERE = Path(__file__).parent
DATASET = "market1501"
#: Rounding weights to float16 turns a feature by less than this, or something is wrong.
LOWEST_COSINE = 0.999


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A run that is done.

    Attributes:
        settings: What was trained.
        checkpoint: Of its last epoch.
        seconds: Of training, over all sessions.
        device: What trained.
        day: When it was done, UTC.
    """

    settings: TrainSettings
    checkpoint: Checkpoint
    seconds: float
    device: str
    day: str


def main() -> None:
    """Do everything that is not done yet."""
    arguments = parsed()
    plans = {width: configurations(arguments, width) for width in arguments.widths}
    made = []
    for width, (validated, whole) in plans.items():
        name = f"x{width:g}".replace(".", "_")
        evaluated = run(validated, arguments.out / name / "validated")
        if not arguments.validate_only:
            shipped = evaluated if arguments.keep_held_out else run(whole, arguments.out / name / "whole")
            made.append(arguments.out / "models" / f"osnet_{name}_{DATASET}.safetensors")
            ship(evaluated, shipped, made[-1])
    if made:
        calibrate(made, arguments.out / "calibration")
    if arguments.install:
        install(made, arguments.out / "calibration", HERE.parent)


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="Market-1501; only its train split is read")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of what they make")
    parser.add_argument("--config", type=Path, default=HERE / "shipped.toml", help="the recipe")
    parser.add_argument("--widths", type=_numbers, default=(0.25, 0.5, 0.75, 1.0), help="e.g. 0.25,1.0")
    parser.add_argument("--seed", type=int, help="the recipe's if not given")
    parser.add_argument("--validation", type=int, default=100, help="identities held out of the first run")
    parser.add_argument("--validate-only", action="store_true", help="train and evaluate, ship nothing")
    parser.add_argument("--keep-held-out", action="store_true", help="ship what was evaluated; do not train on all")
    parser.add_argument("--install", action="store_true", help="copy what was made into this repository")
    trial = parser.add_argument_group("for a try")
    trial.add_argument("--epochs", type=int)
    trial.add_argument("--identities", type=int, help="train on so many only")
    trial.add_argument("--size", help="input HEIGHTxWIDTH")
    trial.add_argument("--device", choices=("auto", "cpu", "cuda"))
    trial.add_argument("--partial", action="store_true", help="a subset of Market-1501: do not check its counts")
    arguments = parser.parse_args()
    tried = [f"--{name}" for name in ("epochs", "identities", "size", "partial") if getattr(arguments, name)]
    if arguments.install and (tried or arguments.validate_only):
        parser.error(f"--install is for real checkpoints, not with {' '.join(tried) or '--validate-only'}")
    return arguments


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def configurations(arguments: argparse.Namespace, width: float) -> tuple[TrainSettings, TrainSettings]:
    """Return the settings of the run that is evaluated, and of the run on all identities."""
    tables = read_settings(arguments.config, guide="docs/training.md")
    given = {
        "data.dataset": DATASET,
        "data.root": str(arguments.root),
        "data.identities": arguments.identities,
        "data.partial": arguments.partial or None,
        "model.width": width,
        "model.size": arguments.size,
        "schedule.epochs": arguments.epochs,
        "run.seed": arguments.seed,
        "run.device": arguments.device,
    }
    evaluated, whole = (
        resolve(None, tables, given | {"data.validation": held})[0] for held in (arguments.validation, 0)
    )
    return evaluated, whole


def run(settings: TrainSettings, folder: Path) -> Run:
    """Train, or go on with it, or remember that it is done.

    Raises:
        ReidEdgeError: As training raises; also if what is there was begun by another recipe.
    """
    begun = RunFolder(folder).state.is_file()
    with progress_bars() as notify:
        result = train(settings, folder, resume=begun, force=not begun, notify=notify, say=console.print)
    note = folder.with_name(f"{folder.name}.json")
    if not note.is_file():
        day = datetime.now(timezone.utc).date().isoformat()
        note.write_bytes(msgspec.json.encode({"device": device_name(settings), "day": day}))
    checkpoint = load_checkpoint(RunFolder(folder, settings.networks).last(0))
    figures = figures_text(checkpoint.info.metrics)
    console.print(f"{folder}: {figures or 'nothing held out'}; {minutes(result.seconds)} of training", soft_wrap=True)
    noted = msgspec.json.decode(note.read_bytes(), type=dict[str, str])
    return Run(settings=settings, checkpoint=checkpoint, seconds=result.seconds, **noted)


def device_name(settings: TrainSettings) -> str:
    """Return the name of the device that trains."""
    if settings.run.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def ship(evaluated: Run, shipped: Run, out: Path) -> None:
    """Write a run's checkpoint in half precision, with a card beside it."""
    training_data = load_training_data(shipped.settings)
    training = to_tables(shipped.settings)
    training["data"]["root"] = "."  # paths of this machine are not published
    info = dataclasses.replace(
        shipped.checkpoint.info,
        dataset=f"Market-1501 train split ({training_data.classes} identities, {len(training_data.images):,} images; "
        "research only)",
        recipe=recipe_text(shipped.settings),
        metrics=_metrics(evaluated, shipped),
        training=training,
    )
    save_checkpoint(dataclasses.replace(shipped.checkpoint, info=info), out, force=True, half=True)
    halved = load_checkpoint(out)
    cosine = lowest_cosine(shipped.checkpoint, halved)
    if not cosine >= LOWEST_COSINE:
        out.unlink()
        raise OutputError(
            f"half precision turns a feature of {out.name} to a cosine of {cosine:.5f}, expected at least "
            f"{LOWEST_COSINE}; ship this network in full precision."
        )
    out.with_suffix(".md").write_text(card(halved, out.name, evaluated, shipped), encoding="utf-8")
    console.print(f"{out}: {out.stat().st_size:,} bytes, cosine to full precision ≥ {cosine:.6f}", soft_wrap=True)


def _metrics(evaluated: Run, shipped: Run) -> dict[str, float]:
    """Return the figures, marked as a twin's if the shipped weights were trained on the held-out people too."""
    if evaluated is shipped:
        return evaluated.checkpoint.info.metrics
    figures = ((name.rpartition("/"), value) for name, value in evaluated.checkpoint.info.metrics.items())
    return {f"{held_out} (a twin's)/{name}": value for (held_out, _, name), value in figures}


@torch.inference_mode()
def lowest_cosine(first: Checkpoint, second: Checkpoint) -> float:
    """Lowest cosine between the features that two checkpoints make of the same smooth noise."""
    coarse = torch.randn(16, 3, 8, 4, generator=torch.Generator().manual_seed(0))
    pixels = torch.nn.functional.interpolate(coarse, first.info.size, mode="bilinear")
    cosines = torch.nn.functional.cosine_similarity(first.network()(pixels), second.network()(pixels))
    return float(cosines.min())


def recipe_text(settings: TrainSettings) -> str:
    """A line on how it was trained; the checkpoint's ``training`` has every value."""
    loss, augment, schedule, batch = settings.loss, settings.augment, settings.schedule, settings.batch
    margin = "soft margin" if loss.triplet_margin is None else f"margin {loss.triplet_margin:g}"
    warmup = f" after {schedule.warmup} of warm-up" if schedule.warmup else ""
    parts = [
        f"from scratch: {schedule.epochs} {'epoch' if schedule.epochs == 1 else 'epochs'}, "
        f"{settings.optimiser.name} {settings.optimiser.learning_rate:g} {schedule.kind}{warmup}",
        f"batch {batch.size}" + (f" of {batch.instances} images a person" if batch.instances else ""),
        f"label smoothing {loss.smoothing:g}",
    ]
    if loss.triplet:
        parts.append(f"hard triplet ×{loss.triplet:g}, {margin}, from epoch {loss.triplet_start}")
    if loss.mutual:
        parts.append(f"mutual learning of two networks ×{loss.mutual:g}, the first one kept")
    named = ("flip", "translate", "patch", "erase", "brightness", "contrast", "saturation", "hue")
    parts += [f"{name} {value:g}" for name in named if (value := getattr(augment, name))]
    if settings.run.ema:
        parts.append(f"averaged weights, decay {settings.run.ema:g}")
    return ", ".join(parts)


def card(checkpoint: Checkpoint, name: str, evaluated: Run, shipped: Run) -> str:
    """Write a checkpoint's section of models/README.md.

    Args:
        checkpoint: As it is in the file.
        name: Of the file.
        evaluated: The run whose figures these are.
        shipped: The run whose weights these are.
    """
    info = checkpoint.info
    work = complexity(info.config)
    held_out = evaluated.settings.data.validation
    twin = "these weights" if evaluated is shipped else "a twin, trained by the same recipe and seed without them"
    triple = [" ".join(f"{value:.3f}" for value in values) for values in (info.mean, info.std)]
    rows = {
        "network": f"OSNet ×{info.width:g} (Zhou et al., ICCV 2019), {work.parameters:,} parameters, "
        f"{work.mult_adds / 1e6:,.1f}M mult-adds at {info.size[0]}×{info.size[1]}",
        "input": f"{info.size[0]}×{info.size[1]}, RGB, mean {triple[0]}, std {triple[1]}",
        "output": "512-D feature; compare by cosine distance",
        "trained on": f"{info.dataset.partition(' (')[0]}: {info.dataset.partition('(')[2].partition(';')[0]}, six "
        "cameras on one campus. **Research-only data**: check its terms before you deploy this checkpoint commercially",
        "recipe": f"{info.recipe}; seed {shipped.settings.run.seed}; {minutes(shipped.seconds)} on {shipped.device}, "
        f"{shipped.day}",
        "quality": f"{figures_text(info.metrics)}: {held_out} identities held out of the train split, single query, "
        f"cosine, by {twin}. The test split was not read",
        "limits": "people filmed outdoors from above head height by day, in one place; expect much lower ranking "
        "quality elsewhere without fine-tuning. It compares clothing and build, not faces, and is no proof of identity",
        "weights' sha256": f"`{checkpoint.sha256}`, float16",
        "made by": f"`python models/train_shipped.py`, code `{info.code_commit[:12]}`; every value of the recipe is in "
        "the file's metadata (`training`)",
    }
    lines = [f"## `{name}`", "", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    return "\n".join(lines) + "\n"


def minutes(seconds: float) -> str:
    """Seconds as minutes, where there are some."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def figures_text(metrics: dict[str, float]) -> str:
    """``mAP 75.1, R1 90.3`` from a checkpoint's metrics."""
    return ", ".join(f"{key.rpartition('/')[2]} {100 * value:.1f}" for key, value in metrics.items())


def calibrate(checkpoints: list[Path], folder: Path) -> None:
    """Make the calibration sets, in a process of its own."""
    script = HERE.parent / "calibration" / "make_default.py"
    subprocess.run([sys.executable, script, *checkpoints, "--out", folder], check=True)


def install(checkpoints: list[Path], calibration: Path, repository: Path) -> None:
    """Copy checkpoints, cards and calibration sets to where ``export`` and users look for them."""
    models, readme = repository / "models", repository / "models" / "README.md"
    for path in checkpoints:
        if (models / path.name).is_file():
            replaced = load_checkpoint(models / path.name)
            (repository / "calibration" / shipped_name(replaced, replaced.info.size)).unlink(missing_ok=True)
        checkpoint = load_checkpoint(path)
        set_name = shipped_name(checkpoint, checkpoint.info.size)
        shutil.copyfile(path, models / path.name)
        shutil.copyfile(calibration / set_name, repository / "calibration" / set_name)
        text = readme.read_text(encoding="utf-8")
        readme.write_text(with_card(text, path.with_suffix(".md").read_text(encoding="utf-8")), encoding="utf-8")
        console.print(f"installed {models / path.name}; in calibration/README.md name {set_name}", soft_wrap=True)


def with_card(readme: str, new: str) -> str:
    """The page with a card in place of the one under the same heading, or else after all other cards."""
    heading = new.partition("\n")[0]
    sections = re.split(r"(?m)^(?=## )", readme)
    places = [place for place, section in enumerate(sections) if section.partition("\n")[0] == heading]
    cards = [place for place, section in enumerate(sections) if section.startswith("## `")]
    if places:
        sections[places[0]] = new + "\n"
    else:
        sections.insert(max(cards, default=0) + 1, new + "\n")
    return "".join(sections).rstrip() + "\n"


if __name__ == "__main__":
    try:
        main()
    except StoppedError as error:
        error_console.print(f"{error}\nThe same command goes on.", soft_wrap=True)
        sys.exit(error.exit_code)
    except ReidEdgeError as error:
        error_console.print(f"{type(error).__name__}: {error}", soft_wrap=True)
        sys.exit(1)
