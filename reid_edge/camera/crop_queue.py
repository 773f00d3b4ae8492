"""Crops between the thread that looks at frames and the thread that embeds them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reid_edge.camera.tracking import EndedTrack
from reid_edge.camera.tracklets import Sighting
from reid_edge.crops import Image
from reid_edge.runtime import Extractor


@dataclass(frozen=True, eq=False)
class QueuedCrop:
    """A crop worth embedding.

    Attributes:
        pixels: h×w×3 uint8, BGR, its own copy: a view would keep the whole frame.
        sighting: What the tracklet will know of it.
        seen_s: ``time.monotonic()`` when its frame was taken up.
        extractor: The model that it was cut for: it has been shrunk to this one's input size, if it has been shrunk,
            so no other one may embed it.
    """

    pixels: Image
    sighting: Sighting
    seen_s: float
    extractor: Extractor


@dataclass(frozen=True, eq=False)
class Work:
    """What the embedding thread does next: the crops, then the ends of the tracks."""

    crops: list[QueuedCrop]
    ended: list[EndedTrack]


class CropQueue:
    """Queue with a bound and a latency budget.

    Crops are handed over when a batch is full or the oldest has waited for as long as the budget allows.

    Args:
        limit: Most crops that wait.
        drop_oldest: What happens above it: the oldest crop goes, counted; else whoever puts waits.
        budget_s: From a frame's being taken up to the moment its crops must be handed over.
    """

    def __init__(self, *, limit: int, drop_oldest: bool, budget_s: float) -> None:
        self._limit = limit
        self._drop_oldest = drop_oldest
        self.budget_s = budget_s
        self._crops: deque[QueuedCrop] = deque()
        self._ended: deque[tuple[int, EndedTrack]] = deque()  # how many crops came before the end, and the track
        self._came = 0
        self._changed = threading.Condition()
        self._finished = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._crops)

    def put(self, crops: Sequence[QueuedCrop], ended: Iterable[EndedTrack] = ()) -> list[QueuedCrop]:
        """Add the crops of a frame, and the tracks that ended at it; returns the crops that had to go."""
        dropped: list[QueuedCrop] = []
        with self._changed:
            for crop in crops:
                dropped += self._make_room()
                self._crops.append(crop)
                self._came += 1
            self._ended.extend((self._came, track) for track in ended)
            self.dropped += len(dropped)
            self._changed.notify_all()
        return dropped

    def _make_room(self) -> list[QueuedCrop]:
        if not self._drop_oldest:
            self._changed.wait_for(lambda: len(self._crops) < self._limit or self._finished)
            return []
        return [self._crops.popleft() for _ in range(len(self._crops) - self._limit + 1)]

    def finish(self) -> None:
        """Nothing more will come: what waits is handed over at once."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def take(self, most: int, timeout_s: float) -> Work | None:
        """Up to ``most`` crops, oldest first; no crops after ``timeout_s``; None when finished and empty.

        An ended track is handed over only when no crop that came before its end is left behind.
        """
        with self._changed:
            give_up = time.monotonic() + timeout_s
            while not self._is_due(most) and (left := self._due_s(give_up) - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._finished and not self._crops and not self._ended:
                return None
            crops = [self._crops.popleft() for _ in range(min(most, len(self._crops)))]
            self._changed.notify_all()
            return Work(crops, self._take_ended())

    def _take_ended(self) -> list[EndedTrack]:
        gone = self._came - len(self._crops)
        ended: list[EndedTrack] = []
        while self._ended and self._ended[0][0] <= gone:
            ended.append(self._ended.popleft()[1])
        return ended

    def _is_due(self, most: int) -> bool:
        return self._finished or len(self._crops) >= most

    def _due_s(self, give_up: float) -> float:
        return min(give_up, self._crops[0].seen_s + self.budget_s) if self._crops else give_up
