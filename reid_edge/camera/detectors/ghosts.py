"""Blobs in which nothing moves any more: what stood in the first frames has left, and its place looks like a person."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.camera.frames import Boxes
from reid_edge.types import Image

#: Two frames so far apart are compared, microseconds: meanwhile somebody who walks has moved by half a step.
_APART_US = 300_000
#: Smallest difference of a pixel that has changed, levels of 255.
_CHANGE = 12


class RecentFrames:
    """Remembers the frames of the last moments, and tells how much of a blob has changed since.

    The place that a car or a person has uncovered differs from the background that was learnt with them, and then stays
    as it is.  Of somebody who walks, half of the pixels or more have changed.
    """

    def __init__(self) -> None:
        self._frames: deque[tuple[int, Image]] = deque()

    def remember(self, frame: Image, steady_us: int) -> None:
        """Add a frame; those that are not needed any more are forgotten, all if it has another size."""
        if self._frames and self._frames[-1][1].shape != frame.shape:
            self._frames.clear()
        self._frames.append((steady_us, frame))
        while len(self._frames) > 1 and steady_us - self._frames[1][0] >= _APART_US:
            self._frames.popleft()

    def changed(self, moving: Image, boxes: Boxes) -> npt.NDArray[np.float64]:
        """Return the part of each box's moving pixels that have changed.

        Args:
            moving: H×W uint8, not 0 where the last frame differs from the background.
            boxes: N×4, in pixels of the frames.

        Returns:
            N numbers, 0 to 1; 1 where too little time has passed to tell.
        """
        (first_us, first), (last_us, last) = self._frames[0], self._frames[-1]
        if last_us - first_us < _APART_US or not len(boxes):
            return np.ones(len(boxes))
        parts = []
        for left, top, right, bottom in boxes.astype(int).tolist():
            inside = slice(top, bottom), slice(left, right)
            pixels = moving[inside] > 0
            differs = (cv2.absdiff(first[inside], last[inside]) > _CHANGE).any(axis=2)
            parts.append(int((pixels & differs).sum()) / max(1, int(pixels.sum())))
        return np.array(parts)
