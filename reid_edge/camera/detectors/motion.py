"""Find people by their movement in front of a still background; needs no weights and a camera that does not move."""

from __future__ import annotations

import math
from typing import Annotated

import cv2
import msgspec
import numpy as np

from reid_edge.camera.detectors.blobs import find_people
from reid_edge.camera.detectors.ghosts import RecentFrames
from reid_edge.camera.frames import Boxes, Detections, Frame, no_detections
from reid_edge.types import Image

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
#: Threshold on OpenCV's values: 0 background, 127 shadow, 255 foreground.
_FOREGROUND = 200
#: Part of the time that a pixel shows its background, and darkness of a shadow.  OpenCV's defaults are 0.9 and 0.5;
#: these values find more people in both videos of docs/detectors.md.
_BACKGROUND_RATIO, _SHADOW_THRESHOLD = 0.7, 0.6
#: A change of more than this part of the picture at once is of the light or the camera, not of people.
_ALL_CHANGED = 0.6
#: Largest change of an average over 4×4 pixels of the reduced picture that counts as noise, levels of 255.
_NOISE = 8
_TILE_HALVINGS = 2
#: Longest time without looking at a still scene, microseconds: its background goes on changing.
_LONGEST_SKIP_US = 1_000_000
#: Part of a blob that must have changed in the last moments, and the score of one that has not: it starts no track.
_CHANGED, _GHOST_SCORE = 0.1, 0.5
_SPECK = np.ones((2, 2), np.uint8)


class MotionSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="motion"
):
    """People by their movement in front of a still background; needs no weights and a camera that does not move.

    Attributes:
        width: Width to which frames are reduced, pixels: they are halved until their width is nearest to it.
        memory_s: Time after which something that stands still becomes background, seconds.
        sensitivity: Squared distance from the background, in standard deviations, above which a pixel counts as moving.
            A lower value finds more.
        min_height: Height of the smallest person, as a fraction of the frame's height.
        max_height: Height of the largest person, as a fraction of the frame's height.
    """

    width: Annotated[int, msgspec.Meta(ge=64)] = 384
    memory_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    sensitivity: Annotated[float, msgspec.Meta(gt=0)] = 16.0
    min_height: Fraction = 0.08
    max_height: Fraction = 0.95


