"""The SQLite file of a gallery: connections to it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from reid_edge.errors import UPGRADE, StoreError
from reid_edge.foreign_text import lenient_text
from reid_edge.gallery.store.base import no_gallery
from reid_edge.gallery.store.damage import DAMAGED
from reid_edge.gallery.store.sqlite_tables import APPLICATION_ID, SCHEMA_VERSION, TABLES, migrate, statements

#: Longest wait for another process's commit.
WAIT_S = 5.0


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open a gallery's file: write-ahead log, fsync at every commit, deleted content overwritten.

    Args:
        path: Path of the file.
        create: Make it, readable by its owner alone, if there is none.

    Raises:
        StoreError: There is no file, it is not a gallery, or it cannot be opened.
    """
    with store_errors(path):
        _check_place(path)
        made = create and _create_file(path)
        if not create and not path.is_file():
            raise no_gallery(f"sqlite:{path}")
        # Absolute: SQLite gives ':memory:' a meaning of its own.
        connection = _opened(str(path.absolute()), is_uri=False)
        try:
            _check_or_make_tables(connection, path)
            connection.execute("PRAGMA secure_delete = ON")
            migrate(connection, path)
            for pragma in ("journal_mode = WAL", "synchronous = FULL"):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            if made:  # nothing half made stays, of a full disk say
                _remove_if_empty(path)
            raise
    return connection


def connect_again(path: Path) -> sqlite3.Connection:
    """Open a gallery's file that is open already, to read it meanwhile; a file that is gone is not made anew.

    Raises:
        sqlite3.Error: It cannot be opened.
    """
    place = f"{path.absolute().as_uri()}?mode=rw"
    return _opened(place, is_uri=True)


def _opened(place: str, *, is_uri: bool) -> sqlite3.Connection:
    """Open a file, to be used from any thread; a row whose text is damaged hides no other."""
    connection = sqlite3.connect(place, uri=is_uri, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
    connection.text_factory = lenient_text
    return connection


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite, the file system and damaged contents raise into :class:`StoreError`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        hint = repair_advice(path) if any(word in text for word in ("malformed", "not a database", "decode")) else ""
        raise StoreError(f"the gallery in {path} cannot be used: {text}.{hint}") from error
    except DAMAGED as error:
        raise StoreError(
            f"the gallery in {path} cannot be used: it is damaged: {error}.{repair_advice(path)}"
        ) from error


def repair_advice(path: Path) -> str:
    """Return what to do about a damaged file."""
    return (
        f" If it was a gallery, 'reid-edge gallery restore BACKUP sqlite:{path} --force' puts a backup in its place "
        "and keeps this file beside it."
    )


def _check_place(path: Path) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise StoreError(
            f"cannot open {path}: the folder {folder} does not exist. Make it (mkdir -p), or give another path."
        )
    if path.is_dir():
        raise StoreError(f"{path} is a folder; a gallery is a file: sqlite:{path / 'gallery.db'}, say.")


def _create_file(path: Path) -> bool:
    """Make an empty file; return False if there is one."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def _remove_if_empty(path: Path) -> None:
    """Remove a file into which nothing was written: no other process has made it a gallery meanwhile."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def _check_or_make_tables(connection: sqlite3.Connection, path: Path) -> None:
    if _is_empty(connection):
        connection.execute("BEGIN IMMEDIATE")
        if _is_empty(connection):  # no other process has made them meanwhile
            for statement in (*statements(TABLES), f"PRAGMA application_id = {APPLICATION_ID}"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is a database of something else, not a gallery; give another file.")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} is a gallery of format {version}; this release reads up to {SCHEMA_VERSION}. {UPGRADE}"
        )


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return not tables
