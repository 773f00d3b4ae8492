"""Images from files, for whoever needs pixels and no engine."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from reid_edge.crops import Image
from reid_edge.errors import FrameError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
#: First bytes of a format → what a whole file holds near its end; OpenCV decodes truncated files without a word.
_END_MARKERS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND"}


def read_image(path: Path) -> Image:
    """Decode an image, H×W×3 uint8 BGR.

    Raises:
        FrameError: Missing, or not a readable image.
    """
    try:
        data = path.read_bytes()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):  # cv2.error: no bytes at all, or more pixels than OpenCV allows
        image = None
    if image is None:
        raise FrameError(f"{path} is not a readable image.")
    for start, end in _END_MARKERS.items():
        if data.startswith(start) and end not in data:
            raise FrameError(f"{path} is truncated: its end marker is missing. Copy it again.")
    return np.asarray(image, dtype=np.uint8)
