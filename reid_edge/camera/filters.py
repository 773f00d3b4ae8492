"""Filter detections by score, size, privacy masks and overlap; black out the masks themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.advised_scores import AdvisedScores
from reid_edge.camera.frames import Boxes, Detections, Frame, Scores
from reid_edge.errors import SettingsError

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Pixels = Annotated[float, msgspec.Meta(ge=0)]
Polygon = Annotated[list[tuple[Fraction, Fraction]], msgspec.Meta(min_length=3, max_length=1000)]
Point = tuple[float, float]
#: Bound on the boxes that are compared with one another; of more, those with the lowest scores are left out.
MAX_BOXES = 1000
#: Width of the line around a mask that is blacked out too, pixels; half of it lies outside.
_EDGE = 3
#: Longest side of the picture in which the masked part of a box is counted, pixels.
_GRID = 512


class FilterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Boxes to keep, and parts of the picture that are blacked out.

    Attributes:
        confidence: Lowest score of a box that is kept. Default: what suits the detector (docs/detectors.md); 0.3 for an
            unknown one.
        nms_iou: Of two boxes with a greater intersection over union, the one with the lower score is dropped. 1 keeps
            all.
        min_width: Smallest width of a box, pixels, after clipping to the frame.
        min_height: Smallest height, pixels.
        max_width: Largest width, pixels. Default: no limit.
        max_height: Largest height, pixels. Default: no limit.
        masks: Polygons, each a list of x y as fractions of the frame. Their pixels are blacked out. Boxes whose feet or
            greater part lie in them are dropped.
        mask_overlap: A box is dropped if at least this part of its area lies in masks.
    """

    confidence: Fraction | None = None
    nms_iou: Fraction = 0.6
    min_width: Pixels = 12.0
    min_height: Pixels = 32.0
    max_width: Pixels | None = None
    max_height: Pixels | None = None
    masks: list[Polygon] = []
    mask_overlap: Fraction = 0.5


class DetectionFilter:
    """Keeps the boxes that are worth tracking.

    Args:
        settings: Limits and masks.
        confidence: Lowest score that is kept, where the settings give none.

    Attributes:
        masks: To be blacked out of each frame before anything else reads it.
        dropped: Number of boxes dropped, by reason: ``invalid``, ``confidence``, ``size``, ``mask``, ``overlap``.
    """

    def __init__(self, settings: FilterSettings, *, confidence: float = AdvisedScores().confidence) -> None:
        self._settings = settings
        self._confidence = confidence if settings.confidence is None else settings.confidence
        self.masks = PrivacyMasks(settings.masks)
        self.dropped: Counter[str] = Counter()

    def __call__(self, detections: Detections, frame: Frame) -> Detections:
        """Return the boxes to keep, clipped to the frame, the highest score first."""
        size_wh = frame.image.shape[1], frame.image.shape[0]
        kept = self._only(detections, usable(detections, size_wh), "invalid")
        kept = Detections(clipped(kept.boxes, size_wh), np.minimum(kept.scores, np.float32(1)))
        kept = self._only(kept, kept.scores >= self._confidence, "confidence")
        kept = self._only(kept, self._has_useful_size(kept.boxes), "size")
        if self.masks:
            kept = self._only(kept, ~self.masks.hide(kept.boxes, size_wh, self._settings.mask_overlap), "mask")
        rows = nms(kept.boxes, kept.scores, self._settings.nms_iou)
        self.dropped["overlap"] += len(kept) - len(rows)
        return kept.take(rows)

    def _only(self, detections: Detections, good: npt.NDArray[np.bool_], reason: str) -> Detections:
        if good.all():
            return detections
        self.dropped[reason] += int(len(good) - np.count_nonzero(good))
        return detections.take(good)

    def _has_useful_size(self, boxes: Boxes) -> npt.NDArray[np.bool_]:
        settings = self._settings
        widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        good: npt.NDArray[np.bool_] = (widths >= settings.min_width) & (heights >= settings.min_height)
        if settings.max_width is not None:
            good &= widths <= settings.max_width
        if settings.max_height is not None:
            good &= heights <= settings.max_height
        return good


def usable(detections: Detections, size_wh: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Tell which boxes are finite, at least a pixel wide and high, and overlap the frame: N booleans."""
    boxes, scores = detections.boxes, detections.scores
    width, height = size_wh
    good: npt.NDArray[np.bool_] = np.isfinite(boxes).all(1) & np.isfinite(scores)
    good &= (boxes[:, 2] - boxes[:, 0] >= 1) & (boxes[:, 3] - boxes[:, 1] >= 1)  # fractions of the frame are not
    good &= (boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (boxes[:, 0] < width) & (boxes[:, 1] < height)
    return good


def clipped(boxes: Boxes, size_wh: tuple[int, int]) -> Boxes:
    """Clip boxes to the frame, N×4."""
    limit = np.array([*size_wh, *size_wh], np.float32)
    return np.clip(boxes, np.float32(0), limit)


def nms(boxes: Boxes, scores: Scores, iou: float) -> npt.NDArray[np.intp]:
    """Suppress boxes that overlap one of a higher score (non-maximum suppression).

    Args:
        boxes: N×4, x1 y1 x2 y2.
        scores: N.
        iou: Greatest intersection over union of two boxes that are both kept.

    Returns:
        Rows to keep, the highest score first; of equal scores, the first row.
    """
    order = np.argsort(-scores, kind="stable")[:MAX_BOXES]
    too_close = np.triu(ious(boxes[order], boxes[order]) > iou, 1)
    alive = np.ones(len(order), np.bool_)
    for row in np.flatnonzero(too_close.any(1)):
        if alive[row]:
            alive &= ~too_close[row]
    return order[alive]


def ious(first: Boxes, second: Boxes) -> npt.NDArray[np.float32]:
    """Compute the intersection over union of each of M boxes with each of N: M×N float32; 0 for boxes without area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    union = _areas(first)[:, None] + _areas(second)[None, :] - shared
    return np.asarray(shared / np.maximum(union, np.float32(1e-9)), np.float32)


def _areas(boxes: Boxes) -> npt.NDArray[np.float32]:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.float32)


class PrivacyMasks:
    """Polygons over the picture whose pixels are blacked out.

    Args:
        polygons: Each at least 3 corners x y, fractions of the frame.

    Raises:
        SettingsError: A polygon with fewer than 3 corners, or with one outside the frame.
    """

    def __init__(self, polygons: Sequence[Sequence[Point]]) -> None:
        self._polygons = [_corners(polygon, number) for number, polygon in enumerate(polygons)]
        self._sums: dict[tuple[int, int], npt.NDArray[np.int32]] = {}

    def __bool__(self) -> bool:
        return bool(self._polygons)

    def black_out(self, frame: Frame) -> Frame:
        """Make every pixel that a mask touches black, in place where possible; return the frame to use from then."""
        if not self._polygons:
            return frame
        image = frame.image
        if not (image.flags.writeable and image.flags.c_contiguous):
            image = image.copy()
        self._paint(image, (0, 0, 0))
        return frame if image is frame.image else replace(frame, image=image)

    def hide(self, boxes: Boxes, size_wh: tuple[int, int], overlap: float) -> npt.NDArray[np.bool_]:
        """Tell which boxes have the middle of their lower edge, or a part of their area, in masks: N booleans.

        Args:
            boxes: N×4 pixels, within the frame.
            size_wh: Width and height of the frame.
            overlap: Part of the area from which a box counts as hidden, 0 to 1; 0: if it touches a mask.
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
            # The edges of a filled polygon are off by up to a pixel, which may leave pixels of the mask visible.
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
