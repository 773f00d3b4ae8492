"""Train on a GPU that is at hand for minutes only, on a machine without internet.

    python models/gpu_session.py pack --root MARKET1501 --pack PACK [--also FILE...] [--results OUT...]     # here
    python models/gpu_session.py train --pack PACK --out OUT --minutes 8                      # there: one call
    python models/gpu_session.py unpack --results OUT... --out RUNS                           # here

*pack* puts the train split's images, files that the plan names (teacher.npy, teacher.sources.txt and the checkpoint to
start from; tables of features as float16), wheels that the machine lacks (--wheels DIR), and the states of runs that
are to go on into files of a folder of at most --limit MiB.  *train* first measures a step as a CUDA graph
(OUT/step.txt), then trains the jobs of --plan, each a run of `reid-edge train`; a job waits for the one that it names
as `after`, and others run side by side on one GPU.  When the time is over, all save their state, and OUT holds them in
parts of 15 MiB, with their logs and summary.txt, which says what was measured and what did not fit: best checkpoints of
finished runs come before states, and of these runs the optimiser is left out.  A second call, packed with --results
OUT, goes on with the jobs whose states fit (the optimiser's averages as bfloat16), or with those that --jobs names; the
others wait in OUT for a call of their own.  *unpack* takes the results of several calls, the first one first.  On a CPU
it does the same, slowly.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WHEELS = "wheels"


def install_wheels(pack: Path, packages: Path) -> None:
    """Install the wheels that a pack has, for this process and those that it starts; nothing is downloaded."""
    wheels = sorted(str(path) for path in (pack / WHEELS).glob("*.whl"))
    if not wheels:
        return
    # Without their dependencies: pip would look for those that the machine has, too.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]
    command += ["--find-links", str(pack / WHEELS), "--target", str(packages), *wheels]
    subprocess.run(command, check=True, timeout=120)
    sys.path.insert(0, str(packages))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="put images and earlier runs into a folder to be carried")
    packing.add_argument("--root", type=Path, required=True, help="Market-1501; only its train split is read")
    packing.add_argument("--pack", type=Path, required=True, help="folder to write")
    packing.add_argument("--also", type=Path, nargs="+", default=[], help="files that the plan names, without folders")
    packing.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks, with what these need")
    packing.add_argument(
        "--results", type=Path, nargs="+", default=[], help="OUT of earlier calls, the first one first"
    )
    packing.add_argument("--jobs", nargs="+", help="jobs to go on with. Default: all that fit, in the plan's order")
    packing.add_argument("--plan", type=Path, default=HERE / "gpu_plan.toml")
    packing.add_argument("--limit", type=int, default=60, help="MiB that the folder may have")
    training = commands.add_parser("train", help="measure a step, train, and put all into --out")
    training.add_argument("--pack", type=Path, required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--work", type=Path, help="folder of images and runs. Default: beside --pack")
    training.add_argument("--minutes", type=float, default=8.0)
    training.add_argument("--plan", type=Path, default=HERE / "gpu_plan.toml")
    training.add_argument("--no-measure", action="store_true", help="do not measure a step first")
    unpacking = commands.add_parser("unpack", help="turn what came back into run folders")
    unpacking.add_argument("--results", type=Path, nargs="+", required=True, help="OUT of calls, the first one first")
    unpacking.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "train" and arguments.work is None:
        arguments.work = arguments.pack.with_name(f"{arguments.pack.name}-work")
    return arguments


HERE = Path(__file__).parent
if __name__ == "__main__" and sys.argv[1:2] == ["train"]:  # what is imported below may be in a wheel
    install_wheels(parsed().pack, parsed().work / "packages")

import numpy as np
import tomli_w

from reid_edge.console import console, run_script
from reid_edge.errors import OutputError, ResumeError, SettingsError, TrainingError
from reid_edge.features import names_file, read_array
from reid_edge.settings import overridden, read_settings
from reid_edge.training.folder import RunFolder
from reid_edge.training.resolve import differences
from reid_edge.training.state import CHANGEABLE, SavedState, load_state, save_state
from reid_edge.wording import counted

MIB = 2**20
#: Size of a part of what comes back, and the most parts: a small machine returns few, small files.
PART_BYTES, MOST_PARTS = 15 * MIB, 4
IMAGES, PARTS, GO_ON = "images.tar.gz", "runs.tar", "jobs.txt"
#: Minutes that are kept for saving and packing at the end, and the part of them after which a job is killed.
SPARE_MINUTES, SAVING_SHARE = 0.5, 0.7
#: Milliseconds that a recorded step should take at most (×0.25, 256×128, batch 64).
TARGET_MS = 5.0
#: Most seconds that measuring a step may take.
MEASURE_S = 120.0
#: Exit code of a run that has stopped because its time was over.
STOPPED = 143


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


def pack(arguments: argparse.Namespace) -> None:
    """Write the folder to be carried.

    Raises:
        OutputError: There are no images, a file of --also or a wheel is not there, nothing came back, or images and
            files alone are larger than the limit.
        SettingsError: The plan is not valid, or has no job of a name that was asked for.
    """
    folder = arguments.root / "bounding_box_train"
    images = sorted(folder.glob("*.jpg"))
    if not images:
        raise OutputError(f"{folder} has no images; give the folder of Market-1501 as --root.")
    _check_also(arguments.also)
    wheels = sorted(arguments.wheels.glob("*.whl")) if arguments.wheels else []
    if arguments.wheels and not wheels:
        raise OutputError(f"--wheels: {arguments.wheels} has no .whl file; fill it with pip download.")
    arguments.pack.mkdir(parents=True, exist_ok=True)
    for old in (*parts(arguments.pack), arguments.pack / GO_ON, *(arguments.pack / WHEELS).glob("*.whl")):
        old.unlink(missing_ok=True)
    with tarfile.open(arguments.pack / IMAGES, "w:gz", compresslevel=1) as archive:
        for image in images:
            archive.add(image, f"market1501/bounding_box_train/{image.name}")
        for file in arguments.also:
            _add(archive, file.name, carried(file))
    for wheel in wheels:
        (arguments.pack / WHEELS).mkdir(exist_ok=True)
        shutil.copy(wheel, arguments.pack / WHEELS)
    room = arguments.limit * MIB - _size(arguments.pack)
    if room < 0:
        raise OutputError(
            f"{arguments.pack} has {_size(arguments.pack) / MIB:.0f} MiB, more than {arguments.limit}, without any "
            "run; give fewer files."
        )
    if arguments.results:
        pack_runs(arguments, room)
    elif arguments.jobs:
        (arguments.pack / GO_ON).write_text("".join(f"{job.name}\n" for job in _chosen(arguments)), encoding="utf-8")
    console.print(
        f"{arguments.pack}: {counted(len(images), 'image')}, {_size(arguments.pack) / MIB:.1f} MiB", soft_wrap=True
    )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _chosen(arguments: argparse.Namespace) -> list[Job]:
    jobs = planned(arguments.plan)
    if missing := set(arguments.jobs or ()) - {job.name for job in jobs}:
        raise SettingsError(f"--jobs: {arguments.plan} has no job {', '.join(sorted(missing))}.")
    return [job for job in jobs if not arguments.jobs or job.name in arguments.jobs]


def carried(file: Path) -> bytes:
    """Return a file's content as it is packed: a table of features as float16, each row divided by its largest number.

    Training compares cosines, and keeps float16 itself.
    """
    if file.suffix != ".npy":
        return file.read_bytes()
    try:
        rows = read_array(file).astype(np.float64)
        if rows.ndim != 2:
            raise ValueError(f"it has the shape {rows.shape}")
    except (OSError, ValueError) as error:
        raise OutputError(f"--also: {file} cannot be packed ({error}); give a .npy file of N×D features.") from error
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    out = io.BytesIO()
    np.save(out, (rows / np.where(largest > 0, largest, 1)).astype(np.float16))
    return out.getvalue()


def pack_runs(arguments: argparse.Namespace, room: int) -> None:
    """Pack the states of the runs that go on, in the plan's order as far as they fit, and the list of their jobs."""
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place) / "runs"
        for results in arguments.results:
            joined(results, runs)
        going: list[Job] = []
        chosen: list[Content] = []
        for job in _chosen(arguments):
            if finished(runs / job.name):
                continue
            lighten(runs / job.name)
            wanted = {name: _needed(runs / name) for name in (job.name, job.after) if name}
            files = [*chosen, *(file for name in wanted for file in wanted[name] if file not in chosen)]
            packed = archived(files)
            if len(packed) <= room:
                going.append(job)
                chosen = files
            else:
                console.print(f"{job.name} does not fit beside the others; go on with it in a call of its own (--jobs)")
        if not going:
            raise OutputError("no job is left to go on with: all are finished, or too large for --limit.")
        write_parts(archived(chosen), arguments.pack)
    (arguments.pack / GO_ON).write_text("".join(f"{job.name}\n" for job in going), encoding="utf-8")
    console.print(f"these go on: {', '.join(job.name for job in going)}", soft_wrap=True)


