"""Frames, and the boxes of people that were found in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.types import Image

Boxes = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    Attributes:
        image: H×W×3 uint8, BGR.
        captured_us: Capture time, microseconds since 1970 UTC; never less than that of the frame before, unless
            ``correction_us`` has changed.
        index: Number of the frame in its source, from 0.  Skipped frames are counted, so that labels of a file stay
            aligned.
        correction_us: Sum of the steps by which the clock of capture times was set so far.  Times of frames with
            another one must not be compared with this frame's.
    """

    image: Image
    captured_us: int
    index: int
    correction_us: int = 0

    @property
    def steady_us(self) -> int:
        """Capture time on a scale that goes on evenly when the clock is set, microseconds."""
        return self.captured_us - self.correction_us


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of people in one frame.

    Attributes:
        boxes: N×4 float32, x1 y1 x2 y2 in pixels of the frame.
        scores: N float32, 0 to 1.
    """

    boxes: Boxes
    scores: Scores

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Detections:
        """Select rows by a mask of N booleans or by row numbers."""
        return Detections(self.boxes[rows], self.scores[rows])


def no_detections() -> Detections:
    """Return detections without a box."""
    return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32))
