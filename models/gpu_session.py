"""Train on a GPU that is at hand for minutes only, on a machine without internet.

    python models/gpu_session.py pack --root MARKET1501 --pack PACK [--also FILE...] [--results RESULTS]   # here
    python models/gpu_session.py train --pack PACK --out OUT --minutes 8                    # there: one call
    python models/gpu_session.py unpack --results OUT --out RUNS                            # here

*pack* puts the train split's images, files that the plan names (teacher.npy, teacher.sources.txt and the checkpoint to
start from), and the runs that an earlier call brought back, into files of a folder of at most --limit MiB.  *train*
first measures a step as a CUDA graph (OUT/step.txt), then trains the jobs of --plan, each a run of `reid-edge train`; a
job waits for the one that it names as `after`, and others run side by side on one GPU.  When the time is over, all save
their state, and OUT holds them in parts of 15 MiB, with their logs; of a finished run the optimiser is left out.  A
second call, packed with --results OUT, goes on.  On a CPU it does the same, slowly.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from reid_edge.console import console, run_script
from reid_edge.errors import OutputError, SettingsError
from reid_edge.features import names_file
from reid_edge.settings import overridden, read_settings
from reid_edge.training.folder import RunFolder
from reid_edge.training.state import load_state, save_state

HERE = Path(__file__).parent
MIB = 2**20
#: Size of a part of what comes back, and the most parts: a small machine returns few, small files.
PART_BYTES, MOST_PARTS = 15 * MIB, 4
IMAGES, PARTS = "images.tar.gz", "runs.tar"
#: Minutes that are kept for saving and packing at the end.
SPARE_MINUTES = 0.5
#: What is not brought back of a run.
LEFT_OUT = ("tensorboard", "teachers.safetensors", "lock", "curves.png")


@dataclass(frozen=True)
class Job:
    """A run of the plan.

    Attributes:
        name: Name of its folder.
        tables: Settings, as `reid-edge train --config` takes them.
        after: Name of the job that must have finished before; "" if none.
    """

    name: str
    tables: dict[str, Any]
    after: str


def main() -> None:
    """Do what the command line says."""
    arguments = parsed()
    {"pack": pack, "train": train, "unpack": unpack}[arguments.command](arguments)


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="put images and earlier runs into a folder to be carried")
    packing.add_argument("--root", type=Path, required=True, help="Market-1501; only its train split is read")
    packing.add_argument("--pack", type=Path, required=True, help="folder to write")
    packing.add_argument("--also", type=Path, nargs="+", default=[], help="files that the plan names, without folders")
    packing.add_argument("--results", type=Path, help="OUT of an earlier call")
    packing.add_argument("--limit", type=int, default=60, help="MiB that the folder may have")
    training = commands.add_parser("train", help="measure a step, train, and put all into --out")
    training.add_argument("--pack", type=Path, required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--work", type=Path, help="folder of images and runs. Default: beside --pack")
    training.add_argument("--minutes", type=float, default=8.0)
    training.add_argument("--plan", type=Path, default=HERE / "gpu_plan.toml")
    training.add_argument("--no-measure", action="store_true", help="do not measure a step first")
    unpacking = commands.add_parser("unpack", help="turn what came back into run folders")
    unpacking.add_argument("--results", type=Path, required=True)
    unpacking.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def pack(arguments: argparse.Namespace) -> None:
    """Write the folder to be carried.

    Raises:
        OutputError: There are no images, a file of --also is not there, or the folder is larger than the limit.
    """
    folder = arguments.root / "bounding_box_train"
    images = sorted(folder.glob("*.jpg"))
    if not images:
        raise OutputError(f"{folder} has no images; give the folder of Market-1501 as --root.")
    _check_also(arguments.also)
    arguments.pack.mkdir(parents=True, exist_ok=True)
    for old in parts(arguments.pack):
        old.unlink()
    with tarfile.open(arguments.pack / IMAGES, "w:gz", compresslevel=1) as archive:
        for image in images:
            archive.add(image, f"market1501/bounding_box_train/{image.name}")
        for file in arguments.also:
            archive.add(file, file.name)
    if arguments.results:
        for part in parts(arguments.results):
            (arguments.pack / part.name).write_bytes(part.read_bytes())
    size = sum(file.stat().st_size for file in arguments.pack.iterdir())
    if size > arguments.limit * MIB:
        raise OutputError(f"{arguments.pack} has {size / MIB:.0f} MiB, more than {arguments.limit}; carry fewer runs.")
    console.print(f"{arguments.pack}: {len(images):,} images, {size / MIB:.1f} MiB", soft_wrap=True)


def _check_also(files: Sequence[Path]) -> None:
    names = [file.name for file in files]
    for file in files:
        if not file.is_file():
            raise OutputError(f"--also: there is no file {file}.")
        if names.count(file.name) > 1:
            raise OutputError(f"--also: several files are called {file.name}; they go into one folder.")
        if file.suffix == ".npy" and names_file(file).name not in names:
            raise OutputError(f"--also: {file} needs {names_file(file)} beside it, which names its images.")


def train(arguments: argparse.Namespace) -> None:
    """Measure, train the plan's jobs until the time is over, and bring all back.

    Raises:
        SettingsError: The plan is not valid.
        OutputError: The results do not fit into what may come back.
    """
    end = time.monotonic() + 60 * max(0.0, arguments.minutes - SPARE_MINUTES)
    jobs = planned(arguments.plan)
    arguments.out.mkdir(parents=True, exist_ok=True)
    work = arguments.work or arguments.pack.with_name(f"{arguments.pack.name}-work")
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(arguments.pack / IMAGES) as archive:
        archive.extractall(work, filter="data")
    joined(arguments.pack, work / "runs")
    if not arguments.no_measure:
        measure(arguments.out / "step.txt")
    try:
        run_all(jobs, work, end)
    finally:
        bring_back(work / "runs", arguments.out)


def planned(path: Path) -> list[Job]:
    """Read a plan: settings that all jobs share, and a table ``[jobs.NAME]`` of each job's own.

    Raises:
        SettingsError: There are no jobs, or one waits for a job that is not before it.
    """
    shared = read_settings(path, guide="docs/training.md")
    tables = shared.pop("jobs", {})
    if not tables:
        raise SettingsError(f"{path} has no jobs; give each a table, e.g. [jobs.teacher].")
    jobs: list[Job] = []
    for name, own in tables.items():
        after = own.pop("after", "")
        if after and after not in [job.name for job in jobs]:
            raise SettingsError(f"{path}: jobs.{name}.after: there is no job '{after}' before it.")
        jobs.append(Job(name, _merged(shared, own), after))
    return jobs


def _merged(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    flat = {
        f"{table}.{key}": value
        for table, values in own.items()
        for key, value in (values.items() if isinstance(values, dict) else ())
    }
    plain = {key: value for key, value in own.items() if not isinstance(value, dict)}
    return overridden(shared | plain, flat)


def measure(out: Path) -> None:
    """Write milliseconds of a step, eager and as a CUDA graph, by benchmarks/training.py."""
    script = HERE.parent / "benchmarks" / "training.py"
    command = [sys.executable, str(script), "--width", "0.25", "--size", "256x128", "--batch", "64"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=_environment())
    out.write_text(done.stdout + done.stderr, encoding="utf-8")
    console.print(done.stdout or done.stderr)


def run_all(jobs: Sequence[Job], work: Path, end: float) -> None:
    """Run jobs, each as soon as the one before it has finished, until all are done or the time is over."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    begun: set[str] = set()
    while True:
        for job in jobs:
            ready = not job.after or finished(work / "runs" / job.after)
            if job.name not in begun and ready and not finished(work / "runs" / job.name) and time.monotonic() < end:
                begun.add(job.name)
                running[job.name] = start(job, work, (end - time.monotonic()) / 60)
        running = {name: process for name, process in running.items() if process.poll() is None}
        waiting = [job for job in jobs if job.name not in begun and not finished(work / "runs" / job.name)]
        if not running and not (time.monotonic() < end and any(finished(work / "runs" / one.after) for one in waiting)):
            return
        time.sleep(0.2)


