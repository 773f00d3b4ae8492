"""Training runs in folders: file paths, checks before a run begins or resumes, and a lock against other processes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reid_edge.errors import OutputError, ResumeError
from reid_edge.files import open_locked, remove_partials

#: First line of a run's settings file; it marks the folder as a run's.
MARK = "# The settings of a run of reid-edge train."


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run's files.

    Attributes:
        path: The folder.
        networks: How many learn; of several, each has its own checkpoints.
    """

    path: Path
    networks: int = 1

    @property
    def config(self) -> Path:
        """Resolved settings, TOML."""
        return self.path / "config.toml"

    @property
    def state(self) -> Path:
        """State that resuming needs."""
        return self.path / "state.pt"

    @property
    def teachers(self) -> Path:
        """Teachers' features of the training images, for resuming."""
        return self.path / "teachers.safetensors"

    @property
    def metrics(self) -> Path:
        """Metrics, CSV, one row an epoch."""
        return self.path / "metrics.csv"

    @property
    def curves(self) -> Path:
        """Curves of the metrics, PNG."""
        return self.path / "curves.png"

    @property
    def log(self) -> Path:
        """Log with times."""
        return self.path / "log.txt"

    @property
    def board(self) -> Path:
        """Folder of TensorBoard's files."""
        return self.path / "tensorboard"

    @property
    def lock(self) -> Path:
        """Lock file, held by the process that trains here."""
        return self.path / "lock"

    def best(self, network: int) -> Path:
        """Return the path of a network's checkpoint of its best epoch."""
        return self._checkpoint("best", network)

    def last(self, network: int) -> Path:
        """Return the path of a network's checkpoint of the last evaluation."""
        return self._checkpoint("last", network)

    def files(self) -> list[Path]:
        """Return the paths of all files of a run."""
        every = [one(network) for one in (self.best, self.last) for network in range(self.networks)]
        return [
            self.config, self.state, self.teachers, self.metrics, self.curves, self.log, self.board, self.lock, *every,
        ]  # fmt: skip

    def _checkpoint(self, what: str, network: int) -> Path:
        return self.path / (f"{what}-{network + 1}.safetensors" if self.networks > 1 else f"{what}.safetensors")


def check_new(path: Path, *, force: bool) -> None:
    """Refuse, before any work, a folder in which no run can begin; nothing is changed.

    Raises:
        OutputError: The folder holds other files, or a run while ``force`` is off, or cannot be written.
    """
    if path.is_symlink() and not path.exists():
        raise OutputError(f"{path} is a link to nothing; remove it, or give another --out.")
    if not path.exists():
        parent = next(one for one in path.absolute().parents if one.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise OutputError(f"{path} cannot be made: {parent} is not a writable folder. Give another --out.")
        return
    if not (path.is_dir() and os.access(path, os.W_OK)):
        raise OutputError(f"{path} is not a writable folder; give another --out.")
    held = [one.name for one in path.iterdir()]
    if held and not _is_run(RunFolder(path)):
        raise OutputError(f"{path} holds {held[0]}, which no run made; give another --out.")
    if held and not force:
        raise OutputError(
            f"{path} already has a run; continue it with --resume {path}, replace it with --force, "
            "or give another --out."
        )


def _is_run(folder: RunFolder) -> bool:
    try:
        return folder.config.read_text(encoding="utf-8").startswith(MARK)
    except (OSError, UnicodeDecodeError):
        return False


def check_resumable(path: Path) -> None:
    """Refuse a folder that holds no run to resume.

    Raises:
        ResumeError: Its settings file or its state is missing.
    """
    if path.is_file():
        raise ResumeError(
            f"{path} is a file; --resume takes the folder of a run. To start a new run from a checkpoint, use --start."
        )
    folder = RunFolder(path)
    for needed in (folder.config, folder.state):
        if not needed.is_file():
            # A run that was killed before its first state has left its settings file.
            how = f"--out {path} --force" if _is_run(folder) else "--out"
            raise ResumeError(f"{path} has no run to continue: {needed.name} is missing. Start one with {how}.")


@contextlib.contextmanager
def claimed(folder: RunFolder, *, new: bool) -> Iterator[None]:
    """Lock the folder against other processes inside the block; a new run first removes an old run's files.

    Raises:
        OutputError: Another process trains in the folder, or it cannot be written.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = open_locked(
            folder.lock, busy=f"another process trains in {folder.path}; wait for it, or give another --out."
        )
    except OSError as error:
        raise OutputError(f"cannot write in {folder.path}: {error.strerror}. Give another --out.") from error
    with lock:
        remove_partials(folder.path)  # of a process that was killed while it saved
        if new:
            _empty(folder)
        try:
            yield
        finally:
            folder.lock.unlink(missing_ok=True)


def _empty(folder: RunFolder) -> None:
    """Remove the files of a run, also of one with more networks, and nothing else."""
    old = {*folder.files(), *RunFolder(folder.path, 2).files(), *RunFolder(folder.path, 1).files()} - {folder.lock}
    try:
        for path in sorted(old):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot replace the run in {folder.path}: {error}.") from error
