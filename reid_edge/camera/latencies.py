"""Percentiles of recent latencies."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

import numpy as np

PERCENTILES = (50, 90, 99)
#: How many durations are kept.
RECENT = 1024


def recent_latencies() -> deque[float]:
    """For the last durations, seconds; one thread appends, any may ask for percentiles."""
    return deque(maxlen=RECENT)


def percentiles(recent: Collection[float]) -> dict[int, float]:
    """Seconds at each of ``PERCENTILES``; empty before the first duration."""
    seconds = list(recent)  # in one step of the interpreter: another thread may be appending
    return dict(zip(PERCENTILES, map(float, np.percentile(seconds, PERCENTILES)), strict=True)) if seconds else {}
