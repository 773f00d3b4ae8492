"""Capture times from a clock that may be wrong: it starts in 1970, is set, jumps for a moment, or is slewed."""

from __future__ import annotations

import time
from collections.abc import Callable

from reid_edge.upstream.clocks import is_plausible

#: A wall clock that differs by no more than this is followed smoothly: NTP's slewing, small steps, leap seconds.
STEP_US = 2_000_000
#: A wall clock that was set is believed once it has run for so long without being set again.
BELIEVED_US = 60_000_000


def boot_ns() -> int:
    """Return nanoseconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class CaptureClock:
    """UTC for capture times, which goes on evenly until the wall clock is surely another.

    * A small difference is followed: forward at once, backward at half speed, so that time never runs backwards.
    * A wall clock that was set, by more than two seconds, is not believed for a minute: times go on from what they
      were.  So a clock that is a year ahead for a second stamps nothing wrong.  If it stays, times are set to it, and
      the difference is added to ``correction_us``: times of different ``correction_us`` must not be compared.
    * A time before 2026 or after 2099 is never believed, except as the first one.  The first time between is believed
      at once: a machine without a battery, or with a damaged one, has found its time server.

    To be used by one thread; ``ahead_us`` and ``correction_us`` may be read from any.

    Args:
        wall_ns: Returns nanoseconds since 1970 UTC.
        monotonic_ns: Returns nanoseconds of a clock that is never set, and goes on while the machine sleeps.

    Attributes:
        correction_us: Sum of the steps by which times were set to the wall clock so far.
        found_us: What is to be added to times before 2026 or after 2099, once one between is known; 0 before, or if
            there are none.
        ahead_us: How far the wall clock is ahead of the last capture time, while it is not believed; else 0.
    """

    def __init__(self, *, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = boot_ns) -> None:
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns
        self._last_us = self._wall_us()
        self._last_boot_us = monotonic_ns() // 1000
        self._doubted: tuple[int, int] | None = None  # offset to the other clock, and since when it is that
        self.correction_us = 0
        self.found_us = 0
        self.ahead_us = 0

    def now_us(self) -> int:
        """Return microseconds since 1970 UTC; never less than the last time, unless ``correction_us`` has changed."""
        wall_us, boot_us = self._wall_us(), self._monotonic_ns() // 1000
        elapsed_us = max(0, boot_us - self._last_boot_us)
        expected_us = self._last_us + elapsed_us
        if abs(wall_us - expected_us) <= STEP_US:
            self._doubted, self.ahead_us = None, 0
            self._last_us = max(wall_us, self._last_us + elapsed_us // 2)
        elif self._is_believed(wall_us, boot_us, expected_us):
            self._doubted, self.ahead_us = None, 0
            self.correction_us += wall_us - expected_us
            if self.found_us or not is_plausible(expected_us):
                self.found_us = self.correction_us
            self._last_us = wall_us
        else:
            self.ahead_us = wall_us - expected_us
            self._last_us = expected_us
        self._last_boot_us = boot_us
        return self._last_us

    def _wall_us(self) -> int:
        """Return the wall clock's time; one before 1970 counts as 1970, since no observation can have it."""
        return max(0, self._wall_ns() // 1000)

    def _is_believed(self, wall_us: int, boot_us: int, expected_us: int) -> bool:
        """Tell whether times are to be set to a wall clock that was set."""
        if not is_plausible(wall_us) or not is_plausible(expected_us):
            self._doubted = None
            return is_plausible(wall_us)
        offset_us = wall_us - boot_us
        if self._doubted is None or abs(offset_us - self._doubted[0]) > STEP_US:
            self._doubted = offset_us, boot_us
        since_us = self._doubted[1]
        self._doubted = offset_us, since_us
        return boot_us - since_us >= BELIEVED_US
