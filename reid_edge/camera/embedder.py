"""The second half of the agent: from crops to tracklet features in the outbox."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

from reid_edge.camera.heart import Heart
from reid_edge.camera.latencies import recent_latencies
from reid_edge.camera.tracklets import TrackletConfig, Tracklets
from reid_edge.camera.waiting import WaitingCrop, WaitingCrops
from reid_edge.errors import OutboxError
from reid_edge.runtime import Extractor
from reid_edge.upstream.message import Encoding, Observation
from reid_edge.upstream.outbox import Outbox

log = logging.getLogger(__name__)

#: Observations held in memory while the outbox cannot be written; above it the oldest go, counted.
MAX_UNWRITTEN = 10_000
#: How often the embedding thread looks up though nothing comes.
LOOK_UP_S = 1.0


@dataclass
class EmbedderStats:
    """Counts since the start.  Written by one thread, read by any.

    Attributes:
        embedded: Crops.
        batches: Calls of the engine.
        published: Observations that the outbox has taken.
        unwritten: Observations that wait for the outbox to be writable again.
        lost: Observations that had to go while it was not.
    """

    embedded: int = 0
    batches: int = 0
    published: int = 0
    unwritten: int = 0
    lost: int = 0


class Embedder:
    """Embed waiting crops, average them by track, publish.

    Args:
        waiting: The crops.
        extractor: Of features.
        outbox: Takes what is published.
        config: When to publish.
        encoding: Of features in the outbox.
        max_batch: Most crops at once.
        max_latency_s: From a frame's being taken up to the features of its crops.
    """

    def __init__(
        self,
        waiting: WaitingCrops,
        extractor: Extractor,
        outbox: Outbox,
        config: TrackletConfig,
        *,
        encoding: Encoding,
        max_batch: int,
        max_latency_s: float,
    ) -> None:
        self._waiting = waiting
        self._outbox = outbox
        self._encoding = encoding
        self._max_batch = max_batch
        self._max_latency_s = max_latency_s
        self._engine_s = 0.0
        self._extractor = extractor
        self._next_extractor: Extractor | None = None
        self._swap = threading.Lock()
        # A tracklet has a number when it is published: no more of them than sequence numbers, so none comes twice.
        self._tracklets = Tracklets(config, model_hash=_model_hash(extractor), first_tracklet=outbox.last_seq + 1)
        self._unwritten: deque[Observation] = deque()
        self.stats = EmbedderStats()
        self.engine_latencies_s = recent_latencies()
        self.crop_latencies_s = recent_latencies()
        self.heart = Heart()

    @property
    def extractor(self) -> Extractor:
        """What makes features now."""
        return self._extractor

    def replace(self, extractor: Extractor) -> None:
        """Use another model from the next batch on.  Tracklets are published before: features of two do not mix."""
        with self._swap:
            self._next_extractor = extractor

    def run(self) -> None:
        """Work until nothing more can come."""
        while (work := self._waiting.take(self._max_batch, LOOK_UP_S)) is not None:
            with self.heart:
                self._publish(self._take_next_extractor() + self._embed(work.crops) + self._tracklets.end(work.ended))
        self._publish(self._tracklets.finish())

    def _embed(self, crops: list[WaitingCrop]) -> list[Observation]:
        if not crops:
            return []
        started = time.monotonic()
        features = self._extractor([crop.pixels for crop in crops])
        done = time.monotonic()
        self._leave_time_for(done - started)
        self.stats.batches += 1
        self.stats.embedded += len(crops)
        published: list[Observation] = []
        for crop, feature in zip(crops, features, strict=True):
            self.crop_latencies_s.append(done - crop.seen_s)
            published += self._tracklets.add(crop.sighting, feature)
        return published

    def _leave_time_for(self, engine_s: float) -> None:
        """Let crops wait only as long as the engine, at its recent slowest, still makes the budget."""
        self.engine_latencies_s.append(engine_s)
        self._engine_s = max(engine_s, 0.95 * self._engine_s)
        self._waiting.budget_s = max(0.0, self._max_latency_s - self._engine_s)

    def _publish(self, observations: list[Observation]) -> None:
        """Write to the outbox, in order, and keep in memory what cannot be written now."""
        self._unwritten.extend(observations)
        if not self._unwritten:
            return
        try:
            self._outbox.put(tuple(self._unwritten), self._encoding)
        except OutboxError as error:
            self._hold_back(error)
        else:
            self.stats.published += len(self._unwritten)
            self._unwritten.clear()
        self.stats.unwritten = len(self._unwritten)

    def _hold_back(self, error: OutboxError) -> None:
        if not self.stats.unwritten:
            log.error("observations wait in memory: %s", error)
        too_many = max(0, len(self._unwritten) - MAX_UNWRITTEN)
        for _ in range(too_many):
            self._unwritten.popleft()
        self.stats.lost += too_many
        self._outbox.lose(too_many)

    def _take_next_extractor(self) -> list[Observation]:
        with self._swap:
            extractor, self._next_extractor = self._next_extractor, None
        if extractor is None:
            return []
        self._extractor = extractor
        return self._tracklets.change_model(_model_hash(extractor))


def _model_hash(extractor: Extractor) -> str:
    return extractor.bundle.manifest.model_hash
