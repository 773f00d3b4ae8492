"""A folder of one's own: ``ROOT/train/<identity>/*.jpg``, and ``query`` and ``gallery`` likewise."""

from __future__ import annotations

import re
from pathlib import Path

from reid_edge.datasets.layout import images_in, locate
from reid_edge.datasets.people import numbered
from reid_edge.datasets.records import LabelledImage, Split
from reid_edge.errors import DatasetError

_SPLITS: tuple[Split, ...] = ("train", "query", "gallery")
_CAMERA = re.compile(r"(?:^|_)c(\d{1,9})(?!\d)")


def load_folder(root: Path, split: Split) -> list[LabelledImage]:
    """List one split, in order of folder and file name.

    The name of an image's folder is its identity: whole numbers stay (0 in a gallery: distractors), other names are
    numbered in order.  The camera is the number after a ``c`` at the start of the file name or after ``_``:
    ``a_c3_17.jpg`` is of camera 3.  Where no file name has one the camera is not known (0), which query and gallery do
    not allow: without cameras nobody can say which matches are too easy.

    Raises:
        DatasetError: No such folder, no image in one, or cameras that are missing.
    """
    folder = locate("a folder of images", root, ("folder",), _SPLITS)
    people = {part: _people(folder / part) for part in _SPLITS}
    if not people[split]:
        raise DatasetError(f"no {split} split: expected {folder / split}/IDENTITY/*.jpg, one folder for each person.")
    numbers = numbered((path.name for paths in people.values() for path in paths), folder)
    images = [
        LabelledImage(path, numbers[person.name], _camera(path))
        for person in people[split]
        for path in images_in(person)
    ]
    without = [image.path for image in images if not image.camera]
    if without and (split != "train" or len(without) != len(images)):
        raise DatasetError(
            f"{len(without):,} of {len(images):,} images of the {split} split name no camera, e.g. {without[0]}: "
            "expected a number after _c, as in 17_c3.jpg."
        )
    return images


def _people(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".") if folder.is_dir() else []


def _camera(path: Path) -> int:
    match = _CAMERA.search(path.stem)
    return int(match[1]) if match else 0
