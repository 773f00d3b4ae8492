"""Boxes from another process, such as the camera's own detector: one JSON object per frame and line."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from reid_edge.camera.detectors.line_server import LineServer
from reid_edge.camera.frames import Detections, Frame, no_detections
from reid_edge.wording import counted

logger = logging.getLogger(__name__)

Whole = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Box = Annotated[list[float], msgspec.Meta(min_length=4, max_length=5)]


class JsonLinesSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="jsonlines"
):
    """Boxes from another process, one JSON object per frame and line.

    Attributes:
        listen: ``stdin``, ``unix:/path/of/socket``, or ``tcp:127.0.0.1:port``.
        tolerance_ms: Largest difference between the times of a line and of its frame; choose less than half the time
            between frames.
        wait_ms: Longest time that a frame waits for its line while a sender is connected.
        max_pending: Largest number of lines held for frames to come.  Above it, a sender of frame numbers waits; of
            lines with times the oldest are dropped.
        max_line_bytes: Longest line that is read, bytes; longer ones are skipped.
        silent_s: Time for which frames may come without any line for them before the agent is unhealthy, seconds; inf:
            for ever, for a sender that sends no line for a frame without people.
    """

    listen: str = "stdin"
    tolerance_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 20.0
    wait_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 200.0
    max_pending: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1024
    max_line_bytes: Annotated[int, msgspec.Meta(ge=256, le=1 << 24)] = 1 << 18
    silent_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0


class Line(msgspec.Struct, frozen=True):
    """A line; further keys are ignored.

    Attributes:
        boxes: x1 y1 x2 y2 and, if known, score.
        frame: Number of the frame, from 0; this or ``captured_us`` must be given.
        captured_us: Time of the frame, microseconds since 1970 UTC.
        normalised: Boxes are fractions of the frame, not pixels.
    """

    boxes: Annotated[list[Box], msgspec.Meta(max_length=1000)]
    frame: Whole | None = None
    captured_us: Whole | None = None
    normalised: bool = False


@dataclass
class LineCounts:
    """Counts since the start.

    Attributes:
        lines: All lines.
        malformed: Lines that were malformed or too long.
        late: Lines whose frame had passed.
        unmatched: Frames for which no line came.
    """

    lines: int = 0
    malformed: int = 0
    late: int = 0
    unmatched: int = 0


class JsonLinesDetector:
    """Gives each frame the boxes that another process has sent for it.

    Args:
        settings: Where lines come from, and how they are matched to frames.

    Attributes:
        address: Path or host and port that senders connect to; None for standard input.
        counts: Lines and frames so far.

    Raises:
        DetectorError: The address cannot be listened on.
    """

    def __init__(self, settings: JsonLinesSettings) -> None:
        self._wait_s = settings.wait_ms / 1000
        self._silent_s = settings.silent_s
        self._asked_s = self._matched_s = 0.0  # time.monotonic() of the last frame, and of the last that had a line
        self._received_s = self._understood_s = float("-inf")  # likewise of the last line, and of the last good one
        self._changed = threading.Condition()
        self._frames = PendingFrames(settings.max_pending, self._changed)
        self._times = PendingTimes(settings.max_pending, round(settings.tolerance_ms * 1000))
        self._decoder = msgspec.json.Decoder(Line)
        self.counts = LineCounts()
        self._listen = settings.listen
        self._server = LineServer(
            settings.listen, max_bytes=settings.max_line_bytes, on_line=self._receive, on_idle=self._notify
        )
        self.address = self._server.address
        self.description = f"JSON lines from {settings.listen}"

    def __call__(self, frame: Frame) -> Detections:
        """See :class:`~reid_edge.camera.detectors.Detector`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_decided(frame), self._wait_s)
            found = self._frames.take(frame.index)
            by_time = self._times.take(frame.captured_us)
            self._changed.notify_all()
        found = by_time if found is None else found
        now_s = time.monotonic()
        if found is not None or not self._asked_s:
            self._matched_s = now_s
        self._asked_s = now_s
        if found is None:
            self.counts.unmatched += 1
            return no_detections()
        return found.on(frame)

    def close(self) -> None:
        """Stop listening."""
        with self._changed:
            self._frames.closed = True
            self._changed.notify_all()
        self._server.close()

    def trouble(self) -> str:
        """See :func:`~reid_edge.camera.detectors.trouble_of`."""
        silent_s = self._asked_s - self._matched_s
        return f"{self._why_silent()} (for {silent_s:.0f} s)" if silent_s > self._silent_s else ""

    def _why_silent(self) -> str:
        if self._understood_s >= self._matched_s:
            return f"{self.description} match no frame: compare frame numbers, or times and tolerance_ms"
        if self._received_s >= self._matched_s:
            return f"{self.description} are malformed, see the log"
        if self._server.sending.is_set():
            return f"the detector that sends {self.description} is silent"
        if self.address is None:
            return "the detector has ended: standard input is closed"
        return f"no detector is connected to {self._listen}"

    def _is_decided(self, frame: Frame) -> bool:
        """Tell whether waiting would be of no use: the line is there, will not come, or no sender is connected."""
        known = self._frames.has(frame.index) or self._times.has(frame.captured_us)
        return known or not self._server.sending.is_set()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _receive(self, text: bytes | None) -> None:
        if text is not None and not text.strip():
            return
        self.counts.lines += 1
        self._received_s = time.monotonic()
        try:
            line = self._decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._count_malformed(error)
            return
        self._understood_s = self._received_s
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

    def _count_malformed(self, error: Exception) -> None:
        self.counts.malformed += 1
        if str(self.counts.malformed).strip("0") == "1":  # the 1st, 10th, 100th …
            malformed = counted(self.counts.malformed, "malformed line")
            logger.warning("%s of detections so far; the last: %s", malformed, error)


