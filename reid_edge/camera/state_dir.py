"""The folder of an agent's state: making it, and what is wrong with its disk."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from reid_edge.errors import SettingsError

#: An outbox needs about this much at once: its file, and a log of 16 MB.
LEAST_FREE_BYTES = 32_000_000
#: Errors of a disk that may be well again: the agent starts without its outbox, and tries again.
_MAY_PASS = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)


def make_state_dir(path: Path) -> None:
    """Make the folder, for this user alone, unless its disk is full, read-only or failing: that may pass.

    Raises:
        SettingsError: It cannot be made, and trying again would not help.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in _MAY_PASS:
            return
        raise SettingsError(
            f"operation.state_dir: the folder {path} cannot be made: {error.strerror}. Make it for the user that runs "
            f"the agent (install -d -m 0700 -o USER {path}), or give another (--state-dir). Under systemd leave it "
            "out: StateDirectory= is taken then."
        ) from error


def disk_trouble(path: Path) -> str:
    """Return why the disk of a file, perhaps not made yet, takes nothing or little; "" if it does."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:
            return f"the disk of {folder} is read-only"
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"the disk of {folder} fails: {error.strerror}"
    return f"the disk of {folder} has {free / 1e6:.0f} MB free" if free < LEAST_FREE_BYTES else ""
