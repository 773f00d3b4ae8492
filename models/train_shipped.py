"""Train the checkpoints that ship, from random weights to files, cards and calibration sets.

    python models/train_shipped.py --root MARKET1501 --out DIR [--widths 0.25,1.0] [--install]

For each width (0.25, 0.5, 0.75 and 1.0 if none are given) by the recipe in shipped.toml:

1. DIR/x0_25/validated: trained without the last 100 identities of the train split, evaluated on them.  The test split
   is never read, here or below.
2. DIR/x0_25/whole: the same again on all 751 identities; this is what ships (--keep-held-out: ship the first instead).
3. DIR/models/*.safetensors in half precision, a card beside it, and DIR/calibration/*.npz.

--install copies these into the repository: models/, the cards in models/README.md, calibration/; `export --width` takes
them from there.  Ctrl-C, SIGTERM or the end of --minutes saves, and the same command goes on.

--config models/finetune.toml starts from other weights (--start); --teacher adds frozen teachers; --source says on the
card where both come from.  --dataset with --about trains on other images than Market-1501's, as new_site.toml wants
them, and writes osnet_…_new_site.safetensors.  --whole-only leaves out the first run.  To compare recipes give each its
own --config and --out, and --validate-only.  A try without a GPU, in minutes:

    python models/train_shipped.py --root MARKET1501 --out DIR --widths 0.25 --epochs 1 --identities 20 --size 64x32
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from reid_edge.system.threads import configure_openmp

configure_openmp()

import msgspec
import torch

from reid_edge.console import console, progress_bars, run_script
from reid_edge.errors import OutputError
from reid_edge.export.calibration import shipped_name
from reid_edge.osnet.architecture import format_size
from reid_edge.osnet.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from reid_edge.osnet.complexity import complexity
from reid_edge.settings import read_settings
from reid_edge.training.folder import RunFolder
from reid_edge.training.resolve import resolve
from reid_edge.training.run import train
from reid_edge.training.settings import TrainSettings
from reid_edge.training.task import load_training_data
from reid_edge.wording import counted

HERE = Path(__file__).parent
MARKET = "market1501"
#: What the cards say of where a checkpoint is less good.
LIMITS_OF_MARKET = (
    "people filmed outdoors from above head height by day, in one place; expect much lower ranking quality elsewhere "
    "without fine-tuning"
)
LIMITS = "expect lower ranking quality on your cameras than on those of the training images, and more with fine-tuning"
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
    end = math.inf if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    plans = {width: configurations(arguments, width) for width in arguments.widths}
    made = []
    for width, (validated, whole) in plans.items():
        name = f"x{width:g}".replace(".", "_")
        folder = arguments.out / name
        evaluated = None if arguments.whole_only else run(validated, folder / "validated", until=end)
        if not arguments.validate_only:
            shipped = evaluated if arguments.keep_held_out and evaluated else run(whole, folder / "whole", until=end)
            place = MARKET if arguments.about is None else "new_site"
            made.append(arguments.out / "models" / f"osnet_{name}_{place}.safetensors")
            ship(evaluated, shipped, made[-1], source=arguments.source, about=arguments.about)
    if made:
        calibrate(made, arguments.out / "calibration")
    if arguments.install:
        install(made, arguments.out / "calibration", HERE.parent)


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="Market-1501; only its train split is read")
    parser.add_argument("--dataset", default=MARKET, help="another dataset of `reid-edge train`, as csv, at --root")
    parser.add_argument("--about", help="what the images of another dataset are, and their terms, for the card")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of what they make")
    parser.add_argument("--config", type=Path, default=HERE / "shipped.toml", help="the recipe")
    parser.add_argument("--widths", type=_numbers, default=(0.25, 0.5, 0.75, 1.0), help="e.g. 0.25,1.0")
    parser.add_argument("--seed", type=int, help="the recipe's if not given")
    parser.add_argument("--validation", type=int, default=100, help="identities held out of the first run")
    parser.add_argument("--start", type=Path, help="checkpoint to start from, for a recipe that needs one")
    parser.add_argument("--source", help="where start and teachers come from, their data and licences")
    parser.add_argument("--teacher", type=Path, action="append", help="frozen network to learn from; may be repeated")
    parser.add_argument("--minutes", type=float, help="save and stop after so many; the same command goes on")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--validate-only", action="store_true", help="train and evaluate, ship nothing")
    kept.add_argument("--keep-held-out", action="store_true", help="ship what was evaluated; do not train on all")
    kept.add_argument("--whole-only", action="store_true", help="train on all at once; nothing is evaluated")
    parser.add_argument("--install", action="store_true", help="copy what was made into this repository")
    trial = parser.add_argument_group("for a try")
    trial.add_argument("--epochs", type=int)
    trial.add_argument("--identities", type=int, help="train on so many only")
    trial.add_argument("--size", help="input HEIGHTxWIDTH")
    trial.add_argument("--device", choices=("auto", "cpu", "cuda"))
    trial.add_argument("--partial", action="store_true", help="a subset of Market-1501: do not check its counts")
    arguments = parser.parse_args()
    if bool(arguments.start or arguments.teacher) != bool(arguments.source):
        parser.error("--start and --teacher need --source, and only these: the card says where they come from")
    if (arguments.dataset == MARKET) != (arguments.about is None):
        parser.error("--about says on the card what the images of another --dataset are: give both, or neither")
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
        "data.dataset": arguments.dataset,
        "data.root": str(arguments.root),
        "data.identities": arguments.identities,
        "data.partial": arguments.partial or None,
        "model.width": width,
        "model.size": arguments.size,
        "model.start": arguments.start and str(arguments.start),
        "distill.teachers": [str(teacher) for teacher in arguments.teacher] if arguments.teacher else None,
        "schedule.epochs": arguments.epochs,
        "run.seed": arguments.seed,
        "run.device": arguments.device,
    }
    last = tables.get("schedule", {}).get("sizes", [None])[-1]
    if arguments.size and last not in (None, arguments.size):  # a try at one size
        given |= {"schedule.sizes": [], "schedule.size_milestones": []}
    evaluated, whole = (
        resolve(None, tables, given | {"data.validation": held})[0] for held in (arguments.validation, 0)
    )
    return evaluated, whole


def run(settings: TrainSettings, folder: Path, *, until: float = math.inf) -> Run:
    """Train, or go on with it, or remember that it is done; stop at a time of the monotonic clock.

    Raises:
        ReidEdgeError: As training raises; also if what is there was begun by another recipe.
    """
    begun = RunFolder(folder).state.is_file()
    with progress_bars() as notify:
        left = None if until == math.inf else max(0.0, until - time.monotonic()) / 60
        result = train(settings, folder, resume=begun, force=not begun, minutes=left, notify=notify, say=console.print)
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


def ship(
    evaluated: Run | None, shipped: Run, out: Path, *, source: str | None = None, about: str | None = None
) -> None:
    """Write a run's checkpoint in half precision, with a card beside it.

    Args:
        evaluated: The run whose figures stand on the card; None: there are none.
        shipped: The run whose weights these are.
        out: File to write.
        source: Origin of the weights that the run started from, and of its teachers.
        about: What it was trained on; None: Market-1501's train split.
    """
    training_data = load_training_data(shipped.settings)
    training = dict(shipped.checkpoint.info.training)
    training["data"] = training["data"] | {"root": "."}  # folders of this machine are not published
    info = dataclasses.replace(
        shipped.checkpoint.info,
        dataset=about
        or f"Market-1501 train split ({training_data.classes} identities, {len(training_data.images):,} images; "
        "research only), six cameras on one campus",
        recipe=recipe_text(shipped.settings, shipped.checkpoint),
        source=source or "",
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
    limits = LIMITS_OF_MARKET if about is None else LIMITS
    out.with_suffix(".md").write_text(card(halved, out.name, evaluated, shipped, limits), encoding="utf-8")
    console.print(f"{out}: {out.stat().st_size:,} bytes, cosine to full precision ≥ {cosine:.6f}", soft_wrap=True)


def _metrics(evaluated: Run | None, shipped: Run) -> dict[str, float]:
    """Return the figures, marked as a twin's if the shipped weights were trained on the held-out people too."""
    if evaluated is None:
        return {}
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


