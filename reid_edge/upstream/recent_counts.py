"""Counts of the last minutes, by kind."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable


class RecentCounts:
    """Counts by kind over the last minutes, in slices of ten seconds; may be used from any thread.

    Args:
        keep_s: Longest time that can be asked for, seconds.
        clock: Returns seconds of a monotonic clock.
    """

    _SLICE_S = 10.0

    def __init__(self, keep_s: float = 900.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slices: deque[tuple[float, Counter[str]]] = deque(maxlen=int(keep_s / self._SLICE_S) + 1)

    def add(self, kind: str, count: int) -> None:
        """Count events of now."""
        now_s = self._clock()
        if not self._slices or now_s - self._slices[-1][0] >= self._SLICE_S:
            self._slices.append((now_s, Counter()))
        self._slices[-1][1][kind] += count

    def within(self, seconds: float) -> dict[str, int]:
        """Return the counts of the last ``seconds``, to within a slice."""
        since_s = self._clock() - seconds - self._SLICE_S
        recent: Counter[str] = Counter()
        for at_s, counts in list(self._slices):
            if at_s >= since_s:
                recent.update(counts.copy())
        return dict(recent)
