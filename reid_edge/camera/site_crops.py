"""Crops of the people whom a camera sees, held in memory: what a model is adapted to a place with.

They come from the stages of the camera itself: its detector, filter and masks, tracker, check of persons and choice of
crops.  Nothing is embedded, published or written.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from reid_edge.camera.crop_queue import CropQueue, QueuedCrop
from reid_edge.camera.crop_selector import CropSelector
from reid_edge.camera.detection_stage import DetectionStage, OffSwitch
from reid_edge.camera.detectors import MotionSettings, open_detector, scores_of
from reid_edge.camera.filters import DetectionFilter
from reid_edge.camera.frames import Frame
from reid_edge.camera.person_check import PersonCheck
from reid_edge.camera.settings import AgentSettings
from reid_edge.camera.sources import open_source
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes, Tracker
from reid_edge.camera.watcher import Watcher
from reid_edge.crops import resize_into
from reid_edge.errors import UsageError
from reid_edge.progress import Notify, silent
from reid_edge.types import Image, Size

#: Crops that are taken of one track: more of them show the same person again.
MOST_OF_A_TRACK = 8
SEED = 0


@dataclass(frozen=True)
class SiteCrops:
    """Crops of the people in a video.

    Attributes:
        crops: Each H×W×3 uint8, BGR.
        track_of: Number of the track of each crop, from the tracker.
        refused: Number of tracks that were not like one whole person.
    """

    crops: list[Image]
    track_of: list[int]
    refused: int

    @property
    def tracks(self) -> int:
        """Number of the tracks that the crops are of."""
        return len(set(self.track_of))


@dataclass(frozen=True)
class _CutFor:
    """What crops are cut for: no model, only a size."""

    input_size: Size


def collect_crops(
    settings: AgentSettings, size: Size, *, most: int, seconds: float | None = None, notify: Notify = silent
) -> SiteCrops:
    """Play a source through the first stage of the camera, and keep crops of its people in memory.

    An interrupt ends it early, with the crops so far.

    Args:
        settings: All settings of the camera; those of its engine, upstream and operation are not used.
        size: Height and width that crops are resized to.
        most: Number of crops after which it ends, at least 1.
        seconds: Length, seconds of the source's time; None: until its end, or until there are ``most`` crops.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.

    Raises:
        UsageError: Not at least one crop is asked for.
        SourceError: The source cannot be opened, or fails.
        DetectorError: The detector cannot be opened, or cannot go on.
    """
    if most < 1:  # no track would ever be enough
        raise UsageError(f"expected at least 1 crop to be asked for, got {most}.")
    with contextlib.ExitStack() as closing:
        detector = open_detector(settings.detector)
        closing.callback(detector.close)
        source = closing.enter_context(open_source(settings.source))
        scores = scores_of(detector)
        tracker = Tracker(settings.tracker, start=scores.start)
        target = _CutFor(size)
        kept = _Collector(most, size, enough=source.stop)
        stage = DetectionStage(
            source,
            detector,
            DetectionFilter(settings.filter, confidence=scores.confidence),
            tracker,
            PersonCheck(
                settings.person,
                high_confidence=tracker.high_confidence,
                by_motion=isinstance(settings.detector, MotionSettings),
            ),
            CropSelector(settings.gate),
            kept,
            is_off=OffSwitch(settings.camera.off_switch),
            extractor=lambda: target,
            watcher=_Follower(notify(f"looking at {source.name}", source.stats.expected or 0), seconds, source.stop),
        )
        if source.live and seconds is not None:  # also where no frame comes
            patience = threading.Timer(seconds + settings.source.open_timeout_s, source.stop)
            patience.daemon = True
            patience.start()
            closing.callback(patience.cancel)
        try:
            stage.run()
        except KeyboardInterrupt:
            source.stop()
    return SiteCrops(kept.crops, kept.track_of, kept.refused)


class _Collector(CropQueue):
    """Takes the place of the queue: keeps the crops of tracks that end as one whole person."""

    def __init__(self, most: int, size: Size, *, enough: Callable[[], object]) -> None:
        super().__init__(limit=1, drop_oldest=True, budget_s=0)
        self._most = most
        self._size = size
        self._enough = enough
        self._waiting: dict[int, list[Image]] = defaultdict(list)
        self._seen: dict[int, int] = defaultdict(int)
        self._random = random.Random(SEED)  # noqa: S311 - a sample, no secret
        self.crops: list[Image] = []
        self.track_of: list[int] = []
        self.refused = 0

    def put(self, crops: Sequence[QueuedCrop], ended: Iterable[EndedTrack] = ()) -> list[QueuedCrop]:
        """Keep crops while their tracks go on, and those of the ended ones if they are people."""
        for crop in crops:
            self._wait(crop.details.track, crop.pixels)
        for track in ended:
            self._end(track)
        return []

    def _wait(self, track: int, pixels: Image) -> None:
        """Keep a crop, or not: each of a track has the same chance."""
        waiting = self._waiting[track]
        self._seen[track] += 1
        place = len(waiting) if len(waiting) < MOST_OF_A_TRACK else self._random.randrange(self._seen[track])
        if place < MOST_OF_A_TRACK:
            waiting[place : place + 1] = [_resized(pixels, self._size)]

    def _end(self, track: EndedTrack) -> None:
        waiting = self._waiting.pop(track.track, [])
        self._seen.pop(track.track, None)
        if track.failing:
            self.refused += bool(waiting)
        elif waiting and len(self.crops) < self._most:
            taken = waiting[: self._most - len(self.crops)]
            self.crops += taken
            self.track_of += [track.track] * len(taken)
            if len(self.crops) >= self._most:
                self._enough()


class _Follower(Watcher):
    """Shows progress, and stops the source when it has been looked at for long enough."""

    def __init__(self, step: Callable[..., object], seconds: float | None, enough: Callable[[], object]) -> None:
        self._step = step
        self._seconds = seconds
        self._enough = enough
        self._first_us: int | None = None
        self._done = 0

    def saw(self, frame: Frame, tracked: TrackedBoxes, quality: object, chosen: object) -> None:  # noqa: ARG002
        """See the base class."""
        self._first_us = frame.captured_us if self._first_us is None else self._first_us
        self._step(frame.index + 1 - self._done)
        self._done = frame.index + 1
        if self._seconds is not None and frame.captured_us - self._first_us >= self._seconds * 1e6:
            self._enough()


def _resized(pixels: Image, size: Size) -> Image:
    out = np.empty((*size, 3), np.uint8)
    resize_into(pixels, out)
    return out
