"""Vital signs of the agent: heartbeats of its stages, recent latencies, and what is wrong."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType

import numpy as np

PERCENTILES = (50, 90, 99)
#: How many durations are kept.
RECENT = 1024


class Heartbeat:
    """Held while one item is worked on; a thread that waits for the next one is not late.

    Attributes:
        beats: Items worked on so far.
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
        """For how long the present item has been worked on; 0 between two."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


@dataclass(frozen=True)
class Health:
    """What is wrong now; nothing, if the agent is well."""

    problems: tuple[str, ...] = ()


def recent_latencies() -> deque[float]:
    """For the last durations, seconds; one thread appends, any may ask for percentiles."""
    return deque(maxlen=RECENT)


def percentiles(recent: Collection[float]) -> dict[int, float]:
    """Seconds at each of ``PERCENTILES``; empty before the first duration."""
    seconds = list(recent)  # in one step of the interpreter: another thread may be appending
    return dict(zip(PERCENTILES, map(float, np.percentile(seconds, PERCENTILES)), strict=True)) if seconds else {}
