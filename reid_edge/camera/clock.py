"""Time for captured frames: UTC that never runs backwards."""

from __future__ import annotations

import time
from collections.abc import Callable


class CaptureClock:
    """The wall clock, held to run at half the speed of the monotonic clock or faster.

    A wall clock that is set forward (a board without a battery that has found its time server) is followed at once.
    One that is set back is caught up with at half speed, so that time neither stops nor runs backwards, and the speed
    of what moves is wrong by a factor of two at most.  One clock serves one thread.

    Args:
        wall_ns: Nanoseconds since 1970 UTC.
        monotonic_ns: Nanoseconds of a clock that nobody sets.
    """

    def __init__(
        self, *, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._last_ns = wall_ns()
        self._last_monotonic_ns = monotonic_ns()

    def now_us(self) -> int:
        """Microseconds since 1970 UTC, never less than the last time."""
        monotonic_ns = self._monotonic_ns()
        elapsed = monotonic_ns - self._last_monotonic_ns
        self._last_ns = max(self._wall_ns(), self._last_ns + elapsed // 2)
        self._last_monotonic_ns = monotonic_ns
        return self._last_ns // 1000
