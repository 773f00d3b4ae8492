"""Wall clocks that are wrong: of a whole process, moved by libfaketime while it runs."""

from __future__ import annotations

import select
import time
from pathlib import Path

import pytest

_LIBRARY = next((path for path in sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))), None)

#: ``reid-edge`` under a clock: ``python -c PROGRAM run ...``.
PROGRAM = """
from tests.faults.clocks import sleep_under_libfaketime
sleep_under_libfaketime()
from reid_edge.__main__ import main
main()
"""


class Clock:
    """The wall clock of one process; its monotonic clocks go on as they are.

    Args:
        path: File that holds the offset.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set("+0")

    def set(self, offset: str) -> None:
        """Move the clock by an offset such as ``+4d``, ``-1h``, ``+365d``; the process sees it within a second."""
        beside = self._path.with_suffix(".new")
        beside.write_text(offset + "\n", encoding="ascii")
        beside.replace(self._path)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to see this clock; nothing where libfaketime is not installed."""
        if _LIBRARY is None:
            return {}
        return {
            "LD_PRELOAD": str(_LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # before libfaketime 0.9.9
        }


def can_be_wrong() -> bool:
    """Return whether libfaketime is installed."""
    return _LIBRARY is not None


def need_faketime() -> None:
    """Skip the test where clocks cannot be moved."""
    if not can_be_wrong():
        pytest.skip("libfaketime is not installed: no wrong clocks here")


def sleep_under_libfaketime() -> None:
    """Let this process sleep by select(2): libfaketime 0.9 breaks clock_nanosleep when monotonic clocks are right."""
    time.sleep = lambda seconds: select.select([], [], [], seconds) and None
