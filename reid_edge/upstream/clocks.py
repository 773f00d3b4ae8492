"""The machine's clocks: read at one moment, and what of the time of day can be believed."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from pathlib import Path

#: A time of day is believed once the clock has run for so long without being set.
STEADY_US = 15 * 60 * 1_000_000
#: A clock that moves by more against ``CLOCK_BOOTTIME`` from one reading to the next has been set.
STEP_US = 5 * 1_000_000
#: 2026-01-01 and 2100-01-01: no earlier time of day is believed, and none from then on.
PLAUSIBLE_US, IMPLAUSIBLE_US = 1_767_225_600_000_000, 4_102_444_800_000_000

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_UPTIME = Path("/proc/uptime")
_NO_BOOT = str(uuid.uuid4())


@dataclass(frozen=True)
class Reading:
    """The machine's clocks at one moment.

    Attributes:
        boot: Names this boot of the machine.
        boot_us: Microseconds since that boot.
        wall_us: The machine's time of day, microseconds since 1970 UTC.
    """

    boot: str
    boot_us: int
    wall_us: int


def is_plausible(wall_us: int) -> bool:
    """Tell whether a time of day, microseconds since 1970 UTC, may be right at all: it lies from 2026 to 2099."""
    return PLAUSIBLE_US <= wall_us < IMPLAUSIBLE_US


def read_clocks() -> Reading:
    """Read the machine's clocks."""
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        boot = _NO_BOOT
    return Reading(boot, _since_boot_us(), time.time_ns() // 1000)


def _since_boot_us() -> int:
    """Return the kernel's count as /proc tells it: libraries that fake a process's clocks leave that alone."""
    try:
        seconds, hundredths = _UPTIME.read_text(encoding="ascii").split()[0].split(".")
        return int(seconds) * 1_000_000 + int(hundredths) * 10_000
    except (OSError, ValueError, IndexError):  # hidden, as by systemd's ProcSubset=pid
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
