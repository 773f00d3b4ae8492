"""Files that are there whole or not at all, and held by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TextIO

from reid_edge.errors import OutputError, ReidEdgeError

_PARTIAL = ".reid-edge.*.partial"


def open_locked(path: Path, *, busy: str, error: type[ReidEdgeError] = OutputError, private: bool = False) -> TextIO:
    """Open a lock file that nobody else holds; closing it, or the end of the process, releases the lock.

    Args:
        path: The lock file; made if it is not there.
        busy: Message if another process, or another opening in this one, holds the lock.
        error: Raised with that message.
        private: Make the file readable by this user alone.

    Raises:
        OSError: It cannot be opened, or is a symbolic link.
        ReidEdgeError: An ``error``: somebody else holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    lock = os.fdopen(os.open(path, flags, 0o600 if private else 0o666), "w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        lock.close()
        raise error(busy) from failure
    return lock


def identity(path: Path) -> tuple[int, int] | None:
    """Return (device, inode) of the file at a path; None if there is none.

    Raises:
        OSError: The path cannot be examined.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def check_output(path: Path, *, force: bool, parents: bool = False) -> None:
    """Refuse an output file that cannot be written, before the work that makes its content.

    Args:
        path: The file to be written.
        force: Accept that it exists.
        parents: Accept that its folder does not exist, where ``write_whole`` is to make it.

    Raises:
        OutputError: It is a folder, it exists while ``force`` is off, its folder is not writable, or the file system
            does not take such a name.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; use another name.") from error
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give a file name.")
    if path.exists() and not force:
        raise OutputError(f"{path} exists already; use --force to replace it, or another name.")
    folder = path.absolute().parent
    if parents:
        folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write {path}: {folder} is not a writable folder; make it first, or use another.")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that at any time, also after a power cut, either the old or the new content is there.

    The folder is made if it is not there.

    Raises:
        OutputError: It cannot be written; the old content stays.
    """
    # Not from the file's own name: that may be as long as a name can be.
    partial = path.with_name(_PARTIAL.replace("*", str(os.getpid())))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; what was there before stays. Choose a writable folder "
            "with room for it."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the error above says more
            partial.unlink(missing_ok=True)


def remove_partials(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left, from a folder in which nobody writes now."""
    for partial in folder.glob(_PARTIAL):
        with contextlib.suppress(OSError):  # it is in nobody's way
            partial.unlink()
