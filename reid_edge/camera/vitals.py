"""Vital signs of the agent: heartbeats of its stages, and recent latencies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from types import TracebackType

import numpy as np

PERCENTILES = (50, 90, 99)
#: Number of durations that are kept.
RECENT = 1024


class Heartbeat:
    """Held by a stage while it works on an item: tells a stage that hangs from one that waits.

    Attributes:
        beats: Number of items that were finished.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self.beats = 0

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._since = None
        self.beats += 1

    @property
    def busy_s(self) -> float:
        """Seconds that the stage has worked on its present item; 0 while it waits for one."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


def recent_latencies() -> deque[float]:
    """Return a buffer for the last durations in seconds: one thread appends, any thread may compute percentiles."""
    return deque(maxlen=RECENT)


def percentiles(recent: Collection[float]) -> dict[int, float]:
    """Compute the seconds at each of ``PERCENTILES``; empty before the first duration."""
    seconds = list(recent)  # in one step of the interpreter: another thread may be appending
    return dict(zip(PERCENTILES, map(float, np.percentile(seconds, PERCENTILES)), strict=True)) if seconds else {}
