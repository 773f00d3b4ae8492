"""Files of /proc and /sys: what the system does not tell is absent, never an error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

#: Where the system's own files start; another folder holds a recorded copy.
ROOT = Path("/")


def read_text(path: Path) -> str:
    """A file's text without white space and NUL around it; "" where it is absent or refuses to be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
    except OSError:  # sysfs also answers EAGAIN, EINVAL or ENODATA for a sensor that sleeps
        return ""


def read_integer(path: Path) -> int | None:
    """A file's one number; None where there is none."""
    try:
        return int(read_text(path))
    except ValueError:
        return None


def read_fields(path: Path, separator: str = ":") -> dict[str, str]:
    """Lines ``key: value`` as in /proc/meminfo; of a repeated key the first."""
    fields: dict[str, str] = {}
    for line in read_text(path).splitlines():
        key, found, value = line.partition(separator)
        if found:
            fields.setdefault(key.strip(), value.strip())
    return fields


def numbered(paths: Iterable[Path]) -> list[Path]:
    """Sorted by the numbers in the names, so that cpu10 comes after cpu9."""
    return sorted(paths, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])


def listed(ranges: str) -> list[int]:
    """Return the numbers of a list such as ``0-3,6``."""
    spans = [part.partition("-") for part in ranges.split(",") if part.strip()]
    return [number for first, _, last in spans for number in range(int(first), int(last or first) + 1)]
