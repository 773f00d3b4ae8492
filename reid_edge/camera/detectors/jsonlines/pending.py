"""Detections that wait for their frames."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np

from reid_edge.camera.frames import Detections, Frame

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Found:
    """What one line tells of a frame.

    Attributes:
        detections: Boxes in pixels, or as fractions of the frame.
        normalised: Which.
    """

    detections: Detections
    normalised: bool

    def on(self, frame: Frame) -> Detections:
        """In pixels of the frame."""
        if not self.normalised:
            return self.detections
        height, width = frame.image.shape[:2]
        return Detections(self.detections.boxes * np.array([width, height] * 2, np.float32), self.detections.scores)


class PendingFrames:
    """Detections known by the number of their frame.

    When too many are held, whoever adds the next waits, so that a file of detections can be piped in whole.  If frames
    pass and none of those held is for them, all are forgotten: their numbers are wrong, and must not block right ones.

    Args:
        capacity: Held at most.
        changed: Notified with every change, and held by whoever calls.
    """

    def __init__(self, capacity: int, changed: threading.Condition) -> None:
        self._capacity = capacity
        self._changed = changed
        self._found: dict[int, Found] = {}
        self._next = 0
        self.closed = False

    def add(self, number: int, found: Found) -> bool:
        """Hold detections until their frame comes; False when it has come already."""
        patience = self._next + self._capacity
        while len(self._found) >= self._capacity and number >= self._next and not self.closed:
            farthest = max(self._found)
            if number < farthest:  # a number far ahead, perhaps wrong, must not keep out those that are due
                del self._found[farthest]
            elif self._next >= patience:
                logger.warning(
                    "forgot detections of frames %d to %d at frame %d", min(self._found), farthest, self._next
                )
                self._found.clear()
            else:
                self._changed.wait()
        if number < self._next:
            return False
        self._found[number] = found
        return True

    def has(self, number: int) -> bool:
        """Whether a frame's detections are there, or those of one soon after, so that they will not come."""
        return number in self._found or any(number < other <= number + self._capacity for other in self._found)

    def take(self, number: int) -> Found | None:
        """Detections of a frame; forgets it and all before it."""
        found = self._found.get(number)
        self._next = number + 1
        for passed in [other for other in self._found if other <= number]:
            del self._found[passed]
        return found


class PendingTimes:
    """Detections known by the time of their frame; when too many are held, the oldest go.

    Args:
        capacity: Held at most.
        tolerance_us: Farthest that a frame's time may be off.
    """

    def __init__(self, capacity: int, tolerance_us: int) -> None:
        self._capacity = capacity
        self._tolerance_us = tolerance_us
        self._times: list[int] = []
        self._found: dict[int, Found] = {}
        self._since_us: int | None = None

    def add(self, captured_us: int, found: Found) -> bool:
        """Hold detections; False when frames are past them."""
        if self._since_us is not None and captured_us < self._since_us:
            return False
        if captured_us not in self._found:
            insort(self._times, captured_us)
        self._found[captured_us] = found
        self._forget(max(0, len(self._times) - self._capacity))
        return True

    def has(self, captured_us: int) -> bool:
        """Whether detections near that time, or after it, are there."""
        return bool(self._times) and self._times[-1] >= captured_us - self._tolerance_us

    def take(self, captured_us: int) -> Found | None:
        """The nearest in time, if near enough; forgets those that no later frame can be near to."""
        self._since_us = captured_us - self._tolerance_us
        self._forget(bisect_left(self._times, self._since_us))
        here = bisect_left(self._times, captured_us)
        nearest = min(self._times[max(0, here - 1) : here + 1], key=lambda time: abs(time - captured_us), default=None)
        if nearest is None or abs(nearest - captured_us) > self._tolerance_us:
            return None
        return self._found[nearest]

    def _forget(self, count: int) -> None:
        for time in self._times[:count]:
            del self._found[time]
        del self._times[:count]