class MotionDetector:
    """Subtracts the background, then finds blobs of a person's shape.

    Args:
        settings: Sizes and sensitivity.
    """

    def __init__(self, settings: MotionSettings) -> None:
        self._settings = settings
        self._background = Background(settings.sensitivity, settings.memory_s)
        self._scene = StillScene()
        self._recent = RecentFrames()
        self._skipped: tuple[Image, int] | None = None
        self._shape: tuple[int, ...] = ()
        self.description = f"motion (OpenCV {cv2.__version__})"

    def __call__(self, frame: Frame) -> Detections:
        """See :class:`~reid_edge.camera.detectors.Detector`."""
        halvings = max(0, round(math.log2(frame.image.shape[1] / self._settings.width)))
        small = reduced(frame.image, halvings)
        if small.shape != self._shape:  # the camera has changed its resolution
            self._shape = small.shape
            self._background.forget()
            self._scene.forget()
            self._skipped = None
        if self._scene.is_still(small, frame.steady_us):
            self._skipped = small, frame.steady_us
            return no_detections()
        if (
            self._skipped is not None
        ):  # the time that has passed belongs to the background, not to a person who has entered now
            self._background.learn(*self._skipped)
            self._skipped = None
        moving = self._background.moving(small, frame.steady_us)
        self._scene.remember(small, frame.steady_us, busy=bool(moving.any()))
        height = len(small)
        found = find_people(moving, self._settings.min_height * height, self._settings.max_height * height)
        self._recent.remember(small, frame.steady_us)
        is_ghost = self._recent.changed(moving, found.boxes) < _CHANGED
        scores = np.where(is_ghost, np.minimum(found.scores, np.float32(_GHOST_SCORE)), found.scores)
        boxes = reaching_the_edge(found.boxes, small.shape[1], height)
        return Detections(boxes * np.float32(frame.image.shape[1] // small.shape[1]), scores)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def reaching_the_edge(boxes: Boxes, width: int, height: int) -> Boxes:
    """Return boxes (N×4, pixels) of which those that end one pixel short of the edge of a frame of this size reach it.

    The outermost pixels of somebody who is cut off by the frame often count as background.
    """
    limit = np.array([width, height] * 2, np.float32)
    boxes = np.where(boxes <= 1, np.float32(0), boxes)
    return np.asarray(np.where(boxes >= limit - 1, limit, boxes), np.float32)


class Background:
    """Model of the background by Gaussian mixtures (OpenCV's MOG2) that forgets by time, not by number of frames.

    Args:
        sensitivity: Squared distance, in standard deviations, at which a pixel counts as moving.
        memory_s: Time after which something that stands still becomes background, seconds.
    """

    def __init__(self, sensitivity: float, memory_s: float) -> None:
        self._sensitivity = sensitivity
        self._memory_us = memory_s * 1e6
        self.forget()

    def forget(self) -> None:
        """Begin a new background with the next frame."""
        self._model = cv2.createBackgroundSubtractorMOG2(varThreshold=self._sensitivity, detectShadows=True)
        self._model.setBackgroundRatio(_BACKGROUND_RATIO)
        self._model.setShadowThreshold(_SHADOW_THRESHOLD)
        self._since_us: int | None = None
        self._last_us = 0

    def moving(self, small: Image, steady_us: int) -> Image:
        """Find pixels that are neither background nor shadow nor single: H×W uint8, 0 or 255."""
        mask = self.learn(small, steady_us)
        mask = np.asarray(cv2.threshold(mask, _FOREGROUND, 255, cv2.THRESH_BINARY)[1], np.uint8)
        # An opening in two steps: with a kernel of even size, OpenCV's own shifts the picture by a pixel.
        mask = np.asarray(cv2.dilate(cv2.erode(mask, _SPECK, anchor=(1, 1)), _SPECK, anchor=(0, 0)), np.uint8)
        if cv2.countNonZero(mask) > _ALL_CHANGED * mask.size:
            self.forget()
            self.learn(small, steady_us)
            mask[:] = 0
        return mask

    def learn(self, small: Image, steady_us: int) -> Image:
        """Add a frame to the model; return OpenCV's mask of it, H×W uint8: 0, 127 for shadows, or 255."""
        return np.asarray(self._model.apply(small, learningRate=self._learning_rate(steady_us)), np.uint8)

    def _learning_rate(self, steady_us: int) -> float:
        if self._since_us is None:
            self._since_us = self._last_us = steady_us
            return 1.0
        elapsed_us, self._last_us = steady_us - self._last_us, steady_us
        # A young model learns faster, so that people who stand in its first frames are not background for long.
        age_us = max(1, steady_us - self._since_us)
        return min(1.0, max(elapsed_us / self._memory_us, elapsed_us / (2 * age_us)))


class StillScene:
    """Recognises cheaply a scene that is unchanged since the last frame that was examined, in which nothing moved."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Treat the next frame as changed."""
        self._tiles: Image | None = None
        self._examined_us = 0

    def is_still(self, small: Image, steady_us: int) -> bool:
        """Tell whether a frame need not be examined."""
        if self._tiles is None or steady_us - self._examined_us >= _LONGEST_SKIP_US:
            return False
        return bool(cv2.norm(reduced(small, _TILE_HALVINGS), self._tiles, cv2.NORM_INF) <= _NOISE)

    def remember(self, small: Image, steady_us: int, *, busy: bool) -> None:
        """Note that a frame was examined; ``busy`` if something moved in it."""
        self._tiles = None if busy else reduced(small, _TILE_HALVINGS)
        self._examined_us = steady_us


def reduced(image: Image, halvings: int) -> Image:
    """Halve a picture repeatedly by averages over 2×2 pixels; an odd last row or column is left out.

    OpenCV does several halvings faster than one average over larger blocks.
    """
    for _ in range(halvings):
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        if not rows or not columns:
            return image
        image = np.asarray(
            cv2.resize(image[: rows * 2, : columns * 2], (columns, rows), interpolation=cv2.INTER_AREA), np.uint8
        )
    return image
