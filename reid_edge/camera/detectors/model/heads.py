"""Decode the outputs of detectors: boxes in pixels of the input, and scores, before non-maximum suppression.

In all decoders a candidate belongs to the class with its highest score, and only people are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.camera.detectors.model.network import Outputs
from reid_edge.camera.frames import Detections, no_detections
from reid_edge.errors import DetectorError
from reid_edge.types import Size
from reid_edge.wording import counted

Array = npt.NDArray[np.float32]
YoloForm = Literal["v5", "v8", "end2end"]


def ssd(outputs: Outputs, *, size: Size, person: int, min_score: float) -> Detections:
    """Decode OpenCV's and OpenVINO's DetectionOutput: rows of image, class, score, x1 y1 x2 y2 as fractions.

    The list ends at a row whose image is negative.
    https://docs.openvino.ai/2025/documentation/openvino-ir-format/operation-sets/operation-specs/detection/detection-output-8.html

    Args:
        outputs: All outputs; exactly one must have the shape …×N×7.
        size: Height and width of the input.
        person: Class index.
        min_score: Lowest score that is kept.

    Raises:
        DetectorError: There is no such output, or more than one.
    """
    rows = _only(outputs, "…×N×7 (image, class, score, box)", lambda shape: shape[-1] == 7).reshape(-1, 7)
    ends = np.flatnonzero(rows[:, 0] < 0)
    rows = rows[: ends[0]] if len(ends) else rows
    rows = rows[(rows[:, 1] == person) & (rows[:, 2] >= min_score)]
    height, width = size
    return Detections(rows[:, 3:7] * np.array([width, height, width, height], np.float32), rows[:, 2].copy())


def boxes(outputs: Outputs, *, rows: tuple[int, int], person: int | None, min_score: float) -> Detections:
    """Decode boxes and labels: x1 y1 x2 y2 in pixels of the input and score, and the class of each.

    https://github.com/openvinotoolkit/open_model_zoo/blob/master/models/intel/person-detection-0203/README.md

    Args:
        outputs: All outputs.
        rows: Numbers of the outputs with boxes, N×5, and with labels, N; both may have an axis of one picture before.
        person: Class index; None if every box is a person.
        min_score: Lowest score that is kept.
    """
    table, labels = outputs[rows[0]].reshape(-1, 5), outputs[rows[1]].reshape(-1)
    kept = table[:, 4] >= min_score
    if person is not None:
        kept &= labels == person
    return Detections(table[kept, :4].copy(), table[kept, 4].copy())


def yolo(
    outputs: Outputs, *, form: YoloForm, person: int, min_score: float, number: int = 0, classes: int | None = None
) -> Detections:
    """Decode a YOLO: centre and size, or corners, in pixels of the input.

    * ``v8`` (also 11, 12): 4 + classes.
    * ``v5`` (also 7): 4 + objectness + classes, multiplied.
    * ``end2end`` (10, 26): x1 y1 x2 y2 score class, suppressed already.

    Args:
        outputs: One is decoded: 1×channels×N or 1×N×channels; channels behind these are ignored.
        form: Form of the YOLO.
        person: Class index.
        min_score: Lowest score that is kept.
        number: Which output.
        classes: Number of classes; None for all that follows.

    Raises:
        DetectorError: The output has another shape, or the detector has no such class.
    """
    rows = _yolo_rows(outputs[number], form)
    if form == "end2end":
        rows = rows[(rows[:, 4] >= min_score) & (np.rint(rows[:, 5]) == person)]
        return Detections(rows[:, :4].copy(), rows[:, 4].copy())
    first = 5 if form == "v5" else 4
    of_classes = rows[:, first : None if classes is None else first + classes]
    if person >= of_classes.shape[1]:
        raise DetectorError(
            f"the detector has {counted(of_classes.shape[1], 'class', 'classes')}, no class {person}. Correct 'person'."
        )
    scores = of_classes[:, person] * rows[:, 4] if form == "v5" else of_classes[:, person]
    candidates = np.flatnonzero(scores >= min_score)
    candidates = candidates[of_classes[candidates].argmax(1) == person]
    return Detections(_corners(rows[candidates, :4]), scores[candidates])


def fastestdet(outputs: Outputs, *, size: Size, person: int, min_score: float) -> Detections:
    """Decode FastestDet: one candidate per cell; objectness, x y w h, class probabilities.

    The centre is (cell + tanh) / cells, width and height are logistic fractions of the picture, and the score is
    objectness^0.6 · probability^0.4 (dog-qiuqiu/FastestDet, ``example/onnx-runtime/runtime.py``).

    Args:
        outputs: The first is decoded: 1×(5 + classes)×rows×columns.
        size: Height and width of the input.
        person: Class index.
        min_score: Lowest score that is kept.

    Raises:
        DetectorError: The output has another shape, or the detector has no such class.
    """
    if outputs[0].ndim != 4 or outputs[0].shape[0] != 1 or outputs[0].shape[1] <= 5 + person:
        raise DetectorError(
            f"FastestDet gives 1×(5 + classes)×rows×columns with more than {person} classes, not {outputs[0].shape}."
        )
    grid = outputs[0][0]
    classes = grid[5:]
    scores = np.maximum(grid[0], 0) ** 0.6 * np.maximum(classes[person], 0) ** 0.4
    row, column = np.nonzero((scores >= min_score) & (classes.argmax(0) == person))
    if not len(row):
        return no_detections()
    x_shift, y_shift, log_width, log_height = grid[1:5, row, column]
    centre = np.stack([(column + np.tanh(x_shift)) / grid.shape[2], (row + np.tanh(y_shift)) / grid.shape[1]], 1)
    extent = 1 / (1 + np.exp(-np.stack([log_width, log_height], 1)))
    boxes = np.concatenate([centre - extent / 2, centre + extent / 2], 1)
    height, width = size
    pixels = boxes * np.array([width, height, width, height])
    return Detections(pixels.astype(np.float32), scores[row, column].astype(np.float32))


def _only(outputs: Outputs, expected: str, fits: Callable[[tuple[int, ...]], bool]) -> Array:
    fitting = [output for output in outputs if output.ndim >= 2 and fits(output.shape)]
    if len(fitting) != 1:
        shapes = ", ".join(str(output.shape) for output in outputs)
        raise DetectorError(f"expected one output {expected}, the detector gives {shapes}. Is 'output' right?")
    return fitting[0]


def _yolo_rows(output: Array, form: YoloForm) -> Array:
    """Arrange the output as N×channels."""
    if form == "end2end":
        fits = output.ndim == 3 and output.shape[2] >= 6
    else:
        fits = output.ndim == 3 and min(output.shape[1:]) >= (5 if form == "v8" else 6)
    if not fits or output.shape[0] != 1:
        wanted = {"end2end": "1×N×6", "v8": "4 + classes channels", "v5": "5 + classes channels"}[form]
        raise DetectorError(f"a YOLO of form {form} gives {wanted}, not {output.shape}. Set another 'form'.")
    # There are always more candidates than channels, except after suppression.
    rows: Array = output[0].T if form != "end2end" and output.shape[1] < output.shape[2] else output[0]
    return rows


def _corners(boxes: Array) -> Array:
    """Convert centre x y, width, height to x1 y1 x2 y2."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)