def lighten(run: Path) -> None:
    """Keep the moving averages of an unfinished run's optimiser as bfloat16: half of the bytes, and digits enough."""
    state = state_of(run)
    if state is None or "optimiser" not in state.stepper:
        return
    optimiser = {
        number: {name: tensor.bfloat16() if tensor.ndim else tensor for name, tensor in tensors.items()}
        for number, tensors in state.stepper["optimiser"].items()
    }
    save_state(RunFolder(run).state, dataclasses.replace(state, stepper=state.stepper | {"optimiser": optimiser}))


def _needed(run: Path) -> list[Content]:
    """Return what a run needs to go on, or to teach another: not its checkpoints."""
    return [one for one in contents(run) if not one.name.endswith(".safetensors")]


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
    """Measure, train the plan's jobs until the time is over, and bring all back, whatever happens.

    Raises:
        SettingsError: The plan is not valid.
        TrainingError: A job has failed, or was killed since it did not stop; the others have been brought back.
    """
    end = time.monotonic() + 60 * max(0.0, arguments.minutes - SPARE_MINUTES)
    work = arguments.work
    jobs = planned(arguments.plan)
    go_on = arguments.pack / GO_ON
    if go_on.is_file():
        names = go_on.read_text(encoding="utf-8").splitlines()
        jobs = [job for job in jobs if job.name in names]
    arguments.out.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(arguments.pack / IMAGES) as archive:
        archive.extractall(work, filter="data")
    joined(arguments.pack, work / "runs")
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(STOPPED))  # what is there comes back then, too
    summary: list[str] = []
    failed: list[str] = []
    try:
        if not arguments.no_measure:
            summary.append(measure(arguments.out / "step.txt", min(MEASURE_S, end - time.monotonic())))
        codes = run_all(jobs, work, end)
        failed = [f"{name} ({code})" for name, code in codes.items() if code not in (0, STOPPED)]
        summary += [f"{name}: exit code {code}" for name, code in codes.items()]
        summary += [f"{job.name}: not begun" for job in jobs if not (work / "runs" / job.name).is_dir()]
    finally:
        summary += bring_back(work / "runs", arguments.out)
        (arguments.out / "summary.txt").write_text("\n".join(summary) + "\n", encoding="utf-8")
        console.print("\n".join(summary), soft_wrap=True)
        signal.signal(signal.SIGTERM, before)
    if failed:
        raise TrainingError(
            f"these jobs have failed, with their exit codes: {', '.join(failed)}. All else is in {arguments.out}; the "
            "logs there say why."
        )


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


