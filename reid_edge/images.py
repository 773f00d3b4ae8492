"""Image files: finding them in folders, and decoding them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from reid_edge.errors import FrameError
from reid_edge.types import Image
from reid_edge.wording import counted

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
_SUFFIXES_AT_END = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))})+$", re.IGNORECASE)
#: First bytes of a format, and bytes that a whole file holds near its end: OpenCV decodes truncated files silently.
_END_MARKERS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG": b"IEND"}
#: Folders that other systems leave beside images, in lower case: macOS in zips, NAS thumbnails, Windows' bin.
_LEFT_BEHIND = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"})


def is_left_behind(name: str) -> bool:
    """Return True for the name of a file or folder that other systems leave beside images, such as ``._0001.jpg``."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def is_image(path: Path) -> bool:
    """Return True for a path that is named as an image (suffixes in any case) and was not left by another system."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not is_left_behind(path.name)


def bare_name(path: Path) -> str:
    """Return a file name without the suffixes of images, of which Market-1501 has two in places: ``0001.jpg.jpg``."""
    return _SUFFIXES_AT_END.sub("", path.name)


def list_images(inputs: Sequence[Path]) -> list[Path]:
    """List files as given, and every image (by suffix) in each folder and below it, in order of path.

    Hidden files and what other systems leave in folders (``__MACOSX``) are left out.

    Raises:
        FrameError: A path is neither a file nor a folder, a name is not printable, or there is no image at all.
    """
    paths: list[Path] = []
    for given in inputs:
        if given.is_dir():
            paths += sorted(path for path in given.rglob("*") if _is_image_below(path, given) and path.is_file())
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


def _is_image_below(path: Path, folder: Path) -> bool:
    return is_image(path) and not any(map(is_left_behind, path.relative_to(folder).parts))


def read_image(path: Path) -> Image:
    """Decode an image, H×W×3 uint8 BGR.

    Raises:
        FrameError: The file is missing, truncated, or not a readable image.
    """
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    return decoded_image(data, path)


def read_images(paths: Iterable[Path], *, skip_bad: bool = False) -> Iterator[tuple[Path, Image | None]]:
    """Decode images one by one.

    Args:
        paths: Image files.
        skip_bad: Yield None for a file that is no readable image.

    Yields:
        The path, and H×W×3 uint8 BGR.

    Raises:
        FrameError: A file is missing, truncated, or no readable image, and ``skip_bad`` is off.
    """
    for path in paths:
        image: Image | None = None
        try:
            image = read_image(path)
        except FrameError as error:
            if not skip_bad:
                raise FrameError(f"{error} Or leave out all such files, and count them: --skip-bad.") from error
        yield path, image


def left_out(unreadable: Sequence[Path], total: int) -> str:
    """Say how many of ``total`` images cannot be read and are left out, and name the first three."""
    named = ", ".join(map(str, unreadable[:3])) + (" …" if len(unreadable) > 3 else "")
    return f"{len(unreadable):,} of {counted(total, 'image')} left out, unreadable: {named}"


def decoded_image(data: bytes, path: Path) -> Image:
    """Decode the content of an image file, H×W×3 uint8 BGR.

    Args:
        data: The content.
        path: Of the file, for the errors.

    Raises:
        FrameError: It is empty, truncated, or no readable image.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # no bytes at all, or more pixels than OpenCV allows
        image = None
    if image is None:
        raise FrameError(f"{path} is not a readable image. Copy it again, or leave it out.")
    for start, end in _END_MARKERS.items():
        if data.startswith(start) and end not in data:
            raise FrameError(f"{path} is truncated: its end marker is missing. Copy it again.")
    return np.asarray(image, dtype=np.uint8)
