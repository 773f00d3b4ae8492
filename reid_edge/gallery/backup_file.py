"""SQLite files made beside their places: whole or not at all, as one file, and checked."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from reid_edge.errors import OutputError, StoreError
from reid_edge.files import partial_of, remove_abandoned, sync_folder

#: What SQLite writes beside a file; the first is the write-ahead log.
SIDES = ("-wal", "-shm", "-journal")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give the path of a new file beside another; what is left of it at the end is removed."""
    partial = partial_of(path)
    remove_abandoned(path.parent)
    try:
        yield partial
    finally:
        for left in (partial, *(partial.with_name(partial.name + side) for side in SIDES)):
            left.unlink(missing_ok=True)


def make_one_file(path: Path) -> None:
    """Move all that is in a database's log into the file, which can be copied as such from then on."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")


def check_sound(path: Path, shown: Path) -> None:
    """Check the structure of a backup's file; ``shown`` is the path to name in an error.

    Raises:
        StoreError: It is damaged.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            found = "; ".join(str(row[0]) for row in db.execute("PRAGMA integrity_check(5)").fetchall())
    except (sqlite3.Error, UnicodeError) as error:  # what SQLite says may quote bytes of the file
        found = str(error)
    if found != "ok":
        raise StoreError(f"the backup {shown} is damaged ({found}); nothing was changed. Use another backup.")


def put_in_place(partial: Path, path: Path) -> None:
    """Give a file its name; the log of a file that had it before, which SQLite would apply to this one, is removed.

    Raises:
        OutputError: It cannot be renamed.
    """
    try:
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        for side in SIDES:
            path.with_name(path.name + side).unlink(missing_ok=True)
        sync_folder(path.parent)
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; the existing file is unchanged.") from error
