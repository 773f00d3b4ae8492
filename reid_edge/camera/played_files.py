"""Files that were run for a camera: one that is run again puts the same people into the gallery twice."""

from __future__ import annotations

import json
from pathlib import Path

from reid_edge.files import write_whole

_NAME = "played.json"
#: Number of files that are remembered, the last ones.
_MOST = 1000


def played_us(state_dir: Path, file: Path) -> int | None:
    """Return when a file, unchanged since, was run for this camera, microseconds since 1970 UTC; None if it was not."""
    at_us = _noted(state_dir).get(_key(file))
    return at_us if isinstance(at_us, int) else None


def note_played(state_dir: Path, file: Path, *, now_us: int) -> None:
    """Remember that a file was run for this camera.

    Raises:
        OutputError: The folder cannot be written.
        OSError: The file has gone.
    """
    noted = _noted(state_dir)
    noted.pop(_key(file), None)
    kept = list(noted.items())[-_MOST + 1 :]
    write_whole(state_dir / _NAME, json.dumps(dict([*kept, (_key(file), now_us)])).encode(), private=True)


def _noted(state_dir: Path) -> dict[str, object]:
    try:
        noted = json.loads((state_dir / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _key(file: Path) -> str:
    found = file.stat()
    return f"{file.resolve()} {found.st_size} {found.st_mtime_ns}"
