"""Times: now, and as people write and read them."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone

from reid_edge.errors import UsageError

_RELATIVE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def now_us() -> int:
    """Return the time, microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def parse_time(text: str, *, now_us: int) -> int:
    """Return the microseconds since 1970 UTC of a time as a person writes it.

    Args:
        text: ``90s``, ``30m``, ``2h``, ``3d``, ``1w`` ago, ``now``, or ISO 8601: ``2026-11-23`` (its first moment),
            ``2026-11-23T14:05``, ``2026-11-23T13:05Z``; local time where no offset is given.
        now_us: The time from which ``ago`` counts.

    Raises:
        UsageError: The text is none of these.
    """
    text = text.strip()
    if text == "now":
        return now_us
    if relative := _RELATIVE.fullmatch(text):
        return max(0, now_us - int(float(relative[1]) * _SECONDS[relative[2]] * 1_000_000))
    try:
        # Python 3.10 reads no Z.
        moment = datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text)
        return int(moment.replace(microsecond=0).timestamp()) * 1_000_000 + moment.microsecond
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"expected a time like 2h or 3d (ago), 2026-11-23T14:05 (local) or 2026-11-23T13:05Z; got {text!a}."
        ) from error


def duration_text(duration_us: int) -> str:
    """Return a duration in hours, minutes or seconds: ``72 hours``, ``1.5 minutes``, ``0 s``."""
    seconds = max(0, duration_us) / 1_000_000
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= length:
            return f"{round(seconds / length, 2):.10g} {unit}"
    return f"{round(seconds, 1):g} s"


def time_text(moment_us: int | None, *, utc: bool = False) -> str:
    """Return a time to the second with its offset, in local time or UTC; ``–`` for None and for what is no date."""
    if moment_us is None:
        return "–"
    try:
        moment = datetime.fromtimestamp(moment_us // 1_000_000, timezone.utc)
        return (moment if utc else moment.astimezone()).isoformat(sep=" ")
    except (ValueError, OverflowError, OSError):
        return "–"
