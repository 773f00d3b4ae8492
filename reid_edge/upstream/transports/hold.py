"""After a refusal nothing is sent for a while, and each refusal in a row makes the while longer."""

from __future__ import annotations

import logging
import random
import threading
import time

from reid_edge.errors import TransportError

#: Seconds: the first pause and the longest, for what passes by itself, and for what a person has to put right.
PASSING = (0.5, 30.0)
PERMANENT = (30.0, 600.0)


class Hold:
    """Counts refusals, logs the first of a kind, and says how long to wait.

    Args:
        log: Where refusals go: as warnings if they pass by themselves, as errors if not.
        passing: Seconds of the first and the longest pause after what passes by itself.
        permanent: The same after what a person has to put right.

    Attributes:
        refusals: Number of refusals so far.
        alerts: Those among them that a person has to put right.
        reason: The last one, without a full stop; empty when the other end accepts.
    """

    def __init__(
        self,
        log: logging.Logger,
        *,
        passing: tuple[float, float] = PASSING,
        permanent: tuple[float, float] = PERMANENT,
    ) -> None:
        self.refusals = 0
        self.alerts = 0
        self.reason = ""
        self._log = log
        self._pauses = (passing, permanent)
        self._in_a_row = 0
        self._until = 0.0
        self._lock = threading.Lock()

    def refused(self, reason: str, *, permanent: bool = False, at_least_s: float = 0.0) -> float:
        """Note a refusal; returns the seconds to wait.  Refusals during a pause do not make it longer."""
        reason = reason.rstrip(" .")  # it may be a sentence, and others go on after it
        with self._lock:
            self.refusals += 1
            self.alerts += permanent
            news = reason != self.reason
            self.reason = reason
            now = time.monotonic()
            if now >= self._until:
                self._until = now + max(at_least_s, self._next_pause(permanent))
            pause = self._until - now
        if news:
            self._log.log(logging.ERROR if permanent else logging.WARNING, "%s; next attempt in %.1f s", reason, pause)
        return pause

    def accepted(self) -> None:
        """The other end accepts again."""
        if self.reason:
            with self._lock:
                self.reason, self._in_a_row, self._until = "", 0, 0.0

    def check(self) -> None:
        """Raises TransportError during a pause."""
        if time.monotonic() < self._until:
            raise TransportError(f"{self.reason}.")

    def _next_pause(self, permanent: bool) -> float:
        first, longest = self._pauses[permanent]
        self._in_a_row += 1
        # Half of it by chance: thousands of cameras that lost one broker must not come back at the same moment.
        return min(longest, first * 2.0 ** min(self._in_a_row - 1, 16)) * random.uniform(0.5, 1.0)  # noqa: S311
