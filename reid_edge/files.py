"""Files that are there whole or not at all, and held by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import TextIO

from reid_edge.errors import OutputError

_PARTIAL = ".reid-edge.*.partial"


def open_locked(path: Path, *, busy: str) -> TextIO:
    """Open a lock file that no other process holds; closing it gives it back.

    Raises:
        OSError: It cannot be opened.
        OutputError: Another process holds it; says ``busy``.
    """
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise OutputError(busy) from error
    return lock


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
