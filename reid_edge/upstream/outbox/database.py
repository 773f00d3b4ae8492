"""SQLite files of outboxes: made whole, opened by one process at a time, set aside when damaged.

The functions take the path of the file; :class:`~reid_edge.upstream.outbox.file.OutboxFile` decides when to call them.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TextIO, TypeVar

from reid_edge.errors import OutboxError, OutboxInUseError
from reid_edge.files import identity, open_locked, sync_folder
from reid_edge.upstream.outbox.connection import open_file
from reid_edge.upstream.outbox.mark import mark_path
from reid_edge.upstream.outbox.records import malformed
from reid_edge.upstream.outbox.tables import TABLE_NAMES, migrate_from_1, schema, table_definitions, table_names

APPLICATION_ID = 0x52654964
#: Each format has other table definitions than those before: a higher number with these is taken for damage.
SCHEMA_VERSION = 2
Synchronous = Literal["FULL", "NORMAL"]
Result = TypeVar("Result")
_LOG = logging.getLogger(__name__)

#: Seven fp16 rows to a page, 3 % unused; with SQLite's default of 4096, 19 % would be unused.
_PAGE_BYTES = 8192
_WAL_PAGES = 1000
#: 34 GB: a header that tells more is damaged.
_MOST_PAGES = 1 << 22


#: Words of SQLite's errors that tell of the machine, not of the file's content.
_MACHINE = ("full", "readonly", "read-only", "locked", "busy", "unable to open", "disk i/o error", "interrupted")


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error that SQLite raises at opening comes from what is in the file."""
    # By its words: Python 3.10 has no sqlite_errorcode.
    return not isinstance(error, sqlite3.OperationalError) or not any(words in str(error).lower() for words in _MACHINE)


def is_io_error(error: sqlite3.Error) -> bool:
    """Return whether SQLite could not read or write; a file that is shorter than it should be is one reason."""
    return "disk i/o error" in str(error).lower()


def is_unreadable(path: Path, error: sqlite3.Error) -> bool:
    """Return whether an error comes from a disk that fails to read the file or its log."""
    if not is_io_error(error):
        return False
    for one in (path, log_path(path)):
        try:
            with one.open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
        except OSError as failure:
            if failure.errno == errno.EIO:
                return True
    return False


def pad(path: Path) -> None:
    """Lengthen a file that was cut to the length that its header tells, with zeros: SQLite reads nothing of it else.

    Raises:
        OSError: It cannot be read or lengthened.
    """
    with path.open("r+b") as file:
        header = file.read(32)
        page_bytes, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
        if page_bytes == _PAGE_BYTES and pages <= _MOST_PAGES and path.stat().st_size < page_bytes * pages:
            file.truncate(page_bytes * pages)


def may_pass(error: OutboxError) -> bool:
    """Return whether an error comes from a disk that is full, read-only or failing, and may pass."""
    cause = error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)
    words = ("full", "readonly", "disk i/o error")
    return isinstance(cause, sqlite3.OperationalError) and any(word in str(cause).lower() for word in words)


def outbox_error(path: Path, doing: str, error: sqlite3.Error | OSError) -> OutboxError:
    """Make the error to raise after a failed read or write; its message advises what to do.

    Args:
        path: The outbox.
        doing: What failed: ``opening``, ``reading``, ``writing`` ...
        error: The failure.
    """
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    lowered = text.lower()
    if "full" in lowered or "no space" in lowered or "too large" in lowered:
        advice = f"Free space on its disk; {doing} works again then."
    elif "readonly" in lowered or "read-only" in lowered or "permission" in lowered or "unable to open" in lowered:
        advice = "It needs a folder that this user can write, on a disk that is not mounted read-only."
    elif "locked" in lowered:
        advice = "Another program has the file open; close it there."
    else:
        advice = "Look at the disk (dmesg) and at the folder's owner and mode."
    return OutboxError(f"cannot use the outbox {path} for {doing}: {text}. {advice}")


