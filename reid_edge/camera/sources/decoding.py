"""What OpenCV's captures give, made safe."""

from __future__ import annotations

import math

import cv2
import numpy as np

from reid_edge.crops import Image
from reid_edge.errors import SourceError

#: No camera is faster; files that say so are wrong.
_MAX_FPS = 1000.0


def grab(capture: cv2.VideoCapture) -> bool:
    """Fetch the next frame without converting it; False at the end, or when the stream has failed."""
    try:
        return capture.grab()
    except cv2.error:
        return False


def retrieve(capture: cv2.VideoCapture) -> Image | None:
    """The frame that was fetched, H×W×3 uint8 BGR; None when it cannot be decoded.

    Raises:
        SourceError: It is no colour picture.
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
    """Frames per second that the file tells, if it can be believed."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= _MAX_FPS else None


def reported_position_us(capture: cv2.VideoCapture) -> int:
    """Time of the frame from the beginning as the file tells it; 0 where it does not."""
    position_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
    return round(position_ms * 1000) if math.isfinite(position_ms) and position_ms > 0 else 0
