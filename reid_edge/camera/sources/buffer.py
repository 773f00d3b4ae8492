"""Between the thread that captures and the one that works: a short queue, or a slot for the latest frame."""

from __future__ import annotations

import threading
from collections import deque

from reid_edge.camera.frames import Frame
from reid_edge.errors import ReidEdgeError


class FrameBuffer:
    """Frames on their way from one thread to another.

    Args:
        capacity: Frames held at most.
        overwrite: When full, drop the oldest frame; otherwise the capturing thread waits.

    Attributes:
        dropped: Frames that were overwritten before anyone took them.
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
        """Hand over a frame; False when nobody will take it any more."""
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
        """The oldest frame held; None when none came in time, or none will come.

        Raises:
            ReidEdgeError: What ended the capture, once the frames before it are taken.
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
        """Whether :meth:`get` will give nothing any more."""
        with self._changed:
            return self._closed or (self._finished and not self._frames)

    def finish(self, error: ReidEdgeError | None = None) -> None:
        """No frame will follow, for this reason if there is one."""
        with self._changed:
            self._finished = True
            self._error = error
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody wants frames any more."""
        with self._changed:
            self._closed = True
            self._frames.clear()
            self._changed.notify_all()
