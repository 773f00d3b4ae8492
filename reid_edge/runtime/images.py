"""Features of image files: for extract and evaluate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from reid_edge.crops import Image
from reid_edge.errors import FrameError
from reid_edge.images import IMAGE_SUFFIXES, read_image
from reid_edge.runtime.engines import Features

#: Images held in memory at a time.
BLOCK = 32


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
    extractor: Callable[[Sequence[Image]], Features],
    paths: Sequence[Path],
    on_block: Callable[[int], object] = lambda _count: None,
) -> Features:
    """Features of images, each taken as one crop: N×D float32, in order.

    Args:
        extractor: An Extractor, or anything else that makes features of crops.
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
