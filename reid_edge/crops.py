"""Crops from a frame, resized by the one rule that training, calibration, evaluation and the camera share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.errors import BoxError, FrameError
from reid_edge.types import Image

#: Name of the rule in the manifest; another rule gets another name.
RESIZE_RULE = "box-bilinear"


@dataclass(frozen=True)
class SkippedBox:
    """A box that gave no crop: its row in the caller's array, and the reason."""

    index: int
    reason: str


def resize_into(crop: Image, out: Image) -> None:
    """Resize a crop into ``out``, aspect ratio not kept.

    The rule ``box-bilinear``: where the crop is at least twice as large as the output both ways, first average blocks
    of k×k pixels, k = min(⌊h/H⌋, ⌊w/W⌋) (the remainder at the bottom and right is left out); then OpenCV's bilinear
    interpolation with pixel centres at half.  Plain bilinear would skip pixels there, and OpenCV's area rule costs
    5 to 10 times more at factors that are not whole (``benchmarks/resize.py``).

    Args:
        crop: h×w×3 uint8, at least one pixel.
        out: H×W×3 uint8, written in place.
    """
    height, width = out.shape[:2]
    factor = min(crop.shape[0] // height, crop.shape[1] // width)
    if factor >= 2:
        rows, columns = crop.shape[0] // factor, crop.shape[1] // factor
        whole = crop[: rows * factor, : columns * factor]
        crop = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    cv2.resize(crop, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)


def normalised(
    pixels: Image, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> npt.NDArray[np.float32]:
    """Normalise pixels as in training, for model files that do not normalise in the graph.

    Args:
        pixels: N×H×W×3 uint8, BGR.
        mean: RGB, full scale = 1.
        std: RGB, full scale = 1.

    Returns:
        N×3×H×W float32, RGB, (pixel / 255 − mean) / std.
    """
    scale = (1 / (255 * np.asarray(std))).astype(np.float32)
    shift = (np.asarray(mean) / np.asarray(std)).astype(np.float32)
    count, height, width, channels = pixels.shape
    planes = np.empty((count, channels, height, width), np.float32)
    for rgb in range(3):
        np.multiply(pixels[..., 2 - rgb], scale[rgb], out=planes[:, rgb])
        planes[:, rgb] -= shift[rgb]
    return planes


def check_image(image: object, *, what: str) -> Image:
    """Return ``image`` if it is a colour picture as OpenCV has them.

    Raises:
        FrameError: Not a H×W×3 uint8 array with at least one pixel.
    """
    if not isinstance(image, np.ndarray):
        raise FrameError(f"{what}: expected a H×W×3 uint8 BGR array, got {type(image).__name__}.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise FrameError(
            f"{what}: expected H×W×3 uint8 BGR with at least one pixel, got shape {image.shape} {image.dtype}."
        )
    return image


def crop_boxes(frame: Image, boxes: npt.ArrayLike) -> tuple[list[Image], list[SkippedBox]]:
    """Cut boxes out of a frame, as views.

    A box is clipped to the frame, then widened to whole pixels: every pixel that it touches is in the crop.

    Args:
        frame: H×W×3 uint8, BGR.
        boxes: N×4 numbers, x1 y1 x2 y2 in pixels, right and bottom edge exclusive.

    Returns:
        The crops of usable boxes, in order, and a report of every other box.

    Raises:
        FrameError: The frame is not H×W×3 uint8.
        BoxError: The array is not N×4 numbers.
    """
    frame = check_image(frame, what="frame")
    crops, skipped = [], []
    # Plain numbers, box by box: for the few boxes of a frame that is several times faster than NumPy.
    for index, box in enumerate(_box_array(boxes).tolist()):
        if (crop := _cut(frame, box)) is not None:
            crops.append(crop)
        else:
            skipped.append(SkippedBox(index, _reason(box, frame)))
    return crops, skipped


def _cut(frame: Image, box: list[float]) -> Image | None:
    """Return the pixels that a box touches, as a view; None if it touches none."""
    if not all(map(math.isfinite, box)):
        return None
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)
    if x2 <= x1 or y2 <= y1:
        return None
    return frame[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)]


def _box_array(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    try:
        array = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BoxError(f"boxes: expected N×4 numbers (x1 y1 x2 y2, pixels), got {type(boxes).__name__}.") from error
    if array.size == 0 and array.shape in ((0,), (0, 4)):
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise BoxError(f"boxes: expected shape N×4 (x1 y1 x2 y2, pixels), got {array.shape}.")
    return array


def _reason(box: list[float], frame: Image) -> str:
    text = "[" + " ".join(f"{value:g}" for value in box) + "]"
    if not all(map(math.isfinite, box)):
        return f"{text} has a coordinate that is not finite"
    if box[2] <= box[0] or box[3] <= box[1]:
        return f"{text} is empty: x2 must be over x1 and y2 over y1"
    return f"{text} lies outside the {frame.shape[1]}x{frame.shape[0]} frame"
