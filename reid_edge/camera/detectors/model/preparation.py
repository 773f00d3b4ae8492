"""From a frame to a detector's input, and from boxes in that input back to the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.camera.frames import Boxes
from reid_edge.crops import Image


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the input: pixel × scale + offset, for x and y."""

    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float]

    def to_frame(self, boxes: Boxes) -> Boxes:
        """Boxes in pixels of the input, N×4, as boxes in pixels of the frame."""
        scale, offset = (np.array(pair * 2, np.float32) for pair in (self.scale_xy, self.offset_xy))
        return np.asarray((boxes - offset) / scale, np.float32)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How a detector wants its frames.

    Attributes:
        size: Height and width, pixels.
        letterbox: Keep the aspect ratio, with bars at both sides; otherwise stretch.
        rgb: Swap the channels to RGB.
        mean: Subtracted from pixels 0–255, in the input's channel order.
        scale: Then multiplied with.
        pad: Value of the bars.
        nhwc: Channels last.
        dtype: Of the input.
    """

    size: tuple[int, int]
    letterbox: bool
    rgb: bool
    mean: tuple[float, float, float]
    scale: float
    pad: int
    nhwc: bool
    dtype: np.dtype[Any]

    def __call__(self, image: Image) -> tuple[npt.NDArray[Any], Placement]:
        """The input, 1×3×H×W or 1×H×W×3, and where the frame lies in it."""
        resized, placement = self._letterboxed(image) if self.letterbox else self._stretched(image)
        if self.rgb:
            resized = np.asarray(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB), np.uint8)
        return self._batch(resized), placement

    def _batch(self, pixels: Image) -> npt.NDArray[Any]:
        if self.nhwc:
            return self._values(pixels, np.asarray(self.mean, np.float32))[None]
        batch = np.empty((1, 3, *self.size), self.dtype)
        for channel, mean in enumerate(self.mean):
            batch[0, channel] = self._values(pixels[..., channel], mean)
        return batch

    def _values(self, pixels: Image, mean: float | npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        if self.dtype == np.uint8:
            return pixels
        values = pixels.astype(np.float32)
        if np.any(mean):
            values -= mean
        if self.scale != 1:
            values *= np.float32(self.scale)
        return values.astype(self.dtype, copy=False)

    def _stretched(self, image: Image) -> tuple[Image, Placement]:
        height, width = self.size
        scale = width / image.shape[1], height / image.shape[0]
        return _resized(image, width, height), Placement(scale, (0.0, 0.0))

    def _letterboxed(self, image: Image) -> tuple[Image, Placement]:
        height, width = self.size
        factor = min(height / image.shape[0], width / image.shape[1])
        inner_height, inner_width = max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        boxed = np.full((height, width, 3), self.pad, np.uint8)
        boxed[top : top + inner_height, left : left + inner_width] = _resized(image, inner_width, inner_height)
        scale = inner_width / image.shape[1], inner_height / image.shape[0]
        return boxed, Placement(scale, (float(left), float(top)))


def _resized(image: Image, width: int, height: int) -> Image:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
