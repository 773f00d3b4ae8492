"""Refusals in the camera's log: each kind of reason once."""

from __future__ import annotations

import logging
import re

MOST_KINDS = 16
_LONGEST = 300


class RefusalLog:
    """Which kinds of reasons have been logged; reasons that differ in digits alone are of one kind.

    Args:
        log: Where warnings go.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._kinds: set[str] = set()

    def note(self, reasons: list[str], waiting: int) -> None:
        """Log the kinds that are new; they are new again once nothing ``waiting`` is refused."""
        for reason in reasons:
            shown = " ".join(reason.split())[:_LONGEST]
            kind = re.sub(r"\d+", "", shown)
            if kind not in self._kinds and len(self._kinds) < MOST_KINDS:
                self._kinds.add(kind)
                self._log.warning(
                    "the gallery refuses observations: %s. Refused rows that wait in the outbox and are tried again: "
                    "%d",
                    shown.rstrip("."),
                    waiting,
                )
        if not waiting:
            self._kinds.clear()
