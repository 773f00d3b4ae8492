"""Privacy masks: parts of the picture that nobody may see."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.camera.frames import Boxes, Frame
from reid_edge.errors import SettingsError

Point = tuple[float, float]

#: Masks are drawn larger by half of this at each side, pixels.
_EDGE = 3
#: How much of a box is masked is looked up in a picture no wider or higher than this.
_GRID = 512


class PrivacyMasks:
    """Polygons over the picture.

    Args:
        polygons: Each at least 3 corners x y, fractions of the frame.

    Raises:
        SettingsError: A polygon that is none.
    """

    def __init__(self, polygons: Sequence[Sequence[Point]]) -> None:
        self._polygons = [_corners(polygon, number) for number, polygon in enumerate(polygons)]
        self._sums: dict[tuple[int, int], npt.NDArray[np.int32]] = {}

    def __bool__(self) -> bool:
        return bool(self._polygons)

    def black_out(self, frame: Frame) -> Frame:
        """Make every pixel that a mask touches black, in place; do so before anything else sees the frame."""
        if not self._polygons:
            return frame
        image = frame.image
        if not (image.flags.writeable and image.flags.c_contiguous):
            image = image.copy()
        self._paint(image, (0, 0, 0))
        return frame if image is frame.image else Frame(image, frame.captured_us, frame.index)

    def hide(self, boxes: Boxes, size_wh: tuple[int, int], overlap: float) -> npt.NDArray[np.bool_]:
        """Which boxes stand in a mask, or have at least a part ``overlap`` of their area in masks: N booleans.

        Args:
            boxes: N×4 pixels, within the frame.
            size_wh: Width and height of the frame.
            overlap: 0 to 1; 0 is for boxes that touch a mask.
        """
        sums = self._summed(size_wh)
        scale = np.array([sums.shape[1] - 1, sums.shape[0] - 1] * 2) / np.array(size_wh * 2)
        low = np.floor(boxes[:, :2] * scale[:2]).astype(np.intp)
        high = np.maximum(np.ceil(boxes[:, 2:] * scale[2:]).astype(np.intp), low + 1)
        masked = _sum_within(sums, low, high)
        needed = np.maximum(overlap * (high - low).prod(1), 1)
        return np.asarray((masked >= needed) | self._holds_feet(sums, boxes, scale), np.bool_)

    def _holds_feet(
        self, sums: npt.NDArray[np.int32], boxes: Boxes, scale: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        feet = np.stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]], 1) * scale[:2]
        # The bottom edge is exclusive: the foot is in the last row of pixels above it.
        cells = np.stack([np.floor(feet[:, 0]), np.ceil(feet[:, 1]) - 1], 1).astype(np.intp)
        cells = np.clip(cells, 0, np.array([sums.shape[1] - 2, sums.shape[0] - 2]))
        return np.asarray(_sum_within(sums, cells, cells + 1) > 0, np.bool_)

    def _summed(self, size_wh: tuple[int, int]) -> npt.NDArray[np.int32]:
        """Sums over all masked cells above and left of each corner of a grid over the frame."""
        if size_wh not in self._sums:
            factor = min(1.0, _GRID / max(size_wh))
            grid = np.zeros([max(1, round(side * factor)) for side in reversed(size_wh)], np.uint8)
            self._paint(grid, (1,))
            self._sums = {size_wh: np.asarray(cv2.integral(grid), np.int32)}
        return self._sums[size_wh]

    def _paint(self, image: npt.NDArray[np.uint8], color: tuple[int, ...]) -> None:
        height, width = image.shape[:2]
        for polygon in self._polygons:
            # Pixel centres are whole numbers for OpenCV, and halves as fractions of the frame.
            corners = [np.round(polygon * (width, height) - 0.5).astype(np.int32)]
            cv2.fillPoly(image, corners, color)
            # Its edges are off by up to a pixel, which may be on the wrong side.
            cv2.polylines(image, corners, isClosed=True, color=color, thickness=_EDGE)


def _corners(polygon: Sequence[Point], number: int) -> npt.NDArray[np.float64]:
    corners = np.array(polygon, np.float64)
    if corners.ndim != 2 or len(corners) < 3 or not ((corners >= 0) & (corners <= 1)).all():
        raise SettingsError(
            f"masks[{number}]: expected at least 3 corners x y, fractions of the frame from 0 to 1; got {polygon}."
        )
    return corners


def _sum_within(
    sums: npt.NDArray[np.int32], low: npt.NDArray[np.intp], high: npt.NDArray[np.intp]
) -> npt.NDArray[np.int32]:
    left, top, right, bottom = low[:, 0], low[:, 1], high[:, 0], high[:, 1]
    return np.asarray(sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left], np.int32)
