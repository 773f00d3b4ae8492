"""Recognition of what the columns of a YOLO's output hold: boxes, objectness, classes, masks or keypoints.

Columns by task, as Ultralytics exports them (docs.ultralytics.com, and the heads of its exports): 4 + classes for
detection, and behind these 32 coefficients of masks (with an output of prototypes), 3 numbers for each keypoint, or the
angle of a rotated box; after non-maximum suppression x1 y1 x2 y2 score class, and the same behind these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid_edge.camera.detectors.model.heads import Array, YoloForm
from reid_edge.camera.detectors.model.network import Outputs, SelfDescription
from reid_edge.camera.detectors.model.suppressed import COLUMNS, CORNER_PX
from reid_edge.errors import DetectorError
from reid_edge.types import Size

#: Channels of a YOLO of 80 classes, as most have: with objectness, and without.
_V5_CHANNELS, _V8_CHANNELS = 85, 84
#: Most rows of a detector that suppresses itself; usual are 100 and 300.
_END2END_ROWS = 1000
#: Columns of the 17 keypoints of COCO.
_COCO_KEYPOINTS = 51
#: Pixels between the cells of a YOLO, by its scales.
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
#: Boxes that a cell has where there is objectness and anchors.
_ANCHORS = 3
#: Scores of quantised files may leave 0 to 1 by this.
_ROUNDING = 0.05
_FEW = 20


@dataclass(frozen=True)
class YoloLayout:
    """Meaning of a YOLO's output.

    Attributes:
        number: Number of the output.
        form: With objectness, without, or after suppression.
        classes: Number of classes; None where the output has the class's number instead.
        extra: What the rows hold besides, for a person to read; "" for nothing.
        is_anonymous: The form is that of YOLOX and of YOLOv6, with objectness and one row for each cell, and the file
            names neither task nor classes: their pictures are prepared differently.
    """

    number: int
    form: YoloForm
    classes: int | None
    extra: str = ""
    is_anonymous: bool = False


def yolo_layout(outputs: Outputs, says: SelfDescription, size: Size, form: str, path: str) -> YoloLayout:
    """Recognise what a YOLO's output holds.

    Args:
        outputs: What it gives on a black picture.
        says: What the file says of itself.
        size: Height and width of its input.
        form: ``auto``, or the form that the settings say.
        path: The file, for messages.

    Raises:
        DetectorError: It finds no upright boxes, or in a form that is not decoded, or it is not clear in which.
    """
    if says.task in ("obb", "classify"):
        what = "rotated boxes" if says.task == "obb" else "no boxes"
        raise DetectorError(f"{path} was trained for the task '{says.task}': it gives {what}. Use a file for 'detect'.")
    number, table = _table_of(outputs, path)
    masks = next((one.shape[1] for one in outputs if one.ndim == 4 and one.shape[0] == 1), 0)
    if form == "end2end":
        _check_end2end(table, says, masks)
    if form == "end2end" or (form == "auto" and _is_end2end(table, says, size, masks)):
        return YoloLayout(number, "end2end", None, _extra_of(table.shape[2] - COLUMNS, masks, path))
    if form == "auto" and not says.task:
        _refuse_five_columns(table, size, path)
    chosen = _form_of(table.shape, says, size, masks) if form == "auto" else _checked_form(form)
    rows = rows_of(table)
    first = 5 if chosen == "v5" else 4
    if rows.shape[1] <= first:
        raise DetectorError(
            f"a YOLO of form {chosen} has classes behind {first} columns; {path} gives {table.shape}. Correct 'form'."
        )
    classes = _classes_of(rows[:, first:], says, masks, path)
    _check_values(rows, first, classes, path)
    extra = _extra_of(rows.shape[1] - first - classes, masks, path)
    is_anonymous = chosen == "v5" and len(rows) in _cells(size) and not (says.task or says.classes)
    return YoloLayout(number, chosen, classes, extra, is_anonymous)


def yolo_form(shape: tuple[int, ...]) -> YoloForm:
    """Recognise the form of a YOLO before suppression, without masks or keypoints, by its output's shape alone.

    85 channels are v5's 80 classes with objectness, 84 are v8's without, and 5 one class without; of other numbers of
    classes, v5 puts channels last and v8 first.
    """
    if _V8_CHANNELS in shape or 5 in shape:
        return "v8"
    if _V5_CHANNELS in shape:
        return "v5"
    return "v8" if shape[1] < shape[2] else "v5"


def rows_of(table: Array) -> Array:
    """Arrange 1×channels×N or 1×N×channels as N×channels: there are more candidates than channels."""
    rows: Array = table[0].T if table.shape[1] < table.shape[2] else table[0]
    return rows


def _table_of(outputs: Outputs, path: str) -> tuple[int, Array]:
    tables = [(number, one) for number, one in enumerate(outputs) if one.ndim == 3]
    if len(tables) != 1 or tables[0][1].shape[0] != 1 or tables[0][1].shape[2] < 5 or 0 < tables[0][1].shape[1] < 5:
        shapes = ", ".join("×".join(map(str, one.shape)) for one in outputs)
        raise DetectorError(
            f"a YOLO has one output such as 1×84×8400, 1×25200×85 or 1×300×6; {path} gives {shapes}. Is 'output' "
            "right? A file with one output for each scale is exported again with its decoder included."
        )
    return tables[0]


def _refuse_five_columns(table: Array, size: Size, path: str) -> None:
    """Refuse 1×N×5 that is not one row for each cell: it may be a YOLO of one class, or corners and score."""
    if table.shape[2] == 5 and not _is_grid(table.shape[1], size):
        raise DetectorError(
            f'{path} gives 1×{table.shape[1]}×5. Is it a YOLO of one class (centre, size, score)? Then set form = "v8" '
            "(--set detector.form=v8). For corners and score without labels, or boxes in fractions as RT-DETR's, use "
            'kind = "callable".'
        )


def _is_end2end(table: Array, says: SelfDescription, size: Size, masks: int) -> bool:
    _, count, columns = table.shape
    if count > _END2END_ROWS or _is_grid(count, size) or not _has_end2end_columns(columns, says, masks):
        return False
    classes = table[0, :, 5]
    return columns == COLUMNS or bool((classes == np.rint(classes)).all())


def _has_end2end_columns(columns: int, says: SelfDescription, masks: int) -> bool:
    behind = columns - COLUMNS
    return behind in (0, _COCO_KEYPOINTS, masks) or (says.task == "pose" and behind > 0)


def _check_end2end(table: Array, says: SelfDescription, masks: int) -> None:
    if not _has_end2end_columns(table.shape[2], says, masks):
        raise DetectorError(
            f"a YOLO of form end2end gives 1×N×6, or more columns with masks or keypoints, not {table.shape}. Set "
            "another 'form'."
        )


def _is_grid(count: int, size: Size) -> bool:
    """Tell whether a YOLO of this input may have as many candidates: one, or three, for each of its cells."""
    return count in {cells * anchors for cells in _cells(size) for anchors in (1, _ANCHORS)}


def _cells(size: Size) -> set[int]:
    height, width = size
    return {sum(-(-height // stride) * -(-width // stride) for stride in strides) for strides in _STRIDES}


def _form_of(shape: tuple[int, ...], says: SelfDescription, size: Size, masks: int) -> YoloForm:
    if says.task:  # Ultralytics' word: none of its YOLOs and RT-DETRs that say it has objectness
        return "v8"
    count, channels = max(shape[1:]), min(shape[1:])
    if count in {_ANCHORS * cells for cells in _cells(size)} and count not in _cells(size):
        return "v5"
    if says.classes and not masks:
        return "v5" if channels == 5 + len(says.classes) else "v8"
    return yolo_form((1, *(size - masks if size == channels else size for size in shape[1:])))


def _checked_form(form: str) -> YoloForm:
    assert form in ("v5", "v8"), form
    return "v5" if form == "v5" else "v8"


def _classes_of(columns: Array, says: SelfDescription, masks: int, path: str) -> int:
    """Return how many of the columns behind the box are classes."""
    width = columns.shape[1]
    if says.classes and len(says.classes) <= width:
        return len(says.classes)
    if masks and width > masks:
        return int(width - masks)
    outside = np.flatnonzero(((columns < -_ROUNDING) | (columns > 1 + _ROUNDING)).any(0))
    classes = int(outside[0]) if len(outside) else width
    if classes == 0:
        raise DetectorError(
            f"{path} gives scores from {columns[:, 0].min():.3g} to {columns[:, 0].max():.3g}, which are no "
            "probabilities. Export it again with its decoder (sigmoid) included, or correct 'form'."
        )
    return int(classes)


def _extra_of(width: int, masks: int, path: str) -> str:
    """Say what the columns behind box and classes are."""
    if width <= 0:
        return ""
    if width == masks:
        return "masks unused"
    if width == 1:
        raise DetectorError(f"{path} gives an angle behind each box: rotated boxes. Use a file for the task 'detect'.")
    if width % 3 == 0 or width % 2 == 0:
        return "keypoints unused"
    raise DetectorError(
        f"{path} gives {width} numbers behind box and classes, which are neither masks nor keypoints. Use a file for "
        "the task 'detect'."
    )


def _check_values(rows: Array, first: int, classes: int, path: str) -> None:
    """Refuse boxes that are not in pixels, and scores that are no probabilities."""
    centres = np.abs(rows[:, :2]).max(1)
    centres = centres[centres > 0]
    if len(rows) >= _FEW and len(centres) and (usual := float(np.median(centres))) <= CORNER_PX:
        raise DetectorError(
            f"{path} gives boxes whose centres mostly lie within {usual:.3g} pixels of the corner: fractions of the "
            "picture (as RT-DETR's) or relative to cells (as YOLOX's), which are not decoded. Export YOLOX again with "
            'tools/export_onnx.py --decode_in_inference; for others use kind = "callable".'
        )
    scores = rows[:, 4 : first + classes]
    if scores.size and (scores.min() < -_ROUNDING or scores.max() > 1 + _ROUNDING):
        raise DetectorError(
            f"{path} gives scores from {scores.min():.3g} to {scores.max():.3g} for its {classes} classes, which are "
            "no probabilities. Export it again with its decoder (sigmoid) included, or correct 'form'."
        )
