"""Folders in which cameras of this machine keep their state."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

#: Where 'reid-edge run' and the systemd unit keep the state of cameras, a folder each.
ROOTS = (Path("~/.local/state/reid-edge"), Path("/var/lib/reid-edge"))


def state_folders() -> Iterator[Path]:
    """Yield the folders in which cameras of this machine have kept state."""
    for root in ROOTS:
        try:
            folder = root.expanduser()
        except RuntimeError:  # this user has no home folder
            continue
        if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK):
            yield from sorted(each for each in folder.iterdir() if each.is_dir())