def measure(out: Path, seconds: float) -> str:
    """Write milliseconds of a step, eager and as a CUDA graph, by benchmarks/training.py.

    Args:
        out: File to write.
        seconds: Time that it may take; what it has printed by then is kept.

    Returns:
        A line that compares the recorded step with the target.
    """
    script = HERE.parent / "benchmarks" / "training.py"
    command = [sys.executable, "-u", str(script), "--width", "0.25", "--size", "256x128", "--batch", "64"]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=max(seconds, 0), env=_environment()
        )
        text = done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as error:
        text = (error.stdout or b"").decode(errors="replace") + f"\nnot done after {error.timeout:.0f} s\n"
    out.write_text(text, encoding="utf-8")
    return against_target(text)


def against_target(measured: str) -> str:
    """Compare the step that benchmarks/training.py recorded as a CUDA graph with the target."""
    found = re.search(r"^\| recorded \| ([\d.]+) \|", measured, re.MULTILINE)
    if found is None:
        return f"step: no CUDA graph was measured (step.txt); the target is {TARGET_MS:g} ms"
    met = "met" if float(found[1]) <= TARGET_MS else "missed"
    return f"step: {found[1]} ms as a CUDA graph; the target of {TARGET_MS:g} ms is {met}"


def run_all(jobs: Sequence[Job], work: Path, end: float) -> dict[str, int]:
    """Run jobs, each as soon as the one before it has finished, until all are done or the time is over.

    Args:
        jobs: What to train.
        work: Folder of the images and of runs/.
        end: Time of the monotonic clock at which those that still run are asked to save and stop.

    Returns:
        The exit code of each job that was started.
    """
    runs = work / "runs"
    running: dict[str, subprocess.Popen[bytes]] = {}
    codes: dict[str, int] = {}
    done = {name for job in jobs for name in (job.name, job.after) if name and finished(runs / name)}
    waiting = [job for job in jobs if job.name not in done]
    try:
        while time.monotonic() < end:
            for job in [one for one in waiting if not one.after or one.after in done]:
                waiting.remove(job)
                running[job.name] = start(job, work, (end - time.monotonic()) / 60)
            if not running:
                break
            time.sleep(0.2)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                codes[name] = running.pop(name).returncode
                done |= {name} if finished(runs / name) else set()
    finally:
        codes |= stopped(running, SAVING_SHARE * 60 * SPARE_MINUTES)
    return codes


