"""Reading of /proc and /sys: a file that is absent or refuses to be read gives nothing, never an error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

#: Folder that the system's own files lie under; tests pass a folder with a recorded copy.
ROOT = Path("/")


def read_text(path: Path) -> str:
    """Return a file's text without white space and NUL around it; "" where it is absent or refuses to be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
    except OSError:  # sysfs also answers EAGAIN, EINVAL or ENODATA for a sensor that sleeps
        return ""


def read_integer(path: Path) -> int | None:
    """Return a file's one integer; None where there is none."""
    try:
        return int(read_text(path))
    except ValueError:
        return None


def read_fields(path: Path, separator: str = ":") -> dict[str, str]:
    """Return lines ``key: value`` as in /proc/meminfo; of a repeated key the first."""
    fields: dict[str, str] = {}
    for line in read_text(path).splitlines():
        key, found, value = line.partition(separator)
        if found:
            fields.setdefault(key.strip(), value.strip())
    return fields


def numbered(paths: Iterable[Path]) -> list[Path]:
    """Sort paths by the numbers in their names, so that cpu10 comes after cpu9."""
    return sorted(paths, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])


def listed(ranges: str) -> list[int]:
    """Return the numbers of a list such as ``0-3,6``."""
    spans = [part.partition("-") for part in ranges.split(",") if part.strip()]
    return [number for first, _, last in spans for number in range(int(first), int(last or first) + 1)]
