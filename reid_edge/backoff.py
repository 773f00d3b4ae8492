"""Exponential backoff: nothing is sent for a while after a failure, and longer after each failure in a row."""

from __future__ import annotations

import logging
import random
import threading
import time

from reid_edge.errors import TransportError

#: Seconds of the first and the longest pause after a failure that passes by itself.
TRANSIENT_S = (0.5, 30.0)
#: The same after a failure that a person has to fix.
PERMANENT_S = (30.0, 600.0)


class Backoff:
    """Counts failures, logs the first of each kind, and says how long to wait.

    All methods may be called from any thread.

    Args:
        log: Receives the failures: as warnings if they pass by themselves, as errors if not.
        transient_s: Seconds of the first and the longest pause after a failure that passes by itself.
        permanent_s: The same after a failure that a person has to fix.

    Attributes:
        failures: Number of failures so far.
        alerts: Number of those that a person has to fix.
        reason: The last failure, without a full stop; empty after a success.
    """

    def __init__(
        self,
        log: logging.Logger,
        *,
        transient_s: tuple[float, float] = TRANSIENT_S,
        permanent_s: tuple[float, float] = PERMANENT_S,
    ) -> None:
        self.failures = 0
        self.alerts = 0
        self.reason = ""
        self._log = log
        self._pauses_s = (transient_s, permanent_s)
        self._in_a_row = 0
        self._until = 0.0
        self._lock = threading.Lock()

    def failed(self, reason: str, *, permanent: bool = False, at_least_s: float = 0.0) -> float:
        """Note a failure; returns the seconds to wait.  Failures during a pause do not make it longer.

        Args:
            reason: The cause, for a person.
            permanent: A person has to fix it.
            at_least_s: Shortest pause, as asked for by the other end.
        """
        reason = reason.rstrip(" .")  # it may be a sentence, and callers append to it
        with self._lock:
            self.failures += 1
            self.alerts += permanent
            news = reason != self.reason
            self.reason = reason
            now = time.monotonic()
            if now >= self._until:
                pause = exponential_pause_s(self._in_a_row, *self._pauses_s[permanent])
                self._in_a_row += 1
                self._until = now + max(at_least_s, pause)
            left = self._until - now
        if news:
            self._log.log(logging.ERROR if permanent else logging.WARNING, "%s; next attempt in %.1f s", reason, left)
        return left

    def succeeded(self) -> None:
        """Forget earlier failures: the other end accepts again."""
        if self.reason:
            with self._lock:
                self.reason, self._in_a_row, self._until = "", 0, 0.0

    def check(self) -> None:
        """Refuse to go on during a pause.

        Raises:
            TransportError: The pause after the last failure is not over; names that failure.
        """
        if time.monotonic() < self._until:
            raise TransportError(f"{self.reason}.")


def exponential_pause_s(failures: int, first_s: float, longest_s: float) -> float:
    """Return the seconds to wait after ``failures`` earlier failures in a row: doubled each time, up to the longest.

    Up to a half is taken off at random, so that thousands of cameras that lost one broker do not return all at once.
    """
    return min(longest_s, first_s * 2.0 ** min(failures, 16)) * random.uniform(0.5, 1.0)  # noqa: S311