def stopped(running: dict[str, subprocess.Popen[bytes]], seconds: float) -> dict[str, int]:
    """Ask processes to save and stop, kill those that still run after some seconds; return their exit codes."""
    for process in running.values():
        process.terminate()
    limit = time.monotonic() + seconds
    for process in running.values():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, limit - time.monotonic()))
    for process in running.values():
        process.kill()  # does nothing to one that has ended
    return {name: _code(process.wait()) for name, process in running.items()}


def _code(code: int) -> int:
    """Count a process that SIGTERM ended before it trained as stopped: it had nothing to save."""
    return STOPPED if code == -signal.SIGTERM else code


def finished(run: Path) -> bool:
    """Return True if a run has done all its epochs; without a state, its figures say so."""
    state = state_of(run)
    if state is not None:
        return state.progress.finished
    rows = rows_of(run)
    if not rows or not RunFolder(run).config.is_file():
        return False
    epochs = read_settings(RunFolder(run).config, guide="docs/training.md")["schedule"]["epochs"]
    return int(float(rows[-1]["epoch"])) >= epochs


def state_of(run: Path) -> SavedState | None:
    """Return a run's state; None without one that can be read."""
    try:
        return load_state(RunFolder(run).state)
    except ResumeError:
        return None


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
        return subprocess.Popen(
            command, cwd=work, stdout=log, stderr=subprocess.STDOUT, env=_environment(),
            start_new_session=True,  # Ctrl-C is for this process, which asks the others to stop, once
        )  # fmt: skip


def _environment() -> dict[str, str]:
    """This repository's package is used, installed or not."""
    path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


@dataclass(frozen=True)
class Content:
    """A file of a run that comes back.

    Attributes:
        name: Path below the folder of runs/.
        path: The file.
        rank: Place in the order of importance, from 0.
    """

    name: str
    path: Path
    rank: int


def contents(run: Path) -> list[Content]:
    """Return a run's files that are worth bringing back.

    Settings and figures come first, then the best checkpoints of finished runs, the states, and the last checkpoints
    of finished runs.  Another run's state suffices to go on: its best checkpoints come at the end, and its last ones
    are written anew.
    """
    state = state_of(run)
    over = state is not None and state.progress.finished
    folders = [RunFolder(run, networks) for networks in (1, 2)]
    ranked = [
        (0, [folders[0].config, folders[0].metrics, folders[0].log]),
        (1 if over else 5, [folder.best(number) for folder in folders for number in range(folder.networks)]),
        (3 if over else 2, [folders[0].state]),
        (4, [folder.last(number) for folder in folders for number in range(folder.networks)] if over else []),
    ]
    return [Content(f"runs/{run.name}/{one.name}", one, rank) for rank, some in ranked for one in some if one.is_file()]