def recipe_text(settings: TrainSettings, checkpoint: Checkpoint) -> str:
    """A line on how it was trained; the checkpoint's ``training`` has every value."""
    loss, augment, schedule, batch = settings.loss, settings.augment, settings.schedule, settings.batch
    margin = "soft margin" if loss.triplet_margin is None else f"margin {loss.triplet_margin:g}"
    warmup = f" after {schedule.warmup} of warm-up" if schedule.warmup else ""
    begun = "from scratch" if settings.model.start is None else f"from {settings.model.start.name}"
    parts = [
        f"{begun}: {schedule.epochs} {'epoch' if schedule.epochs == 1 else 'epochs'}, "
        f"{settings.optimiser.name} {settings.optimiser.learning_rate:g} {schedule.kind}{warmup}",
        f"batch {batch.size}" + (f" of {batch.instances} images a person" if batch.instances else ""),
        f"label smoothing {loss.smoothing:g}" if loss.cross_entropy else "without labels",
    ]
    if loss.triplet:
        parts.append(f"hard triplet ×{loss.triplet:g}, {margin}, from epoch {loss.triplet_start}")
    if loss.mutual:
        parts.append(f"mutual learning of two networks ×{loss.mutual:g}, the first one kept")
    named = ("flip", "translate", "patch", "erase", "brightness", "contrast", "saturation", "hue")
    parts += [f"{name} {value:g}" for name in named if (value := getattr(augment, name))]
    if settings.run.ema:
        parts.append(f"averaged weights, decay {settings.run.ema:g}")
    if schedule.frozen:
        parts.append(f"first {counted(schedule.frozen, 'epoch')} only the classifier")
    if schedule.sizes:
        starts = (0, *schedule.size_milestones)
        stages = (f"{format_size(size)} from epoch {start}" for size, start in zip(schedule.sizes, starts, strict=True))
        parts.append(f"input {', '.join(stages)}")
    done = checkpoint.info.training.get("done", {})
    if settings.distill.teachers:
        parts.append(f"taught by {taught_by(settings, done['teachers'])}")
    parts.append(f"{done['steps']:,} steps in {checkpoint.info.training['run']['precision']}")
    return ", ".join(parts)


