"""Capture in a thread of its own."""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol

from reid_edge.camera.frames import Frame
from reid_edge.camera.sources.buffer import FrameBuffer
from reid_edge.camera.sources.stats import SourceStats
from reid_edge.errors import ReidEdgeError, SourceError

logger = logging.getLogger(__name__)

#: A capturing thread that hangs in a driver is left behind after this.
_JOIN_S = 0.5


class Reader(Protocol):
    """Where frames come from."""

    def frames(self, stopping: threading.Event) -> Iterator[Frame]:
        """Frames until the end, or soon after ``stopping`` is set."""
        ...


class Source:
    """Frames from a thread that captures: iterate, or fetch one with :meth:`read`.

    A context manager; capture begins when it is made and ends with :meth:`stop`.

    Args:
        reader: Gives the frames.
        name: For messages, without passwords.
        live: A camera: only the latest frame is kept.  Otherwise no frame is lost and the capturing thread waits.
        queue: Frames decoded ahead, if not live.
        stats: The reader's.

    Attributes:
        stats: Counts.
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
        # A thread that comes out of OpenCV while the interpreter is being taken down aborts the process.
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
        """The next frame; None at the end (see :attr:`ended`), or when none came in time.

        Raises:
            SourceError: The source failed for good.
        """
        return self._buffer.get(timeout_s)

    @property
    def ended(self) -> bool:
        """Whether no frame will come any more."""
        return self._buffer.ended

    def stop(self) -> None:
        """End capture and discard what was not fetched; returns promptly even while a driver hangs."""
        atexit.unregister(self.stop)
        self._stopping.set()
        self._buffer.close()
        self._thread.join(_JOIN_S)
        if self._thread.is_alive():
            logger.warning("%s: the capture hangs and is left behind", self.name)

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
        taken = self._buffer.put(frame)
        self.stats.dropped = self._buffer.dropped
        return taken


def _close(frames: Iterator[Frame]) -> None:
    """Let a generator release its capture now, in its own thread."""
    if close := getattr(frames, "close", None):
        close()
