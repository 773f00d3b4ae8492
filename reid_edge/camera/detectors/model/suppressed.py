"""Check of the rows of a YOLO after suppression: corners in pixels, a score, and the number of a class.

Others give as many columns with another meaning. RT-DETR of two classes (``RTDETRDecoder`` of Ultralytics) gives centre
and size as fractions and a score for each class; read as corners in pixels, such boxes are too small for anybody.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reid_edge.camera.detectors.model.heads import Array
from reid_edge.camera.detectors.model.network import Outputs
from reid_edge.camera.frames import Detections
from reid_edge.errors import DetectorError

#: Boxes in pixels that mostly lie this near to the corner would be in no picture.
CORNER_PX = 4.0
#: Columns of a row: box, score, class.
COLUMNS = 6
#: Numbers of classes may be rounded by this.
_ROUNDING = 1e-3


def check_suppressed(table: Array, path: str) -> bool:
    """Check that rows are x1 y1 x2 y2 in pixels, score and class.

    Boxes of the background need not make sense, so their median is judged.

    Args:
        table: 1×N×6, or more columns.
        path: The file, for the message.

    Returns:
        True if there was a row to check. Rows of zeros only fill the table, and rows with NaN say nothing.

    Raises:
        DetectorError: The rows are something else.
    """
    rows = table[0, :, :COLUMNS]
    rows = rows[rows.any(1) & np.isfinite(rows).all(1)]
    if not len(rows):
        return False
    far, extents, classes = np.abs(rows[:, 2:4]).max(1), (rows[:, 2:4] - rows[:, :2]).min(1), rows[:, 5]
    off = np.abs(classes - np.rint(classes))
    if off.max() > _ROUNDING:
        wrong = f"the sixth column holds {classes[off.argmax()]:.3g}, which is no number of a class"
    elif np.median(far) <= CORNER_PX:
        wrong = f"most boxes lie within {np.median(far):.3g} pixels of the corner: fractions of the picture"
    elif np.median(extents) < 0:
        wrong = "in most boxes x2 y2 is less than x1 y1"
    else:
        return True
    raise DetectorError(
        f"{path} gives {'×'.join(map(str, table.shape))}, as a YOLO does after suppression (x1 y1 x2 y2 score class), "
        f"but {wrong}. Set 'form' if it is another YOLO. RT-DETR, whose boxes are fractions of the picture, is not "
        'decoded: use kind = "callable".'
    )


class SuppressedHead:
    """Decodes a YOLO after suppression, and checks the rows of the first picture that has any.

    A black picture may have none: nobody is in it.

    Args:
        head: Decodes the outputs.
        number: Number of the output with the rows.
        path: The file, for messages.
        checked: Rows were checked before.
    """

    def __init__(self, head: Callable[[Outputs], Detections], number: int, path: str, *, checked: bool) -> None:
        self._head = head
        self._number = number
        self._path = path
        self._checked = checked

    def __call__(self, outputs: Outputs) -> Detections:
        """Decode the outputs of a picture.

        Raises:
            DetectorError: These are the first rows, and they are something else than boxes, scores and classes.
        """
        if not self._checked:
            self._checked = check_suppressed(outputs[self._number], self._path)
        return self._head(outputs)
