"""First stage of the agent: from frames to the crops that are to be embedded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reid_edge.camera.crop_queue import CropQueue, CutFor, QueuedCrop
from reid_edge.camera.crop_selector import CropSelector, crop_quality
from reid_edge.camera.detectors import Detector
from reid_edge.camera.filters import DetectionFilter
from reid_edge.camera.frame_edge import Area, PictureArea, touch_edge
from reid_edge.camera.frames import Frame
from reid_edge.camera.person_check import PersonCheck
from reid_edge.camera.sources import Source
from reid_edge.camera.tracking import TrackedBoxes, Tracker
from reid_edge.camera.tracklets import CropDetails
from reid_edge.camera.vitals import Heartbeat
from reid_edge.camera.watcher import Watcher
from reid_edge.crops import crop_boxes, resize_into
from reid_edge.types import Image, Size


@dataclass
class DetectionStats:
    """Counts since the start.  Written by one thread, read by any.

    Attributes:
        frames: Frames that went through detection.
        off: Frames that came while the camera was switched off.
        detections: Boxes that the filter kept.
        chosen: Crops that the crop selector chose.
        useless_since_s: Time, of the monotonic clock, since which no box of the detector could be used, because none
            was finite and within the frame; None if one could, or the detector has given none.
    """

    frames: int = 0
    off: int = 0
    detections: int = 0
    chosen: int = 0
    useless_since_s: float | None = None


class DetectionStage:
    """Detects, filters, tracks, selects and cuts, one frame after the other.

    Args:
        source: Gives the frames.
        detector: Finds people.
        boxes: Drops useless boxes; its masks are blacked out before detection.
        tracker: Joins the boxes to tracks.
        check: Tells tracks of people from others.
        selector: Chooses the crops, of the boxes of high score only.
        queue: Takes the crops.
        is_off: Tells whether the camera is switched off now.
        extractor: Gives the model that is to embed crops which are cut now; asked at each frame.
        watcher: Is told what becomes of the boxes of each frame.
    """

    def __init__(
        self,
        source: Source,
        detector: Detector,
        boxes: DetectionFilter,
        tracker: Tracker,
        check: PersonCheck,
        selector: CropSelector,
        queue: CropQueue,
        *,
        is_off: Callable[[], bool],
        extractor: Callable[[], CutFor],
        watcher: Watcher | None = None,
    ) -> None:
        self._source = source
        self._detector = detector
        self._filter = boxes
        self._tracker = tracker
        self._check = check
        self._selector = selector
        self._queue = queue
        self._is_off = is_off
        self._extractor = extractor
        self._watcher = watcher or Watcher()
        self._correction_us = 0
        self._picture_area = PictureArea()
        self.stats = DetectionStats()
        self.heartbeat = Heartbeat()

    def run(self) -> None:
        """Process frames until the source ends.

        Raises:
            SourceError: The source failed for good.
            DetectorError: The detector cannot go on.
        """
        try:
            for frame in self._source:
                with self.heartbeat:
                    self._skip() if self._is_off() else self._process(frame)
            self._queue.put([], self._check.finish(self._tracker.finish()))
        finally:
            self._queue.finish()

    def _skip(self) -> None:
        self.stats.off += 1
        if self._tracker.live or len(self._check):
            self._end_all()

    def _end_all(self, correction_us: int = 0) -> None:
        judged = self._check.finish(self._tracker.finish())
        ended = tuple(replace(track, correction_us=correction_us) for track in judged)
        self._selector.end(ended)
        self._queue.put([], ended)

    def _process(self, frame: Frame) -> None:
        seen_s = time.monotonic()
        if frame.correction_us != self._correction_us:  # the clock was set: no track goes on over that
            self._end_all(frame.correction_us - self._correction_us)
            self._correction_us = frame.correction_us
        frame = self._filter.masks.black_out(frame)
        found = self._detector(frame)
        invalid = self._filter.dropped["invalid"]
        detections = self._filter(found, frame)
        self._note_use(len(found), self._filter.dropped["invalid"] - invalid, seen_s)
        tracked = self._tracker.update(detections, frame.captured_us)
        area = self._picture_area(frame.image)
        self._check.update(tracked, frame.captured_us, frame.image.shape[0], area)
        self.stats.frames += 1
        self.stats.detections += len(detections)
        for crop in self._queue.put(self._crops(frame, tracked, area, seen_s), self._check.end(tracked.ended)):
            self._selector.dropped(crop.details.track)
            self._watcher.dropped(crop.details)

    def _note_use(self, found: int, invalid: int, now_s: float) -> None:
        if found > invalid:
            self.stats.useless_since_s = None
        elif found and self.stats.useless_since_s is None:
            self.stats.useless_since_s = now_s

    def _crops(self, frame: Frame, tracked: TrackedBoxes, area: Area, seen_s: float) -> list[QueuedCrop]:
        height, width = frame.image.shape[:2]
        quality = crop_quality(tracked.boxes, area=area)
        strong = self._check.strong(tracked.scores)
        chosen = self._selector.select(tracked.take(strong), quality[strong], frame.captured_us)
        chosen = replace(chosen, rows=np.flatnonzero(strong)[chosen.rows])
        self._watcher.saw(frame, tracked, quality, chosen)
        rows = chosen.rows
        self._check.chose(tracked.tracks[rows].tolist())
        self.stats.chosen += len(rows)
        if not len(rows):
            return []
        at_edge = touch_edge(tracked.boxes[rows], area)
        fractions = np.clip(tracked.boxes[rows] / np.array([width, height, width, height], np.float32), 0, 1)
        # The filter has clipped every box to the frame: none is skipped.
        crops, _ = crop_boxes(frame.image, tracked.boxes[rows])
        extractor = self._extractor()
        input_size = extractor.input_size
        return [
            QueuedCrop(
                compact_copy(crop, input_size),
                CropDetails(
                    track,
                    frame.captured_us,
                    tuple(box),
                    score,
                    value,
                    failing=self._check.failing(track),
                    usual_height=self._check.usual_height(track),
                    at_edge=edge,
                ),
                seen_s,
                extractor,
            )
            for crop, track, box, score, value, edge in zip(
                crops,
                tracked.tracks[rows].tolist(),
                fractions.tolist(),
                tracked.scores[rows].tolist(),
                quality[rows].tolist(),
                at_edge.tolist(),
                strict=True,
            )
        ]


def compact_copy(crop: Image, input_size: Size) -> Image:
    """Copy a crop, since a view would keep the whole frame in memory; a large one is resized as the network takes it.

    Args:
        crop: h×w×3 uint8, BGR.
        input_size: Height and width of the network's input.

    Returns:
        A copy of the crop, or H×W×3 uint8 if it has more pixels than that.
    """
    height, width = input_size
    if crop.shape[0] * crop.shape[1] <= height * width:
        return crop.copy()
    resized = np.empty((height, width, 3), np.uint8)
    resize_into(crop, resized)
    return resized


class OffSwitch:
    """Switches the camera off while a file exists.

    Args:
        path: The file; None never switches off.
        every_s: Shortest time between two checks for the file.

    Attributes:
        trouble: Why the check failed, which counts as off; "" if it did not.
    """

    def __init__(self, path: Path | None, *, every_s: float = 0.5) -> None:
        self._path = path
        self._every_s = every_s
        self._next = 0.0
        self._off = False
        self.trouble = ""

    def __call__(self) -> bool:
        """Tell whether frames are to be left alone now."""
        if self._path is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every_s
            self._check(self._path)
        return self._off

    def _check(self, path: Path) -> None:
        try:
            self._off, self.trouble = path.exists(), ""
        except OSError as error:
            self._off = True
            self.trouble = f"the off switch {path} cannot be checked, so the camera is off: {error.strerror}"
