"""People by their movement before a still background: needs no weights, and a camera that does not move."""

from __future__ import annotations

import math

import cv2
import numpy as np

from reid_edge.camera.detectors.motion.background import Background, StillScene, reduced
from reid_edge.camera.detectors.motion.people import find_people
from reid_edge.camera.detectors.settings import MotionSettings
from reid_edge.camera.frames import Detections, Frame, no_detections
from reid_edge.crops import Image


class MotionDetector:
    """Background subtraction, then blobs of a person's shape.

    Args:
        settings: Sizes and sensitivity.
    """

    def __init__(self, settings: MotionSettings) -> None:
        self._settings = settings
        self._background = Background(settings.sensitivity, settings.memory_s)
        self._scene = StillScene()
        self._skipped: tuple[Image, int] | None = None
        self._shape: tuple[int, ...] = ()
        self.description = f"motion (OpenCV {cv2.__version__})"

    def __call__(self, frame: Frame) -> Detections:
        """See :class:`~reid_edge.camera.detectors.base.Detector`."""
        halvings = max(0, round(math.log2(frame.image.shape[1] / self._settings.width)))
        small = reduced(frame.image, halvings)
        if small.shape != self._shape:  # the camera has changed its resolution
            self._shape = small.shape
            self._background.forget()
            self._scene.forget()
            self._skipped = None
        if self._scene.is_still(small, frame.captured_us):
            self._skipped = small, frame.captured_us
            return no_detections()
        if self._skipped is not None:  # the time that has passed was the background's, not that of who has entered now
            self._background.learn(*self._skipped)
            self._skipped = None
        moving = self._background.moving(small, frame.captured_us)
        self._scene.remember(small, frame.captured_us, busy=bool(moving.any()))
        height = len(small)
        found = find_people(moving, self._settings.min_height * height, self._settings.max_height * height)
        return Detections(found.boxes * np.float32(frame.image.shape[1] // small.shape[1]), found.scores)

    def close(self) -> None:
        """Nothing is held but memory."""
