"""Files that are there whole or not at all, and held by one process at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from reid_edge.errors import OutputError, ReidEdgeError

PARTIAL_SUFFIX = ".partial"
_PARTIAL = f".reid-edge.*{PARTIAL_SUFFIX}"
#: What a process of another container began, whose number means nothing here, is left over after so long.
_ABANDONED_S = 24 * 3600.0


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
    while True:
        lock = os.fdopen(os.open(path, flags, 0o600 if private else 0o666), "w", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            lock.close()
            raise error(busy) from failure
        held = os.fstat(lock.fileno())
        if identity(path) == (held.st_dev, held.st_ino):
            return lock
        lock.close()  # who held it before has removed it: others lock the file that is there now


@contextlib.contextmanager
def acting_as_owner(path: Path) -> Iterator[None]:
    """While this process is root, take the rights of the owner of ``path``: what it makes there is the owner's.

    Without it the files that an administrator's command leaves beside a service's data would shut the service out.
    The rights are the whole process's, so this is for commands, not beside other threads.

    Raises:
        OSError: There is no such path.
    """
    owner, group = path.stat(), os.getegid()
    if os.geteuid() != 0 or owner.st_uid == 0:
        yield
        return
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


def read_regular(
    path: Path,
    *,
    max_bytes: int,
    check: Callable[[os.stat_result], None] = lambda _found: None,
    follow_link: bool = True,
) -> bytes:
    """Read a file whole, once; what is done with its content then does not depend on what becomes of the file.

    A named pipe or a device is refused instead of waited for, and no more than ``max_bytes`` are taken into memory.

    Args:
        path: The file.
        max_bytes: Largest size to accept.
        check: Called with owner and mode of the very file that is read; its exceptions come through.
        follow_link: Accept a symbolic link.

    Raises:
        OSError: It is missing, unreadable or no regular file (``EINVAL``), longer (``EFBIG``), or a link (``ELOOP``).
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_link else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error)) from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        check(found)
        content = bytearray()
        while len(content) <= max_bytes and (block := file.read(1 << 20)):
            content += block
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is longer than {max_bytes} bytes")
    return bytes(content)


def check_owned(found: os.stat_result, *, by_root_too: bool = False) -> None:
    """Refuse a file or folder that another user may have written.

    Args:
        found: Of ``os.lstat`` or ``os.fstat``.
        by_root_too: Accept what belongs to root.

    Raises:
        OSError: It is another's, others may write it, or it is a symbolic link (``EPERM``).
    """
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.EPERM, "it is a symbolic link")
    if found.st_uid != os.geteuid() and not (by_root_too and found.st_uid == 0):
        raise OSError(errno.EPERM, f"it belongs to user {found.st_uid}, this is user {os.geteuid()}")
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(errno.EPERM, f"others may write it: mode {mode:o}")


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


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk.

    Raises:
        OSError: It cannot be opened, or the disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def write_whole(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a file so that at any time, also after a power cut, either the old or the new content is there.

    The folder is made if it is not there.

    Args:
        path: The file.
        content: What it is to hold.
        private: Make it readable by this user alone.

    Raises:
        OutputError: It cannot be written; the old content stays.
    """
    partial = partial_of(path)
    remove_abandoned(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(partial, flags, 0o600 if private else 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; the existing file is unchanged. Choose a writable folder "
            "with room for it."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the error above says more
            partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Return another path each time, in the same folder, at which this process writes a file before it gets its name.

    The name is not made from the file's own, which may be as long as a name can be.
    """
    return path.with_name(_PARTIAL.replace("*", f"{os.getpid()}-{secrets.token_hex(4)}-{_numbering()}"))


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left, and nothing of those that still write."""
    for partial in folder.glob(f"{_PARTIAL}*"):  # SQLite adds to a name
        with contextlib.suppress(OSError):  # it is in nobody's way
            if _abandoned(partial):
                partial.unlink()


def _abandoned(partial: Path) -> bool:
    pid, _, rest = partial.name.split(".")[2].partition("-")
    if rest.endswith(f"-{_numbering()}") and pid.isdigit():
        return not Path("/proc", pid).exists() and Path("/proc/self").exists()
    return time.time() - partial.lstat().st_mtime > _ABANDONED_S


def _numbering() -> int:
    """Return what tells in which container, if any, the numbers of processes are this one's; 0 if nothing does."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def remove_partials(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left, from a folder in which nobody writes now."""
    for partial in folder.glob(_PARTIAL):
        with contextlib.suppress(OSError):  # it is in nobody's way
            partial.unlink()
