"""The files of an outbox in their folder: claimed by one process, put in their places, renamed and deleted.

Each function takes the path of the outbox; its lock, log, mark and new file lie beside it.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from reid_edge.errors import OutboxError, OutboxInUseError
from reid_edge.files import identity, open_locked, sync_folder
from reid_edge.upstream.outbox.failures import outbox_error
from reid_edge.upstream.outbox.mark import mark_path

_LOG = logging.getLogger(__name__)


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


def still_locked(path: Path, held: TextIO) -> bool:
    """Return whether the file that :func:`lock` locked is still the one at its place."""
    found = os.fstat(held.fileno())
    return identity(_lock_path(path)) == (found.st_dev, found.st_ino)


def install(path: Path) -> None:
    """Put the file that :func:`~reid_edge.upstream.outbox.database.build` made in its place.

    Raises:
        OSError: It cannot be renamed.
    """
    _remove_logs(path)  # of a file that is gone: SQLite would apply them to the new one
    sync_folder(path.parent)  # so that they do not come back after a power cut
    new_path(path).replace(path)
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
    """Delete an outbox that is not open, with all that belongs to it but its lock, which the caller holds.

    Raises:
        OutboxError: It cannot be deleted.
    """
    try:
        for each in (log_path(path), mark_path(path), path):
            each.unlink(missing_ok=True)
            sync_folder(path.parent)
    except OSError as error:
        raise outbox_error(path, "deleting", error) from error


def remove_with_lock(path: Path) -> None:
    """Delete an outbox that nobody has open, with all that belongs to it.

    Raises:
        OutboxInUseError: Somebody has it open.
        OutboxError: It cannot be deleted.
    """
    with contextlib.closing(lock(path)):
        remove(path)
        with contextlib.suppress(OSError):  # a lock that nobody holds is in nobody's way
            _lock_path(path).unlink()


@contextlib.contextmanager
def removed_if_new(path: Path) -> Iterator[None]:
    """Delete an outbox, and its folder, that are made in a block which then fails, if nothing of an outbox was there.

    Args:
        path: The outbox, which the block has closed when it ends.
    """
    folder_is_new, is_new = not path.parent.exists(), not any(path.parent.glob(f"{path.stem}*"))
    try:
        yield
    except BaseException:
        if is_new and path.parent.exists():
            with contextlib.suppress(OutboxError):
                remove_with_lock(path)
            if folder_is_new:
                with contextlib.suppress(OSError):  # something else is in it
                    path.parent.rmdir()
        raise


def clear_way(path: Path) -> None:
    """Rename what is in the way of the outbox's files without being one of them: folders, links, sockets.

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


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def new_path(path: Path) -> Path:
    """Return where another file for the outbox is made."""
    return path.with_name(f"{path.name}.new")


def _now() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def remove_new(path: Path) -> None:
    """Delete what is left of another file that was to be made.

    Raises:
        OSError: It cannot be deleted.
    """
    new_path(path).unlink(missing_ok=True)
    _remove_logs(new_path(path))


def _remove_logs(path: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
