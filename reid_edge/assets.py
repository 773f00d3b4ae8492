"""Files that ship with reid-edge: ``models/`` and ``calibration/``, in a checkout or inside an installed package."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
#: Where an installed package holds them, and where a checkout does.
_ROOTS = (_PACKAGE / "_assets", _PACKAGE.parent)


def asset(folder: str, name: str) -> Path | None:
    """Return the path of a shipped file, or None when there is no such file."""
    return next((path for root in _ROOTS if (path := root / folder / name).is_file()), None)


def assets(folder: str, pattern: str) -> list[Path]:
    """List the paths of the shipped files that match a pattern, in order of name."""
    return next((found for root in _ROOTS if (found := sorted((root / folder).glob(pattern)))), [])
