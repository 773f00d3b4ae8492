"""What moves before a still background."""

from __future__ import annotations

import cv2
import numpy as np

from reid_edge.crops import Image

#: Of the values that OpenCV gives: 0 background, 127 shadow, 255 foreground.
_FOREGROUND = 200
#: What part of the time a pixel's background is seen, and how dark a shadow may be.  OpenCV has 0.9 and 0.5; these find
#: more people in both videos of docs/detectors.md.
_BACKGROUND_RATIO, _SHADOW_THRESHOLD = 0.7, 0.6
#: When more than this part of the picture changes at once, it was the light or the camera, not people.
_ALL_CHANGED = 0.6
#: Largest change between averages over 8×8 pixels (of the reduced picture: 4×4) that is taken for noise, levels of 255.
_NOISE = 8
_TILE = 4
#: Even a still scene is looked at so often: its background goes on changing.
_LOOK_US = 1_000_000

_SPECK = np.ones((2, 2), np.uint8)


def reduced(image: Image, factor: int) -> Image:
    """Averages over factor×factor pixels; a remainder at the right and bottom is left out.

    OpenCV is several times faster at whole factors than at others.
    """
    if factor == 1:
        return image
    rows, columns = max(1, image.shape[0] // factor), max(1, image.shape[1] // factor)
    whole = image[: rows * factor, : columns * factor]
    return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


class Background:
    """A model of the background, by Gaussian mixtures (OpenCV's MOG2), that forgets by time and not by frames.

    Args:
        sensitivity: Squared distance, in standard deviations, at which a pixel leaves the background.
        memory_s: Time after which what stands still has become background.
    """

    def __init__(self, sensitivity: float, memory_s: float) -> None:
        self._sensitivity = sensitivity
        self._memory_us = memory_s * 1e6
        self.forget()

    def forget(self) -> None:
        """Start anew with the next frame."""
        self._model = cv2.createBackgroundSubtractorMOG2(varThreshold=self._sensitivity, detectShadows=True)
        self._model.setBackgroundRatio(_BACKGROUND_RATIO)
        self._model.setShadowThreshold(_SHADOW_THRESHOLD)
        self._frames = 0
        self._last_us = 0

    def moving(self, small: Image, captured_us: int) -> Image:
        """Pixels that are not background, nor in a shadow, nor single: H×W uint8, 0 or 255."""
        mask = np.asarray(self._model.apply(small, learningRate=self._learning_rate(captured_us)), np.uint8)
        mask = np.asarray(cv2.threshold(mask, _FOREGROUND, 255, cv2.THRESH_BINARY)[1], np.uint8)
        mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, _SPECK), np.uint8)
        if cv2.countNonZero(mask) > _ALL_CHANGED * mask.size:
            self.forget()
            self.moving(small, captured_us)
            mask[:] = 0
        return mask

    def _learning_rate(self, captured_us: int) -> float:
        elapsed_us = captured_us - self._last_us if self._frames else self._memory_us
        self._last_us = captured_us
        self._frames += 1
        # The first frames count more: people who stand in them shall not stay background for long.
        return float(np.clip(elapsed_us / self._memory_us, 1 / (2 * self._frames), 1)) if self._frames > 1 else 1.0


class StillScene:
    """Tells cheaply that nothing has changed since the background was last looked at, and nobody was there then."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """The next frame is not still."""
        self._tiles: Image | None = None
        self._looked_us = 0

    def is_still(self, small: Image, captured_us: int) -> bool:
        """Whether a frame need not be looked at."""
        if self._tiles is None or captured_us - self._looked_us >= _LOOK_US:
            return False
        return bool(cv2.norm(reduced(small, _TILE), self._tiles, cv2.NORM_INF) <= _NOISE)

    def remember(self, small: Image, captured_us: int, *, busy: bool) -> None:
        """A frame was looked at; ``busy`` if something moved in it."""
        self._tiles = None if busy else reduced(small, _TILE)
        self._looked_us = captured_us
