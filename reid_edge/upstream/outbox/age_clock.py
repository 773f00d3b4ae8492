"""The ages of an outbox's rows, on machines whose clock cannot be trusted.

A camera may boot in 1970, and its clock may be corrected, or set wrong, at any moment.  So rows are not aged by the
time of day, but by a count of microseconds that only goes forward and is kept in the database:

* While the machine is on, it counts with ``CLOCK_BOOTTIME``, which nobody sets; also while the process is down, since
  the kernel's boot id shows that it was the same boot.
* Time switched off can only be learnt from the time of day.  It is added once the clock has run for 15 minutes without
  being set, at a plausible year, both before the machine was switched off and after.  So a clock that starts in 1970,
  or is wrong for a moment, ages nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from reid_edge.upstream.clocks import STEADY_US, STEP_US, Reading, is_plausible, read_clocks

#: A hundred years: no count is larger.
MOST_AGE_US = 100 * 365 * 86400 * 1_000_000


@dataclass(frozen=True)
class AgeState:
    """The part of an age clock that the database keeps.

    Attributes:
        age_us: The count at ``boot_us`` of ``boot``.
        boot: Names a boot.
        boot_us: Microseconds since that boot.
        steady_wall_us: The last time of day that was believed, microseconds since 1970 UTC; 0 for none.
        steady_age_us: The count at that moment.
        steady_boot: The boot at that moment.
    """

    age_us: int = 0
    boot: str = ""
    boot_us: int = 0
    steady_wall_us: int = 0
    steady_age_us: int = 0
    steady_boot: str = ""

    def healed(self, newest_us: int) -> AgeState:
        """Return the state without what cannot be, so that damage expires neither everything nor nothing for ever.

        Args:
            newest_us: The count when the newest row was put.
        """
        if self.age_us > MOST_AGE_US:
            return AgeState(age_us=newest_us)
        if not is_plausible(self.steady_wall_us) or self.steady_age_us > self.age_us:
            return replace(self, steady_wall_us=0, steady_age_us=0, steady_boot="")
        return self


class AgeClock:
    """A count of microseconds that never goes back.

    Args:
        state: From the database.
        read: Reads the machine's clocks.
    """

    def __init__(self, state: AgeState, read: Callable[[], Reading] = read_clocks) -> None:
        self._read = read
        reading = read()
        if state.boot != reading.boot or state.boot_us > reading.boot_us:
            state = replace(state, boot=reading.boot, boot_us=reading.boot_us)
        self._state = state
        self._offset_us = reading.wall_us - reading.boot_us
        self._steady_since_us = reading.boot_us

    def now_us(self) -> int:
        """Return the count now."""
        return self._age_us(self._read())

    def state(self) -> AgeState:
        """Return the state for the database to keep."""
        reading = self._read()
        return replace(self._state, age_us=self._age_us(reading), boot_us=reading.boot_us)

    def settle(self) -> None:
        """Add time switched off, if the time of day can be believed; to be called every minute or so."""
        reading = self._read()
        offset_us = reading.wall_us - reading.boot_us
        if abs(offset_us - self._offset_us) > STEP_US:
            self._steady_since_us = reading.boot_us
        self._offset_us = offset_us
        if reading.boot_us - self._steady_since_us < STEADY_US or not is_plausible(reading.wall_us):
            return
        state, age_us = self._state, self._age_us(reading)
        if state.steady_wall_us and state.steady_boot != reading.boot:
            age_us += max(0, (reading.wall_us - state.steady_wall_us) - (age_us - state.steady_age_us))
        self._state = AgeState(age_us, reading.boot, reading.boot_us, reading.wall_us, age_us, reading.boot)

    def _age_us(self, reading: Reading) -> int:
        return self._state.age_us + max(0, reading.boot_us - self._state.boot_us)
