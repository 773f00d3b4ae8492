"""Damaged rows of a store: left out of answers, counted, logged, and shown."""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger(__name__)

#: A damage is logged at most so often.
LOG_EVERY_S = 60.0


class DamagedRows:
    """The rows that a store has found damaged since it was opened; may be used from several threads.

    Args:
        name: The store's URI.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._rows: set[str] = set()
        self._logged_at = -LOG_EVERY_S

    def note(self, row: object) -> None:
        """Take note of a damaged row, named by its number or id."""
        with self._lock:
            self._rows.add(str(row))
            due = time.monotonic() - self._logged_at >= LOG_EVERY_S
            self._logged_at = time.monotonic() if due else self._logged_at
        if due:
            log.error("%s", self.trouble)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    @property
    def trouble(self) -> str:
        """What a person has to know; empty if no row is damaged."""
        if not self._rows:
            return ""
        shown = sorted(self._rows)
        some = ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")
        return (
            f"{len(shown)} stored observations are damaged and left out of answers ({some}); to put a backup back: "
            f"reid-edge gallery restore BACKUP {self._name} --force"
        )