def _detections(boxes: list[list[float]]) -> Detections:
    rows = np.array([box if len(box) == 5 else [*box, 1.0] for box in boxes]).reshape(-1, 5)
    with np.errstate(over="ignore"):  # numbers too large become infinite, and the filter drops them
        rows = rows.astype(np.float32)
    return Detections(rows[:, :4].copy(), rows[:, 4].copy())


@dataclass(frozen=True, eq=False)
class Found:
    """Detections of one line.

    Attributes:
        detections: Boxes in pixels, or as fractions of the frame.
        normalised: They are fractions.
    """

    detections: Detections
    normalised: bool

    def on(self, frame: Frame) -> Detections:
        """Return the detections in pixels of the frame."""
        if not self.normalised:
            return self.detections
        height, width = frame.image.shape[:2]
        return Detections(self.detections.boxes * np.array([width, height] * 2, np.float32), self.detections.scores)


class PendingFrames:
    """Detections by the number of their frame.

    When too many are held, :meth:`add` waits, so that a whole file of detections can be piped in.  If many frames pass
    and none of the detections held is for them, all are dropped: their numbers are wrong and must not block others.

    Args:
        capacity: Largest number held.
        changed: Condition that every caller holds, and that is notified of every change.
    """

    def __init__(self, capacity: int, changed: threading.Condition) -> None:
        self._capacity = capacity
        self._changed = changed
        self._found: dict[int, Found] = {}
        self._next = 0
        self.closed = False

    def add(self, number: int, found: Found) -> bool:
        """Hold detections until their frame comes; return False if it has passed."""
        patience = self._next + self._capacity
        while len(self._found) >= self._capacity and number >= self._next and not self.closed:
            farthest = max(self._found)
            if number < farthest:  # a number far ahead may be wrong, and must not keep out those that are due
                del self._found[farthest]
            elif self._next >= patience:
                logger.warning(
                    "dropped detections of frames %d to %d at frame %d: their numbers do not match the frames",
                    min(self._found),
                    farthest,
                    self._next,
                )
                self._found.clear()
            else:
                self._changed.wait()
        if number < self._next:
            return False
        self._found[number] = found
        return True

    def has(self, number: int) -> bool:
        """Tell whether a frame's detections are there, or those of a frame soon after: then they will not come."""
        return number in self._found or any(number < other <= number + self._capacity for other in self._found)

    def take(self, number: int) -> Found | None:
        """Return the detections of a frame, and forget all up to it."""
        found = self._found.get(number)
        self._next = number + 1
        for passed in [other for other in self._found if other <= number]:
            del self._found[passed]
        return found


#: Lines are taken to be of a wrong clock, and neither waited for nor kept at the cost of others, if they are farther
#: ahead of the frames than this, microseconds.
FAR_AHEAD_US = 3_600_000_000


class PendingTimes:
    """Detections by the time of their frame; when too many are held, the oldest are dropped.

    Either side's clock may be wrong for a while.  When the frames' is set back, all is dropped; when the sender's is
    far ahead, what it sends then is dropped first.

    Args:
        capacity: Largest number held.
        tolerance_us: Largest difference between the times of detections and of their frame, microseconds.
    """

    def __init__(self, capacity: int, tolerance_us: int) -> None:
        self._capacity = capacity
        self._tolerance_us = tolerance_us
        self._times: list[int] = []
        self._found: dict[int, Found] = {}
        self._since_us: int | None = None

    def add(self, captured_us: int, found: Found) -> bool:
        """Hold detections; return False if the frames are past them."""
        if self._since_us is not None and captured_us < self._since_us:
            return False
        if captured_us not in self._found:
            insort(self._times, captured_us)
        self._found[captured_us] = found
        while len(self._times) > self._capacity and self._is_far(self._times[-1]):
            del self._found[self._times.pop()]
        self._forget(max(0, len(self._times) - self._capacity))
        return True

    def has(self, captured_us: int) -> bool:
        """Tell whether detections near that time, or within the hour after it, are there."""
        first = bisect_left(self._times, captured_us - self._tolerance_us)
        return first < len(self._times) and self._times[first] <= captured_us + FAR_AHEAD_US

    def take(self, captured_us: int) -> Found | None:
        """Return the nearest in time, if near enough; forget those that no later frame can be near to."""
        if self._since_us is not None and captured_us < self._since_us:
            self._forget(len(self._times))
        self._since_us = captured_us - self._tolerance_us
        self._forget(bisect_left(self._times, self._since_us))
        here = bisect_left(self._times, captured_us)
        nearest = min(self._times[max(0, here - 1) : here + 1], key=lambda each: abs(each - captured_us), default=None)
        if nearest is None or abs(nearest - captured_us) > self._tolerance_us:
            return None
        return self._found[nearest]

    def _is_far(self, captured_us: int) -> bool:
        return self._since_us is not None and captured_us > self._since_us + FAR_AHEAD_US

    def _forget(self, count: int) -> None:
        for each in self._times[:count]:
            del self._found[each]
        del self._times[:count]