def taught_by(settings: TrainSettings, hashes: Sequence[str]) -> str:
    """Name the teachers and the weights of their losses."""
    distill = settings.distill
    names = (f"{path.name} ({sha[:12]}…)" for path, sha in zip(distill.teachers, hashes, strict=True))
    losses = {"feature": distill.feature, "relations": distill.relations, "predictions": distill.logits}
    weights = (f"{name} ×{weight:g}" for name, weight in losses.items() if weight)
    return f"{' and '.join(names)}: {', '.join(weights)}"


def card(checkpoint: Checkpoint, name: str, evaluated: Run | None, shipped: Run, limits: str) -> str:
    """Write a checkpoint's section of models/README.md.

    Args:
        checkpoint: As it is in the file.
        name: Of the file.
        evaluated: The run whose figures these are; None: there are none.
        shipped: The run whose weights these are.
        limits: Where it is less good.
    """
    info = checkpoint.info
    work = complexity(info.config)
    triple = [" ".join(f"{value:.3f}" for value in values) for values in (info.mean, info.std)]
    rows = {
        "network": f"OSNet ×{info.width:g} (Zhou et al., ICCV 2019), {work.parameters:,} parameters, "
        f"{work.mult_adds / 1e6:,.1f}M mult-adds at {info.size[0]}×{info.size[1]}",
        "input": f"{info.size[0]}×{info.size[1]}, RGB, mean {triple[0]}, std {triple[1]}",
        "output": "512-D feature; compare by cosine distance",
        "trained on": f"{info.dataset}. Check the terms of these data before you deploy this checkpoint commercially",
        "recipe": f"{info.recipe}; seed {shipped.settings.run.seed}; {minutes(shipped.seconds)} on {shipped.device}, "
        f"{shipped.day}",
        "quality": quality_text(evaluated, shipped, info.metrics),
        "limits": f"{limits}. It compares clothing and build, not faces, and is no proof of identity",
        "weights' sha256": f"`{checkpoint.sha256}`, float16",
        "made by": f"`python models/train_shipped.py`, code `{info.code_commit[:12]}`; every value of the recipe is in "
        "the file's metadata (`training`)",
    }
    if info.source:
        rows = {"comes from": info.source} | rows
    lines = [f"## `{name}`", "", "| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())]
    return "\n".join(lines) + "\n"


def quality_text(evaluated: Run | None, shipped: Run, metrics: dict[str, float]) -> str:
    """Say how good it is, on whom, and who was measured."""
    if evaluated is None:
        return "nobody was held out; measure it with `reid-edge evaluate`. The test split was not read"
    twin = "these weights" if evaluated is shipped else "a twin, trained by the same recipe and seed without them"
    if any(path.suffix == ".npy" for path in evaluated.settings.distill.teachers):  # of which nobody knows who it saw
        twin += "; its teacher may have seen them"
    return (
        f"{figures_text(metrics)}: {evaluated.settings.data.validation} identities held out of the train split, single "
        f"query, cosine, by {twin}. The test split was not read"
    )


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
    run_script(main)
