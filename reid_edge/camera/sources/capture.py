"""Parts of both readers: thinning, and decoding by OpenCV without its exceptions."""

from __future__ import annotations

import math

import cv2
import numpy as np

from reid_edge.errors import SourceError
from reid_edge.types import Image

#: A frame is on time if it is early by less than this: one due at 100.000 ms may be stamped 99.999.
_EARLY_US = 1000
#: Highest frame rate of a file that is believed.
_MAX_FPS = 1000.0


class Thinning:
    """Takes every n-th frame, and no more than a given number per second.

    The rate is held on average: frames are due on a grid of times, and the first one at or after each is taken.

    Args:
        stride: Take frames 0, n, 2n, …
        max_fps: Of those, at most this many per second of steady time; None takes all.
    """

    def __init__(self, stride: int, max_fps: float | None) -> None:
        self._stride = stride
        self._period_us = 0 if max_fps is None else round(1e6 / max_fps)
        self._due_us: int | None = None

    def takes(self, index: int, steady_us: int) -> bool:
        """Decide about the next frame; to be called once for each frame, in order."""
        if index % self._stride:
            return False
        if not self._period_us:
            return True
        due_us = steady_us if self._due_us is None else self._due_us
        if steady_us < due_us - _EARLY_US:
            return False
        missed = max(0, steady_us - due_us) // self._period_us
        self._due_us = due_us + (missed + 1) * self._period_us
        return True


def grab(capture: cv2.VideoCapture) -> bool:
    """Fetch the next frame without converting it; False at the end, or when the stream has failed."""
    try:
        return capture.grab()
    except cv2.error:
        return False


def retrieve(capture: cv2.VideoCapture) -> Image | None:
    """Decode the frame that was fetched: H×W×3 uint8 BGR, or None if it cannot be decoded.

    Raises:
        SourceError: The frame is no colour picture.
    """
    try:
        decoded, image = capture.retrieve()
    except cv2.error:
        return None
    if not decoded or image is None or image.size == 0:
        return None
    if image.ndim == 2 or image.shape[2] == 1:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.dtype != np.uint8 or image.shape[2] != 3:
        raise SourceError(
            f"the source gives frames of shape {image.shape} {image.dtype}, expected H×W×3 uint8 BGR. "
            "In a GStreamer pipeline: … ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1"
        )
    return np.asarray(image, np.uint8)


def reported_fps(capture: cv2.VideoCapture) -> float | None:
    """Return the frames per second that the file reports; None if the number cannot be right."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= _MAX_FPS else None


def reported_position_us(capture: cv2.VideoCapture) -> int:
    """Return the time of the frame from the beginning, as the file reports it; 0 if it reports none."""
    position_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
    return round(position_ms * 1000) if math.isfinite(position_ms) and position_ms > 0 else 0
