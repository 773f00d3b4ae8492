"""Second stage of the agent: from crops to tracklet features for the outbox."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Protocol

from reid_edge.camera.crop_queue import CropQueue, QueuedCrop
from reid_edge.camera.settings import EngineSettings
from reid_edge.camera.tracklets import Tracklets
from reid_edge.camera.vitals import Heartbeat, recent_latencies
from reid_edge.runtime import Extractor
from reid_edge.runtime.golden import check_extractor
from reid_edge.upstream.observation import Observation

#: Longest wait for crops: a reload that comes while there are none takes effect after it.
MAX_WAIT_S = 1.0


class Publishes(Protocol):
    """Takes observations, in order; see :class:`~reid_edge.camera.publishing.Publisher`."""

    def publish(self, observations: Iterable[Observation]) -> None:
        """Take observations."""
        ...

    def flush(self) -> None:
        """Take note that no more will come."""
        ...


@dataclass
class EmbeddingStats:
    """Counts since the start.  Written by one thread, read by any.

    Attributes:
        embedded: Crops that were embedded.
        batches: Calls of the engine.
    """

    embedded: int = 0
    batches: int = 0


class EmbeddingStage:
    """Embeds the crops of the queue, averages their features by track, and publishes.

    Each crop is embedded by the model that it was cut for, and a tracklet holds features of one model.  So after
    :meth:`replace` the crops in the queue are still embedded by the old model.  With the first crop that was cut for
    the new one, or when the queue is empty, all tracklets are published as they are, and begin anew.

    Args:
        queue: Gives the crops.
        extractor: The model at the start.
        publisher: Takes the observations.
        tracklets: Averages features and decides when to publish; made for the model at the start.
        max_batch: Largest number of crops in one call of the engine.
        max_latency_s: Longest time from ``seen_s`` of a crop to its feature.
    """

    def __init__(
        self,
        queue: CropQueue,
        extractor: Extractor,
        publisher: Publishes,
        tracklets: Tracklets,
        *,
        max_batch: int,
        max_latency_s: float,
    ) -> None:
        self._queue = queue
        self._publisher = publisher
        self._tracklets = tracklets
        self._max_batch = max_batch
        self._max_latency_s = max_latency_s
        self._engine_s = 0.0
        self._newest = self._current = extractor
        self._has_changed = False
        self.stats = EmbeddingStats()
        self.engine_latencies_s = recent_latencies()
        self.crop_latencies_s = recent_latencies()
        self.heartbeat = Heartbeat()

    @property
    def extractor(self) -> Extractor:
        """The model for which crops are to be cut from now on."""
        return self._newest

    def replace(self, extractor: Extractor) -> None:
        """Use another model for crops that are cut from now on; may be called from any thread."""
        self._newest = extractor

    def run(self) -> None:
        """Work until the queue is finished and empty, then publish all tracklets."""
        while (work := self._queue.take(self._max_batch, MAX_WAIT_S)) is not None:
            with self.heartbeat:
                published = self._embed_all(work.crops) if work.crops else self._change_to(self._newest)
                self._publisher.publish(published + self._tracklets.end(work.ended))
            del work  # its crops hold the model that they were cut for
            self._release_old_model()
        self._publisher.publish(self._tracklets.finish())
        self._publisher.flush()

    def _embed_all(self, crops: list[QueuedCrop]) -> list[Observation]:
        """Embed crops by the models that they were cut for: one model, or two around a change."""
        published: list[Observation] = []
        for extractor, of_one_model in groupby(crops, key=attrgetter("extractor")):
            published += self._change_to(extractor) + self._embed(list(of_one_model))
        return published

    def _embed(self, crops: list[QueuedCrop]) -> list[Observation]:
        started = time.monotonic()
        features = self._current([crop.pixels for crop in crops])
        done = time.monotonic()
        self._leave_time_for(done - started)
        self.stats.batches += 1
        self.stats.embedded += len(crops)
        published: list[Observation] = []
        for crop, feature in zip(crops, features, strict=True):
            self.crop_latencies_s.append(done - crop.seen_s)
            published += self._tracklets.add(crop.details, feature)
        return published

    def _leave_time_for(self, engine_s: float) -> None:
        """Shorten the budget of the queue by the time that the engine needs, going by its slowest recent call."""
        self.engine_latencies_s.append(engine_s)
        self._engine_s = max(engine_s, 0.95 * self._engine_s)
        self._queue.budget_s = max(0.0, self._max_latency_s - self._engine_s)

    def _change_to(self, extractor: Extractor) -> list[Observation]:
        if extractor is self._current:
            return []
        self._current = extractor
        self._has_changed = True
        return self._tracklets.change_model(extractor.bundle.manifest.model_hash)

    def _release_old_model(self) -> None:
        if self._has_changed:
            self._has_changed = False
            give_back_memory()


def give_back_memory() -> None:
    """Return the memory of a released model to the system; glibc would keep it, 100 MB after some reloads."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def why_on_cpu(model: Extractor) -> str:
    """Say that the CPU computes although the bundle has a TensorRT plan, with the reason; "" where that is not so."""
    if not model.unused_plan:
        return ""
    return (
        f"{model.artifact.name} computes the features, though the bundle has a TensorRT plan: {model.unused_plan} "
        "To accept that, name the engine in engine.engine"
    )


def load_model(settings: EngineSettings) -> Extractor:
    """Load a bundle, compare its golden features, and warm up every batch size that the agent uses.

    Raises:
        BundleError: There is no usable bundle, or none that a trusted key has signed.
        EngineError: The engine cannot run here.
        MissingExtraError: The engine's package is not installed.
        ParityError: The model computes other features here than where it was exported.
    """
    extractor = Extractor(
        settings.bundle,
        engine=settings.engine,
        precision=settings.precision,
        threads=settings.threads,
        device=settings.device,
        max_batch=settings.max_batch,
        trusted_keys=settings.trusted_keys,
    )
    check_extractor(extractor)
    extractor.warm_up(settings.max_batch)
    return extractor
