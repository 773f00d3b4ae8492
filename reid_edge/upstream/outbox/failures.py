"""What an error of SQLite or of the disk means for an outbox, and what to advise."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from reid_edge.errors import OutboxError

#: Words of SQLite's errors that tell of the machine, not of the file's content.
_MACHINE = ("full", "readonly", "read-only", "locked", "busy", "unable to open", "disk i/o error", "interrupted")


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error that SQLite raises at opening comes from what is in the file."""
    # By its words: Python 3.10 has no sqlite_errorcode.
    return not isinstance(error, sqlite3.OperationalError) or not any(words in str(error).lower() for words in _MACHINE)


def is_io_error(error: sqlite3.Error) -> bool:
    """Return whether SQLite could not read or write; a file that is shorter than it should be is one reason."""
    return "disk i/o error" in str(error).lower()


def is_unreadable(error: sqlite3.Error, *files: Path) -> bool:
    """Return whether an error comes from a disk that fails to read one of the files."""
    if not is_io_error(error):
        return False
    for one in files:
        try:
            with one.open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
        except OSError as failure:
            if failure.errno == errno.EIO:
                return True
    return False


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