def lock(path: Path) -> TextIO:
    """Claim the outbox for this process, until the lock file is closed or the process ends in any way.

    Raises:
        OutboxError: Another process has it, or the folder cannot be written.
    """
    busy = (
        f"the outbox {path} is in use, by another process or another Outbox of this one. "
        "Stop that one first (systemctl stop reid-edge@NAME), or give each camera its own outbox file."
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        clear_way(path)
        return open_locked(_lock_path(path), busy=busy, error=OutboxInUseError, private=True)
    except OSError as error:
        raise outbox_error(path, "opening", error) from error


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
    """Make another file for an outbox, whole or not at all; :func:`install` puts it in its place.

    Args:
        path: The outbox.
        fill: Makes the tables, in one transaction.

    Raises:
        sqlite3.Error: It cannot be written.
        OSError: It cannot be written.
    """
    new = _new_path(path)
    _remove(new)
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
            _remove(new)
        raise
    return result


def install(path: Path) -> None:
    """Put the file that :func:`build` made in its place.

    Raises:
        OSError: It cannot be renamed.
    """
    _remove_logs(path)  # of a file that is gone: SQLite would apply them to the new one
    sync_folder(path.parent)  # so that they do not come back after a power cut
    _new_path(path).replace(path)
    sync_folder(path.parent)


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


def put_beside(path: Path, beside: Path) -> None:
    """Rename an outbox whose log is empty, with its mark, to keep it there.

    An interruption leaves it without a mark, or whole: never a mark without its outbox, which would declare a loss.

    Raises:
        OSError: It cannot be renamed.
    """
    with contextlib.suppress(FileNotFoundError):
        mark_path(path).replace(mark_path(beside))
        sync_folder(path.parent)
    path.replace(beside)
    sync_folder(path.parent)


def take_up(beside: Path, path: Path) -> None:
    """Rename an outbox that was kept, with its mark, to use it again.

    Raises:
        OSError: It cannot be renamed.
    """
    beside.replace(path)
    sync_folder(path.parent)
    with contextlib.suppress(FileNotFoundError):
        mark_path(beside).replace(mark_path(path))
        sync_folder(path.parent)


def remove(path: Path) -> None:
    """Delete an outbox that is not open, with all that belongs to it but its lock.

    Raises:
        OutboxError: It cannot be deleted.
    """
    try:
        for each in (log_path(path), mark_path(path), path):
            each.unlink(missing_ok=True)
            sync_folder(path.parent)
    except OSError as error:
        raise outbox_error(path, "deleting", error) from error


def clear_way(path: Path) -> None:
    """Rename what lies where files of the outbox belong and is none: folders, links, sockets.

    Raises:
        OSError: It cannot be renamed.
    """
    for suffix in (".lock", ".mark", ".new", ".new-wal", ".new-journal", "-wal", "-shm", "-journal"):
        place = path.with_name(path.name + suffix)
        try:
            found = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISREG(found.st_mode):
            away = place.with_name(f"{place.name}.in-the-way-{_now()}-{secrets.token_hex(2)}")
            place.rename(away)
            _LOG.warning("%s is no file of the outbox: it is renamed to %s.", place, away.name)


def log_path(path: Path) -> Path:
    """Return the path of a file's write-ahead log."""
    return path.with_name(f"{path.name}-wal")


def has_log(path: Path) -> bool:
    """Return whether a file has a write-ahead log with content, as after a kill or a power cut."""
    try:
        return log_path(path).stat().st_size > 0
    except OSError:
        return False


def still_locked(path: Path, held: TextIO) -> bool:
    """Return whether the file that :func:`lock` locked is still the one at its place."""
    found = os.fstat(held.fileno())
    return identity(_lock_path(path)) == (found.st_dev, found.st_ino)


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


def set_aside(path: Path) -> Path:
    """Rename a damaged file, with its write-ahead log; returns its new path.

    Files set aside earlier are deleted, since disks are small.

    Raises:
        OSError: It cannot be renamed.
    """
    remove_aside(path, older_than_s=-1)
    aside = path.with_name(f"{path.name}.corrupt-{_now()}")
    if aside.exists():  # a folder, or of another user
        aside = path.with_name(f"{aside.name}-{secrets.token_hex(2)}")
    with contextlib.suppress(FileNotFoundError):
        log_path(path).replace(log_path(aside))
    path.replace(aside)
    sync_folder(path.parent)
    return aside


def remove_aside(path: Path, *, older_than_s: float) -> None:
    """Delete damaged files that were set aside longer ago than rows are kept: they hold features too.

    A clock that jumps can make this early, which loses nothing that would be delivered.
    """
    for aside in _aside_files(path):
        with contextlib.suppress(OSError):
            if abs(time.time() - aside.stat().st_mtime) > older_than_s:
                aside.unlink()


def _aside_files(path: Path) -> Iterator[Path]:
    return path.parent.glob(f"{glob.escape(path.name)}.corrupt-*")


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrate_from_1(connection)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


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


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _new_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _now() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _remove_logs(path)


def _remove_logs(path: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
