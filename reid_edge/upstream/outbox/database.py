"""SQLite databases of outboxes: made, opened, migrated, and their transactions and logs.

The functions take the path of the file; :class:`~reid_edge.upstream.outbox.file.OutboxFile` decides when to call them.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from reid_edge.errors import OutboxError
from reid_edge.files import identity, sync_folder
from reid_edge.upstream.outbox.connection import open_file
from reid_edge.upstream.outbox.folder import has_log, log_path, new_path, remove_new
from reid_edge.upstream.outbox.records import malformed
from reid_edge.upstream.outbox.tables import TABLE_NAMES, migrate_from_1, schema, table_definitions, table_names

APPLICATION_ID = 0x52654964
#: Each format has other table definitions than those before: a higher number with these is taken for damage.
SCHEMA_VERSION = 2
Synchronous = Literal["FULL", "NORMAL"]
Result = TypeVar("Result")

#: Seven fp16 rows to a page, 3 % unused; with SQLite's default of 4096, 19 % would be unused.
_PAGE_BYTES = 8192
_WAL_PAGES = 1000
#: 34 GB: a header that tells more is damaged.
_MOST_PAGES = 1 << 22


def pad(path: Path) -> None:
    """Lengthen a file that was cut to the length that its header tells, with zeros, else SQLite reads nothing of it.

    Raises:
        OSError: It cannot be read or lengthened.
    """
    with path.open("r+b") as file:
        header = file.read(32)
        page_bytes, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
        if page_bytes == _PAGE_BYTES and pages <= _MOST_PAGES and path.stat().st_size < page_bytes * pages:
            file.truncate(page_bytes * pages)


def connect(path: Path) -> sqlite3.Connection:
    """Open a file that :func:`build` made; one of an earlier format is migrated in place, whole or not at all.

    Raises:
        sqlite3.Error: It cannot be opened, or is damaged.
        OutboxError: It is another program's database, or a later release's.
    """
    path.chmod(0o600)
    connection = open_file(path, timeout=1.0)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # no shared memory: works on any file system
        version = _check_kind(path, connection)
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {2 * _WAL_PAGES * _PAGE_BYTES}")
        if version == 1:
            _migrate(connection)
        if table_definitions(connection) != schema():
            raise malformed("not the columns of an outbox")
    except BaseException:
        connection.close()
        raise
    return connection


def build(path: Path, fill: Callable[[sqlite3.Connection], Result]) -> Result:
    """Make another file for an outbox, whole or not at all; ``folder.install`` puts it in its place.

    Args:
        path: The outbox.
        fill: Makes the tables, in one transaction.

    Raises:
        sqlite3.Error: It cannot be written.
        OSError: It cannot be written.
    """
    new = new_path(path)
    remove_new(path)
    try:
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with contextlib.closing(open_file(new)) as connection:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("BEGIN")
            result = fill(connection)
            connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(OSError):
            remove_new(path)
        raise
    return result


def give_up_log(path: Path, connection: sqlite3.Connection) -> None:
    """Move the write-ahead log's content into the file, close it, and make sure that the log is gone for good.

    SQLite finds a log by its name: one that came back after a power cut would be applied to the file that has the name
    by then.

    Raises:
        OutboxError: The log cannot be emptied.
        OSError: The folder cannot be synced.
    """
    with contextlib.closing(connection):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if has_log(path):
            raise OutboxError(f"the log of the outbox {path} cannot be emptied. Free space on its disk.")
    log_path(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def close_stray(path: Path, connection: sqlite3.Connection, log: tuple[int, int] | None) -> None:
    """Close a database whose file is no longer at its path; ``log`` is the identity of its write-ahead log.

    SQLite deletes the log by name, and by now that may be the log of another file: such a log is kept.
    """
    place, kept = log_path(path), path.with_name(f"{path.name}-wal.kept")
    foreign = identity(place) not in (None, log)
    if foreign:
        place.replace(kept)
    with contextlib.suppress(sqlite3.Error):
        connection.close()
    if foreign:
        kept.replace(place)
    else:
        place.unlink(missing_ok=True)


def empty_log(path: Path, connection: sqlite3.Connection) -> bool:
    """Move the write-ahead log's content into the file to free its space; return whether there was any to free."""
    try:
        before = log_path(path).stat().st_size
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except (OSError, sqlite3.Error):
        return False
    return before > 0


def transaction(connection: sqlite3.Connection, work: Callable[[], Result]) -> Result:
    """Run ``work`` and commit what it did, or nothing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        result = work()
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return result


def transaction_making_room(path: Path, connection: sqlite3.Connection, work: Callable[[], Result]) -> Result:
    """Run ``work`` in a transaction; if the disk has no room, empty the log into the file and run it once more."""
    try:
        return transaction(connection, work)
    except sqlite3.OperationalError:
        if not empty_log(path, connection):
            raise
        return transaction(connection, work)


def _migrate(connection: sqlite3.Connection) -> None:
    def work() -> None:
        migrate_from_1(connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    transaction(connection, work)


def _check_kind(path: Path, connection: sqlite3.Connection) -> int:
    """Return the number of the file's format."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = table_names(connection)
    if application != APPLICATION_ID and tables and not tables >= TABLE_NAMES:
        raise OutboxError(f"{path} is another program's SQLite database. Give the outbox a file of its own.")
    if version > SCHEMA_VERSION and table_definitions(connection) != schema():
        raise OutboxError(
            f"the outbox {path} has format {version}, and this release reads {SCHEMA_VERSION}. "
            "Run the later release until it has delivered everything, or use another file."
        )
    if not tables >= TABLE_NAMES or application != APPLICATION_ID or not 1 <= version <= SCHEMA_VERSION:
        raise malformed("not the tables of an outbox")
    return int(version)