def finished(run: Path) -> bool:
    """Return True if a run has done all its epochs."""
    state = RunFolder(run).state
    return state.is_file() and load_state(state).progress.finished


def start(job: Job, work: Path, minutes: float) -> subprocess.Popen[bytes]:
    """Start a job's process, or let it go on; it stops by itself when its minutes are over."""
    run = work / "runs" / job.name
    run.parent.mkdir(parents=True, exist_ok=True)
    place = ["--root", "market1501"]
    if RunFolder(run).state.is_file():
        options = ["--resume", f"runs/{job.name}", *place]
    else:
        (work / f"{job.name}.toml").write_text(tomli_w.dumps(job.tables), encoding="utf-8")
        options = ["--config", f"{job.name}.toml", "--out", f"runs/{job.name}", "--force", *place]
    command = [sys.executable, "-m", "reid_edge", "train", *options, "--minutes", f"{minutes:.4f}"]
    with (work / f"{job.name}.log").open("ab") as log:
        console.print(f"{job.name}: {'goes on' if '--resume' in options else 'begins'}, {minutes:.1f} minutes")
        return subprocess.Popen(command, cwd=work, stdout=log, stderr=subprocess.STDOUT, env=_environment())


def _environment() -> dict[str, str]:
    """This repository's package is used, installed or not."""
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


