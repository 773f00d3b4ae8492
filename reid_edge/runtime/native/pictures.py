"""Pictures in memory, as the native engine's library takes them: where they lie, and how far memory reaches there."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.crops import check_image
from reid_edge.types import Image

#: Largest height and width of a crop that the library resizes (MOST_SIDE of ``native/src/resize.h``), pixels.
MOST_SIDE = 8192


#: reid_native_crop of ``native/src/reid_native.h``: address and size of the memory that holds a picture, address of its
#: first pixel, bytes from a row to the next, rows, pixels of a row.
PICTURE = struct.Struct("=QQQqii")


def with_whole_pixels(images: Iterable[Image]) -> list[Image]:
    """Return H×W×3 uint8 pictures with the pixels of each row one behind the other; others are copied.

    Raises:
        FrameError: One is no such picture.
    """
    checked = (check_image(image, what=f"crop {index}") for index, image in enumerate(images))
    return [image if image.strides[1:] == (3, 1) else np.ascontiguousarray(image) for image in checked]


def pictures(images: Iterable[Image]) -> Iterator[bytes]:
    """Yield a :data:`PICTURE` of each of :func:`with_whole_pixels`, which the caller keeps."""
    last, buffer = None, (0, 0)
    for image in images:
        if not isinstance(image.base, np.ndarray) or image.base is not last:  # crops of one frame have one base
            last, buffer = image.base, _extent(_owner(image))
        height, width, _ = image.shape
        yield PICTURE.pack(*buffer, _address(image), image.strides[0], height, width)


def _owner(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array whose memory a view shows; ``as_strided`` hides it one step deeper, and may claim more."""
    while image.base is not None:
        base = image.base if isinstance(image.base, np.ndarray) else getattr(image.base, "base", None)
        if not isinstance(base, np.ndarray):
            break
        image = base
    return image


def _extent(array: npt.NDArray[Any]) -> tuple[int, int]:
    """Return first address and number of bytes from the lowest to the highest element."""
    steps = [(count - 1) * stride for count, stride in zip(array.shape, array.strides, strict=True)]
    below = -sum(step for step in steps if step < 0)
    return _address(array) - below, below + sum(step for step in steps if step > 0) + array.itemsize


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