def bring_back(runs: Path, out: Path) -> list[str]:
    """Write all runs in parts, the most important files first as far as they fit, and the logs, into a folder.

    Returns:
        Lines that say what came back, and what was left out; that stays where it is.
    """
    found = sorted(runs.iterdir()) if runs.is_dir() else []
    for run in found:
        slim(run)
    for log in sorted(runs.parent.glob("*.log")):
        (out / log.name).write_bytes(log.read_bytes())
    room = PART_BYTES * MOST_PARTS
    chosen: list[Content] = []
    left_out: list[Content] = []
    used = 0
    for content in sorted((one for run in found for one in contents(run)), key=lambda one: one.rank):
        size = len(zlib.compress(content.path.read_bytes(), 1)) + 2 * tarfile.BLOCKSIZE
        (chosen if used + size <= room else left_out).append(content)
        used += size if used + size <= room else 0
    while len(packed := archived(chosen)) > room:  # the sizes were those of single files
        left_out.append(chosen.pop())
    count = write_parts(packed, out)
    lines = [f"{out}: {counted(count, 'part')}, {len(packed) / MIB:.1f} MiB"]
    return lines + [f"left out, since it does not fit: {one.name}" for one in left_out]


def archived(files: Sequence[Content]) -> bytes:
    """Return an archive of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for file in files:
            _add(archive, file.name, file.path.read_bytes())
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def write_parts(content: bytes, out: Path) -> int:
    """Write an archive in parts in place of those that are there; return their number."""
    for old in parts(out):
        old.unlink()
    count = -(-len(content) // PART_BYTES)
    for number in range(count):
        part = content[number * PART_BYTES : (number + 1) * PART_BYTES]
        (out / f"{PARTS}.{number:02}").write_bytes(part)
    return count


def slim(run: Path) -> None:
    """Leave of a finished run's state what a teacher needs: the averaged weights, or else the last ones."""
    state = state_of(run)
    if state is None or not state.progress.finished:
        return
    average, learners = state.stepper["average"], state.stepper["learners"]
    stepper = {"average": average, "learners": {} if average else learners}
    save_state(RunFolder(run).state, dataclasses.replace(state, stepper=stepper))


def parts(folder: Path) -> list[Path]:
    """Return the parts of runs in a folder, in order."""
    return sorted(folder.glob(f"{PARTS}.[0-9][0-9]"))


def joined(folder: Path, runs: Path) -> None:
    """Unpack the runs whose parts lie in a folder, each unless a later state of it is there already.

    What a run has and the parts lack stays, as a best checkpoint of an earlier call; a run with other settings is
    replaced.
    """
    if not parts(folder):
        return
    with tempfile.TemporaryDirectory() as place:
        whole = io.BytesIO(b"".join(part.read_bytes() for part in parts(folder)))
        with tarfile.open(fileobj=whole) as archive:
            archive.extractall(place, filter="data")
        for new in sorted(Path(place).glob("runs/*")):  # none if all jobs have failed at once
            old = runs / new.name
            if old.is_dir() and not _same_settings(old, new):
                shutil.rmtree(old)
            if old.is_dir() and steps(old) > steps(new):
                console.print(f"{old} stays: it is at step {steps(old):,}, that of {folder} at {steps(new):,}")
                continue
            shutil.copytree(new, old, dirs_exist_ok=True)


def _same_settings(one: Path, other: Path) -> bool:
    try:
        tables = [read_settings(RunFolder(run).config, guide="docs/training.md") for run in (one, other)]
    except SettingsError:
        return False
    return all(key in CHANGEABLE for key, _old, _new in differences(*tables))


def steps(run: Path) -> int:
    """Return the steps that a run has done, by its state or its figures."""
    state, rows = state_of(run), rows_of(run)
    return max(state.progress.step if state else 0, int(float(rows[-1]["step"])) if rows else 0)


def rows_of(run: Path) -> list[dict[str, str]]:
    """Return the rows of a run's figures."""
    metrics = RunFolder(run).metrics
    return list(csv.DictReader(metrics.read_text(encoding="utf-8").splitlines())) if metrics.is_file() else []


def unpack(arguments: argparse.Namespace) -> None:
    """Turn what came back into folders of runs, below --out/runs.

    Raises:
        OutputError: Nothing came back.
    """
    runs = arguments.out / "runs"
    for results in arguments.results:
        if not parts(results):
            raise OutputError(f"{results} has no {PARTS}.00; give the --out of a call as --results.")
        joined(results, runs)
    for run in sorted(runs.glob("*")):
        state = state_of(run)
        what = "finished" if finished(run) else "unfinished"
        console.print(
            f"{run}: step {steps(run):,}, {what}, {state.progress.figures if state else 'without a state'}",
            soft_wrap=True,
        )


if __name__ == "__main__":
    run_script(main)