def bring_back(runs: Path, out: Path) -> None:
    """Write all runs in parts, and the logs, into a folder.

    Raises:
        OutputError: There are more parts than may come back; the runs stay where they are.
    """
    for run in sorted(runs.iterdir()) if runs.is_dir() else ():
        slim(run)
    for log in sorted(runs.parent.glob("*.log")):
        (out / log.name).write_bytes(log.read_bytes())
    whole = runs.parent / PARTS
    with tarfile.open(whole, "w:gz", compresslevel=1) as archive:
        if runs.is_dir():
            archive.add(runs, "runs", filter=_wanted)
    content = whole.read_bytes()
    count = -(-len(content) // PART_BYTES)
    if count > MOST_PARTS:
        raise OutputError(f"the runs have {len(content) / MIB:.0f} MiB: {count} parts, and {MOST_PARTS} may come back.")
    for number in range(count):
        part = content[number * PART_BYTES : (number + 1) * PART_BYTES]
        (out / f"{PARTS}.{number:02}").write_bytes(part)
    console.print(f"{out}: {count} parts, {len(content) / MIB:.1f} MiB", soft_wrap=True)


def slim(run: Path) -> None:
    """Leave of a finished run's state what a teacher needs: the averaged weights, or else the last ones."""
    if not finished(run):
        return
    state = load_state(RunFolder(run).state)
    average, learners = state.stepper["average"], state.stepper["learners"]
    stepper = {"average": average, "learners": {} if average else learners}
    save_state(RunFolder(run).state, dataclasses.replace(state, stepper=stepper))


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(member.name).name in LEFT_OUT else member


def parts(folder: Path) -> list[Path]:
    """Return the parts of runs in a folder, in order."""
    return sorted(folder.glob(f"{PARTS}.[0-9][0-9]"))


def joined(folder: Path, runs: Path) -> None:
    """Unpack the runs whose parts lie in a folder, unless there are runs already."""
    if runs.is_dir() or not parts(folder):
        return
    runs.parent.mkdir(parents=True, exist_ok=True)
    whole = runs.parent / PARTS
    whole.write_bytes(b"".join(part.read_bytes() for part in parts(folder)))
    with tarfile.open(whole) as archive:
        archive.extractall(runs.parent, filter="data")
    whole.unlink()


def unpack(arguments: argparse.Namespace) -> None:
    """Turn what came back into folders of runs, below --out/runs.

    Raises:
        OutputError: Nothing came back.
    """
    if not parts(arguments.results):
        raise OutputError(f"{arguments.results} has no {PARTS}.00; give the --out of a call as --results.")
    joined(arguments.results, arguments.out / "runs")
    for run in sorted((arguments.out / "runs").iterdir()):
        progress = load_state(RunFolder(run).state).progress
        console.print(f"{run}: step {progress.step:,}{', finished' if progress.finished else ''}, {progress.figures}")


if __name__ == "__main__":
    run_script(main)
