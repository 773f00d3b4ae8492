"""A source captures frames in a thread of its own and hands them over through a buffer."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from reid_edge.camera.frames import Frame
from reid_edge.errors import ReidEdgeError, SourceError

logger = logging.getLogger(__name__)

#: Longest time that a stop waits for the capturing thread, which may hang in a driver.
_JOIN_S = 0.5


class Reader(Protocol):
    """Reads frames from a file or a camera."""

    def frames(self, stopping: threading.Event) -> Iterator[Frame]:
        """Yield frames until the end, or until soon after ``stopping`` is set."""
        ...


class Source:
    """Gives the frames of a capturing thread: iterate over it, or fetch one with :meth:`read`.

    A context manager.  Capture begins when the source is made and ends with :meth:`stop`.

    Args:
        reader: Yields the frames.
        name: Name for messages, without passwords.
        live: Keep only the latest frame, as of a camera.  Otherwise no frame is lost, and the capturing thread waits.
        queue: Number of frames decoded ahead, if not live.
        stats: Counts, shared with the reader.

    Attributes:
        stats: Counts of frames and failures.
    """

    def __init__(self, reader: Reader, *, name: str, live: bool, queue: int, stats: SourceStats) -> None:
        self.name = name
        self.live = live
        self.stats = stats
        self._reader = reader
        self._buffer = FrameBuffer(1 if live else queue, overwrite=live)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._capture, name="capture", daemon=True)
        self._thread.start()
        # A thread that returns from OpenCV during the shutdown of the interpreter aborts the process.
        atexit.register(self.stop)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def read(self, timeout_s: float | None = None) -> Frame | None:
        """Return the next frame; None at the end (see :attr:`ended`), or when none came in time.

        Raises:
            SourceError: The source failed for good.
        """
        return self._buffer.get(timeout_s)

    @property
    def ended(self) -> bool:
        """True when no more frames will come."""
        return self._buffer.ended

    def stop(self) -> None:
        """End the capture and discard frames that were not fetched; returns promptly even while a driver hangs."""
        atexit.unregister(self.stop)
        self._stopping.set()
        self._buffer.close()
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            logger.warning("%s: the capture hangs and is abandoned", self.name)

    def _capture(self) -> None:
        frames = self._reader.frames(self._stopping)
        try:
            for frame in frames:
                if not self._hand_over(frame):
                    break
            self._buffer.finish()
        except ReidEdgeError as error:
            self._buffer.finish(error)
        except Exception as error:
            logger.exception("%s: the capture failed", self.name)
            self._buffer.finish(SourceError(f"{self.name}: the capture failed: {type(error).__name__}: {error}"))
        finally:
            self.stats.connected = False
            _close(frames)

    def _hand_over(self, frame: Frame) -> bool:
        self.stats.saw_frame()
        self.stats.position = frame.index + 1
        taken = self._buffer.put(frame)
        self.stats.dropped = self._buffer.dropped
        return taken


def _close(frames: Iterator[Frame]) -> None:
    """Close a generator, so that it releases its capture now and in this thread."""
    if close := getattr(frames, "close", None):
        close()


class FrameBuffer:
    """Hands frames from the capturing thread to another one.

    Args:
        capacity: Largest number of frames held.
        overwrite: When full, drop the oldest frame; otherwise :meth:`put` waits.

    Attributes:
        dropped: Number of frames that were overwritten before they were taken.
    """

    def __init__(self, capacity: int, *, overwrite: bool) -> None:
        self._frames: deque[Frame] = deque()
        self._capacity = capacity
        self._overwrite = overwrite
        self._changed = threading.Condition()
        self._finished = False
        self._closed = False
        self._error: ReidEdgeError | None = None
        self.dropped = 0

    def put(self, frame: Frame) -> bool:
        """Hand over a frame; return False if the buffer is closed."""
        with self._changed:
            while len(self._frames) >= self._capacity and not self._closed:
                if self._overwrite:
                    self._frames.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            if self._closed:
                return False
            self._frames.append(frame)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None) -> Frame | None:
        """Return the oldest frame held; None when none came in time, or none will come.

        Raises:
            ReidEdgeError: The error that ended the capture, once the frames before it are taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._finished or self._closed, timeout_s)
            if self._closed:
                return None
            if self._frames:
                self._changed.notify_all()
                return self._frames.popleft()
            if self._error is not None:
                raise self._error
            return None

    @property
    def ended(self) -> bool:
        """True when :meth:`get` will return no more frames."""
        with self._changed:
            return self._closed or (self._finished and not self._frames)

    def finish(self, error: ReidEdgeError | None = None) -> None:
        """Declare that no frame will follow, because of ``error`` if it is given."""
        with self._changed:
            self._finished = True
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """Discard all frames and accept no more."""
        with self._changed:
            self._closed = True
            self._frames.clear()
            self._changed.notify_all()


@dataclass
class SourceStats:
    """Counts since the start.  Written by the capturing thread, read by any.

    Attributes:
        frames: Frames that were captured.
        dropped: Frames of these that a newer one has overwritten (live sources).
        unreadable: Images or frames that could not be decoded.
        reconnects: Attempts to open a live source again.
        connected: Frames are coming, as far as known; a file is always connected.
        error: Last failure of a live source that is not connected, without passwords.
        clock_ahead_us: How far the wall clock is ahead of capture times while it is not believed; else 0.
        clock_found_us: What is to be added to capture times before 2026, since the clock was only set later; else 0.
        position: Number of the last frame in its source, from 1; skipped frames are counted.
        expected: Frames that a file or folder holds, as far as its header tells; 0 for a live source and for a loop.
        first_us: Capture time of a file's first frame, microseconds since 1970 UTC; None before, and of live sources.
    """

    frames: int = 0
    dropped: int = 0
    unreadable: int = 0
    reconnects: int = 0
    connected: bool = False
    error: str | None = None
    clock_ahead_us: int = 0
    clock_found_us: int = 0
    position: int = 0
    expected: int = 0
    first_us: int | None = None
    _last: float = field(default_factory=time.monotonic)

    def saw_frame(self) -> None:
        """Count a frame that was captured just now."""
        self.frames += 1
        self._last = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last frame; before the first, since the start."""
        return time.monotonic() - self._last
