"""Log lines about what others do or what lasts, so few that nobody can fill the log."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

#: Seconds between two lines about the same.
EVERY_S = 60.0
#: Most lines within that time about everything together.
MOST_LINES = 60
_MOST_KEYS = 10_000


class SparseLog:
    """Logs the first line about a subject, and another once a minute while there is cause; the others are counted.

    May be used from any thread.

    Args:
        log: Where the lines go.
        every_s: Seconds between two lines about the same subject.
        most: Most lines within that time about all subjects together.
        clock: Returns seconds that only grow.
    """

    def __init__(
        self,
        log: logging.Logger,
        *,
        every_s: float = EVERY_S,
        most: int = MOST_LINES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._every_s, self._most, self._clock = log, every_s, most, clock
        self._lock = threading.Lock()
        self._next: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._since, self._lines = clock(), 0

    def warning(self, subject: str, text: str, *values: object) -> None:
        """Log a line about a subject, unless there was one a short time ago.

        Args:
            subject: Lines of one subject are spaced.
            text: As for :meth:`logging.Logger.warning`.
            *values: Likewise.
        """
        kept_back = self.admits(subject)
        if kept_back is not None:
            more = f" ({kept_back} more since the last such line)" if kept_back else ""
            self._log.warning(f"{text}%s", *values, more)

    def admits(self, subject: str) -> int | None:
        """Return how many lines about a subject were kept back, if there may be one now; else count one, and None."""
        with self._lock:
            now = self._clock()
            due, kept_back = self._next.get(subject, (now, 0))
            if now < due or not self._room(now):
                self._remember(subject, max(due, now), kept_back + 1)
                return None
            self._remember(subject, now + self._every_s, 0)
            return kept_back

    def _room(self, now: float) -> bool:
        if now - self._since >= self._every_s:
            self._since, self._lines = now, 0
        self._lines += 1
        return self._lines <= self._most

    def _remember(self, subject: str, due: float, kept_back: int) -> None:
        self._next[subject] = (due, kept_back)
        self._next.move_to_end(subject)
        if len(self._next) > _MOST_KEYS:
            self._next.popitem(last=False)
