"""Boxes at the edge of the frame: which of them have lost a part of the person that matters.

How much lies beyond the edge is seen from the shape: 110 tracks of real videos that are also seen inside the frame
tell what shape the same person has there.  A box at the top edge that is 0.45 to 0.5 times as wide as high has lost a
tenth of the person, which is most of the head, and a wider one more.  At the side, a box that is less than 0.3 times as
wide as high has lost a quarter or more.  At the bottom, one that is wider than high shows less than half of the person.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reid_edge.camera.frames import Boxes

#: Distance to the edge, as a fraction of the frame, within which a box counts as at the edge.
EDGE = 0.005
#: The same where it is asked what a box has lost: a detector's boxes often end a little before the edge.
NEAR_EDGE = 0.01
#: Width over height: largest of a whole person at the top and at the bottom edge, smallest at the sides.
TOP, BOTTOM, SIDE = 0.45, 1.0, 0.3


def touch_edge(boxes: Boxes, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Tell which boxes (N×4, pixels) lie at the edge of a frame of this size: N booleans."""
    return np.asarray(_sides(boxes, width, height, EDGE).any(axis=1), np.bool_)


def cut_off(boxes: Boxes, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Tell which boxes (N×4, pixels) lie at the edge of a frame of this size and have lost much there: N booleans."""
    left, top, right, bottom = _sides(boxes, width, height, NEAR_EDGE).T
    shape = (boxes[:, 2] - boxes[:, 0]) / np.maximum(boxes[:, 3] - boxes[:, 1], 1e-6)
    side = left | right
    lost = (top & ((shape > TOP) | side)) | (bottom & (shape > BOTTOM)) | (side & (shape < SIDE))
    return np.asarray(lost, np.bool_)


def _sides(boxes: Boxes, width: int, height: int, margin: float) -> npt.NDArray[np.bool_]:
    """Tell which edges each box touches: N×4 booleans, left, top, right, bottom."""
    size = np.array([width, height])
    return np.hstack([boxes[:, :2] <= size * margin, boxes[:, 2:] >= size * (1 - margin)])
