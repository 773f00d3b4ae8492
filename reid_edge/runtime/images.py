"""Features of image files: for extract and evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from reid_edge.crops import Image
from reid_edge.errors import FrameError
from reid_edge.runtime.engines import Features
from reid_edge.runtime.extractor import Extractor

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
#: First bytes of a format → what a whole file holds near its end; OpenCV decodes truncated files without a word.
_END_MARKERS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND"}
#: Images held in memory at a time.
BLOCK = 32


def read_image(path: Path) -> Image:
    """Decode an image, H×W×3 uint8 BGR.

    Raises:
        FrameError: Missing, or not a readable image.
    """
    try:
        data = path.read_bytes()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):  # cv2.error: no bytes at all, or more pixels than OpenCV allows
        image = None
    if image is None:
        raise FrameError(f"{path} is not a readable image.")
    for start, end in _END_MARKERS.items():
        if data.startswith(start) and end not in data:
            raise FrameError(f"{path} is truncated: its end marker is missing. Copy it again.")
    return np.asarray(image, dtype=np.uint8)


def list_images(inputs: Sequence[Path]) -> list[Path]:
    """Files as given, and every image (by suffix) in each folder and below it, in order of path.

    Raises:
        FrameError: Something is neither, or there is no image at all.
    """
    paths: list[Path] = []
    for given in inputs:
        if given.is_dir():
            paths += sorted(
                path for path in given.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
            )
        elif given.is_file():
            paths.append(given)
        else:
            raise FrameError(f"{given} is neither an image nor a folder.")
    if strange := [path for path in paths if not str(path).isprintable()]:
        raise FrameError(f"names must be printable text, or lists of them break: rename {str(strange[0])!a}.")
    if not paths:
        raise FrameError(
            f"no image in {', '.join(map(str, inputs))}; known suffixes: {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    return paths


def extract_files(
    extractor: Extractor, paths: Sequence[Path], on_block: Callable[[int], object] = lambda _count: None
) -> Features:
    """Features of images, each taken as one crop: N×D float32, in order.

    Args:
        extractor: Any.
        paths: N image files.
        on_block: Called with the number of images done since the last call.

    Raises:
        FrameError: A file that is not a readable image.
    """
    blocks = []
    for start in range(0, len(paths), BLOCK):
        block = paths[start : start + BLOCK]
        blocks.append(extractor([read_image(path) for path in block]))
        on_block(len(block))
    return np.concatenate(blocks)
