"""Boxes at the edge of the frame: which of them have lost a part of the person that matters.

How much lies beyond the edge is seen from the shape: 110 tracks of real videos that are also seen inside the frame
tell what shape the same person has there.  A box at the top edge that is 0.45 to 0.5 times as wide as high has lost a
tenth of the person, which is most of the head, and a wider one more.  At the side, a box that is less than 0.3 times as
wide as high has lost a quarter or more.  At the bottom, one that is wider than high shows less than half of the person.

Black bars around the picture, as converted videos have them, and masks along the edge of the frame are no part of the
picture: it ends where they begin.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reid_edge.camera.frames import Boxes
from reid_edge.types import Image

#: Where in the frame there is a picture: left, top, right, bottom, pixels.
Area = tuple[int, int, int, int]
#: Distance to the edge, as a fraction of the frame, within which a box counts as at the edge.
EDGE = 0.005
#: The same where it is asked what a box has lost: a detector's boxes often end a little before the edge.
NEAR_EDGE = 0.01
#: Brightest value of a black pixel, of 255: compression leaves a little.
BLACK = 16
#: Widest bar, as a fraction of the frame; where more is black, the frame is dark.
WIDEST_BAR = 0.3
#: Number of first frames that are looked at for bars, and distance between later ones.
LOOKS, LOOK_EVERY = 20, 100
#: Width over height: largest of a whole person at the top and at the bottom edge, smallest at the sides.
TOP, BOTTOM, SIDE = 0.45, 1.0, 0.3


def touch_edge(boxes: Boxes, area: Area) -> npt.NDArray[np.bool_]:
    """Tell which boxes (N×4, pixels) lie at the edge of the picture: N booleans."""
    return np.asarray(_sides(boxes, area, EDGE).any(axis=1), np.bool_)


def cut_off(boxes: Boxes, area: Area) -> npt.NDArray[np.bool_]:
    """Tell which boxes (N×4, pixels) lie at the edge of the picture and have lost much there: N booleans."""
    left, top, right, bottom = _sides(boxes, area, NEAR_EDGE).T
    shape = (boxes[:, 2] - boxes[:, 0]) / np.maximum(boxes[:, 3] - boxes[:, 1], 1e-6)
    side = left | right
    lost = (top & ((shape > TOP) | side)) | (bottom & (shape > BOTTOM)) | (side & (shape < SIDE))
    return np.asarray(lost, np.bool_)


def _sides(boxes: Boxes, area: Area, margin: float) -> npt.NDArray[np.bool_]:
    """Tell which edges each box touches: N×4 booleans, left, top, right, bottom."""
    start, end = np.array(area[:2]), np.array(area[2:])
    near = (end - start) * margin
    return np.hstack([boxes[:, :2] <= start + near, boxes[:, 2:] >= end - near])


class PictureArea:
    """Finds the part of the frames in which there is a picture, without black bars.

    A row or column is part of a bar if it is black in every frame that was looked at.  Frames that are dark as a whole
    tell nothing.  A look takes about 0.3 ms, and is taken at 20 frames and then at one in 100.
    """

    def __init__(self) -> None:
        self._size: tuple[int, ...] = ()
        self._bars: npt.NDArray[np.int64] | None = None
        self._frames = 0

    def __call__(self, image: Image) -> Area:
        """Return the area, in pixels of this frame (H×W×3 uint8)."""
        height, width = image.shape[:2]
        if image.shape != self._size:
            self._size, self._bars, self._frames = image.shape, None, 0
        if self._frames < LOOKS or self._frames % LOOK_EVERY == 0:
            self._look(image)
        self._frames += 1
        left, top, right, bottom = (0, 0, 0, 0) if self._bars is None else self._bars.tolist()
        return left, top, width - right, height - bottom

    def _look(self, image: Image) -> None:
        height, width = image.shape[:2]
        columns, rows = image[::4].max(axis=(0, 2)) > BLACK, image[:, ::4].max(axis=(1, 2)) > BLACK
        if not (columns.any() and rows.any()):
            return
        bars = np.array([columns.argmax(), rows.argmax(), columns[::-1].argmax(), rows[::-1].argmax()])
        if (bars <= np.array([width, height, width, height]) * WIDEST_BAR).all():
            self._bars = bars if self._bars is None else np.minimum(self._bars, bars)
