"""Queue of crops between the detection stage and the embedding stage."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from reid_edge.camera.tracking import EndedTrack
from reid_edge.camera.tracklets import CropDetails
from reid_edge.types import Image, Size


class CutFor(Protocol):
    """What crops are cut for: a model, or whatever else takes crops of one size."""

    @property
    def input_size(self) -> Size:
        """Height and width, pixels."""


@dataclass(frozen=True, eq=False)
class QueuedCrop:
    """A crop that is to be embedded.

    Attributes:
        pixels: h×w×3 uint8, BGR, its own copy: a view would keep the whole frame in memory.
        details: Its track, time, box, score and quality.
        seen_s: ``time.monotonic()`` when the detection stage began with its frame.
        extractor: The model that it was cut for.  A large crop has been shrunk to the input size of this model, so no
            other model may embed it.
    """

    pixels: Image
    details: CropDetails
    seen_s: float
    extractor: CutFor


@dataclass(frozen=True, eq=False)
class Work:
    """Next work of the embedding stage: first the crops, then the tracks that have ended."""

    crops: list[QueuedCrop]
    ended: list[EndedTrack]


class CropQueue:
    """Bounded queue that hands over crops in batches, within a latency budget.

    A batch is handed over when it is full, or when its oldest crop has used up the budget.

    Args:
        limit: Largest number of crops in the queue.
        drop_oldest: When the queue is full, drop the oldest crop and count it; otherwise :meth:`put` waits for room.
        budget_s: Longest time from ``seen_s`` of a crop to its being handed over.
    """

    def __init__(self, *, limit: int, drop_oldest: bool, budget_s: float) -> None:
        self._limit = limit
        self._drop_oldest = drop_oldest
        self.budget_s = budget_s
        self._crops: deque[QueuedCrop] = deque()
        self._ended: deque[tuple[int, EndedTrack]] = deque()  # number of crops put before the end, and the track
        self._put_so_far = 0
        self._changed = threading.Condition()
        self._finished = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._crops)

    def put(self, crops: Sequence[QueuedCrop], ended: Iterable[EndedTrack] = ()) -> list[QueuedCrop]:
        """Add the crops of a frame and the tracks that ended with it; return the crops that were dropped for them."""
        dropped: list[QueuedCrop] = []
        with self._changed:
            for crop in crops:
                dropped += self._make_room()
                self._crops.append(crop)
                self._put_so_far += 1
            self._ended.extend((self._put_so_far, track) for track in ended)
            self.dropped += len(dropped)
            self._changed.notify_all()
        return dropped

    def _make_room(self) -> list[QueuedCrop]:
        if not self._drop_oldest:
            self._changed.notify_all()  # the taker must learn of the crops so far before this thread waits for it
            self._changed.wait_for(lambda: len(self._crops) < self._limit or self._finished)
            return []
        return [self._crops.popleft() for _ in range(len(self._crops) - self._limit + 1)]

    def finish(self) -> None:
        """Declare that nothing more will come: the rest is handed over without waiting for full batches."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def take(self, most: int, timeout_s: float) -> Work | None:
        """Take up to ``most`` crops, oldest first.

        An ended track is handed over when no crop that was put before its end is left in the queue.

        Returns:
            Crops and ended tracks, perhaps neither after ``timeout_s``; None once the queue is finished and empty.
        """
        with self._changed:
            deadline = time.monotonic() + timeout_s
            while not self._is_due(most) and (left := self._due_s(deadline) - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._finished and not self._crops and not self._ended:
                return None
            crops = [self._crops.popleft() for _ in range(min(most, len(self._crops)))]
            self._changed.notify_all()
            return Work(crops, self._take_ended())

    def _take_ended(self) -> list[EndedTrack]:
        gone = self._put_so_far - len(self._crops)
        ended: list[EndedTrack] = []
        while self._ended and self._ended[0][0] <= gone:
            ended.append(self._ended.popleft()[1])
        return ended

    def _is_due(self, most: int) -> bool:
        return self._finished or len(self._crops) >= most

    def _due_s(self, deadline: float) -> float:
        return min(deadline, self._crops[0].seen_s + self.budget_s) if self._crops else deadline
