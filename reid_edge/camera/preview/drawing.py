"""Draw boxes, track numbers, scores and masks on a frame."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from reid_edge.camera.filters import Point
from reid_edge.camera.tracking import TrackedBoxes
from reid_edge.types import Image

#: Colours of tracks, BGR, which colour-blind people tell apart (Okabe and Ito); and that of masks.
COLOURS = ((178, 114, 0), (0, 94, 213), (115, 158, 0), (167, 121, 204), (0, 159, 230), (233, 180, 86))
MASK = (60, 60, 230)


def drawn(image: Image, tracked: TrackedBoxes, masks: Sequence[Sequence[Point]]) -> Image:
    """Draw on a copy of a frame, H×W×3 uint8 BGR: outlines of masks, and each box with its track's number and score.

    Args:
        image: The frame, with its masks blacked out.
        tracked: Boxes that belong to tracks.
        masks: Polygons, fractions of the frame.
    """
    out = np.array(image, np.uint8, order="C")
    height, width = out.shape[:2]
    thick = max(1, round(height / 360))
    for polygon in masks:
        corners = np.round(np.array(polygon) * (width, height)).astype(np.int32)
        cv2.polylines(out, [corners], isClosed=True, color=MASK, thickness=2 * thick)
    for box, score, track in zip(tracked.boxes.tolist(), tracked.scores.tolist(), tracked.tracks.tolist(), strict=True):
        colour = COLOURS[track % len(COLOURS)]
        left, top, right, bottom = map(round, box)
        cv2.rectangle(out, (left, top), (right, bottom), colour, thick)
        _label(out, f"{track}  {score:.2f}", (left, top), colour, height / 720)
    return out


def _label(out: Image, text: str, corner: tuple[int, int], colour: tuple[int, int, int], scale: float) -> None:
    scale = max(0.4, 0.6 * scale)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    left = min(max(0, corner[0]), max(0, out.shape[1] - width))
    bottom = max(corner[1], height + base)
    cv2.rectangle(out, (left, bottom - height - base), (left + width, bottom), colour, cv2.FILLED)
    cv2.putText(out, text, (left, bottom - base // 2), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
