"""Boxes from another process, such as the camera's own detector: one JSON object per frame and line."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from reid_edge.camera.detectors.jsonlines.lines import LineServer
from reid_edge.camera.detectors.jsonlines.pending import Found, PendingFrames, PendingTimes
from reid_edge.camera.detectors.settings import JsonLinesSettings
from reid_edge.camera.frames import Detections, Frame, no_detections

logger = logging.getLogger(__name__)

Whole = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Box = Annotated[list[float], msgspec.Meta(min_length=4, max_length=5)]


class Line(msgspec.Struct, frozen=True):
    """A line; what else it holds is ignored.

    Attributes:
        boxes: x1 y1 x2 y2 and, if known, score.
        frame: Number of the frame, from 0; or
        captured_us: its time, microseconds since 1970 UTC.
        normalised: Boxes are fractions of the frame, not pixels.
    """

    boxes: Annotated[list[Box], msgspec.Meta(max_length=1000)]
    frame: Whole | None = None
    captured_us: Whole | None = None
    normalised: bool = False


@dataclass
class LineCounts:
    """Lines so far: all, malformed or too long, those whose frame had passed; and frames for which none came."""

    lines: int = 0
    malformed: int = 0
    late: int = 0
    unmatched: int = 0


class JsonLinesDetector:
    """Gives each frame the boxes that came in for it.

    Args:
        settings: Where lines come from, and how they are matched to frames.

    Attributes:
        address: Where senders connect to; None for standard input.
        counts: Lines and frames so far.

    Raises:
        DetectorError: Nobody can listen there.
    """

    def __init__(self, settings: JsonLinesSettings) -> None:
        self._wait_s = settings.wait_ms / 1000
        self._changed = threading.Condition()
        self._frames = PendingFrames(settings.max_pending, self._changed)
        self._times = PendingTimes(settings.max_pending, round(settings.tolerance_ms * 1000))
        self._decoder = msgspec.json.Decoder(Line)
        self.counts = LineCounts()
        self._server = LineServer(
            settings.listen, max_bytes=settings.max_line_bytes, on_line=self._receive, on_idle=self._notify
        )
        self.address = self._server.address
        self.description = f"JSON lines from {settings.listen}"

    def __call__(self, frame: Frame) -> Detections:
        """See :class:`~reid_edge.camera.detectors.base.Detector`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_there(frame), self._wait_s)
            found = self._frames.take(frame.index)
            by_time = self._times.take(frame.captured_us)
            self._changed.notify_all()
        found = by_time if found is None else found
        if found is None:
            self.counts.unmatched += 1
            return no_detections()
        return found.on(frame)

    def close(self) -> None:
        """Listen no more."""
        with self._changed:
            self._frames.closed = True
            self._changed.notify_all()
        self._server.close()

    def _is_there(self, frame: Frame) -> bool:
        """Whether it is of no use to wait any longer."""
        known = self._frames.has(frame.index) or self._times.has(frame.captured_us)
        return known or not self._server.sending.is_set()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _receive(self, text: bytes | None) -> None:
        if text is not None and not text.strip():
            return
        self.counts.lines += 1
        try:
            line = self._decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._say_malformed(error)
            return
        with self._changed:
            self.counts.late += not self._hold(line)
            self._changed.notify_all()

    def _decode(self, text: bytes | None) -> Line:
        if text is None:
            raise msgspec.DecodeError("longer than max_line_bytes")
        line = self._decoder.decode(text)
        if line.frame is None and line.captured_us is None:
            raise msgspec.ValidationError("neither `frame` nor `captured_us`")
        return line

    def _hold(self, line: Line) -> bool:
        found = Found(_detections(line.boxes), line.normalised)
        if line.frame is not None:
            return self._frames.add(line.frame, found)
        assert line.captured_us is not None
        return self._times.add(line.captured_us, found)

    def _say_malformed(self, error: Exception) -> None:
        self.counts.malformed += 1
        if str(self.counts.malformed).strip("0") == "1":  # the 1st, 10th, 100th …
            logger.warning("%d malformed lines of detections so far; the last: %s", self.counts.malformed, error)


def _detections(boxes: list[list[float]]) -> Detections:
    rows = np.array([box if len(box) == 5 else [*box, 1.0] for box in boxes]).reshape(-1, 5)
    with np.errstate(over="ignore"):  # infinite then, and left out by the filter
        rows = rows.astype(np.float32)
    return Detections(rows[:, :4].copy(), rows[:, 4].copy())
