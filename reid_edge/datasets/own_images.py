"""Readers of your own images: a folder for each person, or a CSV file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.datasets.layout import folders_in, images_in, locate
from reid_edge.errors import DatasetError

_SPLITS: tuple[Split, ...] = ("train", "query", "gallery")
#: Number of the camera in a file name: ``17_c3_0001.jpg``.
_CAMERA = re.compile(r"(?:^|_)c(\d{1,9})(?!\d)")
#: Columns that a CSV file must have.
_COLUMNS = ("path", "identity", "camera")
#: Name of the CSV file where a folder is given.
_CSV_NAME = "images.csv"
#: Bad rows that a message lists.
_LISTED = 10
#: Longer numbers count as names: they would not fit into 64 bits.
_DIGITS = 15


def load_folder(root: Path, split: Split) -> list[LabelledImage]:
    """List one split of ``ROOT/{train,query,gallery}/<identity>/*.jpg``, in order of folder and file name.

    The name of an image's folder is its identity: whole numbers stay as they are (0 in a gallery: distractors), other
    names are numbered in order.  The camera is the number after a ``c`` at the start of the file name or after ``_``:
    ``a_c3_17.jpg`` is of camera 3.  If no file name has one, the camera is not known (0).  Query and gallery need
    cameras: without them, matches within one camera, which are easier, cannot be left out.

    Raises:
        DatasetError: A folder is missing or holds no image, or cameras are missing.
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
    return folders_in(folder) if folder.is_dir() else []


def _camera(path: Path) -> int:
    match = _CAMERA.search(path.stem)
    return int(match[1]) if match else 0


@dataclass(frozen=True)
class _Row:
    path: Path
    identity: str
    camera: int
    split: str


def load_csv(root: Path, split: Split) -> list[LabelledImage]:
    """List the rows of one split of a CSV file with the columns path, identity, camera and perhaps split, in order.

    Identities are whole numbers (0 in a gallery: distractors) or names, which are numbered in order.  Without a column
    ``split`` every row is for training.

    Args:
        root: The file, or the folder that holds ``images.csv``.  Paths in it are relative to its folder.
        split: Split whose rows are listed.

    Raises:
        DatasetError: The file cannot be read, a column is missing, rows are bad (each is named with its line), or no
            row is of this split.
    """
    file = root / _CSV_NAME if root.is_dir() else root
    rows = _read_rows(file)
    numbers = numbered((row.identity for row in rows), file)
    images = [LabelledImage(row.path, numbers[row.identity], row.camera) for row in rows if row.split == split]
    if not images:
        raise DatasetError(
            f"{file} has no row of the {split} split. Name the split of each row ({', '.join(_SPLITS)}) in a column "
            "'split'; without that column every row is for training."
        )
    return images


def _read_rows(file: Path) -> list[_Row]:
    rows: list[_Row] = []
    bad: list[str] = []
    seen: dict[Path, int] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            _check_columns(file, reader.fieldnames or ())
            for cells in reader:
                try:
                    row = _parse_row(file.parent, cells)
                    image = row.path.resolve()
                    if image in seen:
                        raise ValueError(f"{row.path} stands in line {seen[image]} already")
                except ValueError as error:
                    bad.append(f"line {reader.line_num}: {error}")
                    continue
                seen[image] = reader.line_num
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file} is not a readable CSV file ({error}). Give the file with --root.") from error
    if bad:
        more = f" … and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise DatasetError(f"{file} has {len(bad):,} bad rows: {'; '.join(bad[:_LISTED])}{more}.")
    return rows


def _check_columns(file: Path, columns: object) -> None:
    found = tuple(columns) if isinstance(columns, list | tuple) else ()
    if missing := [name for name in _COLUMNS if name not in found]:
        raise DatasetError(
            f"{file}: the first line must name the columns path, identity, camera and perhaps split; "
            f"missing: {', '.join(missing)}; found: {', '.join(found) or 'nothing'}."
        )


def _parse_row(folder: Path, cells: Mapping[str | None, str | list[str] | None]) -> _Row:
    """Check the cells of one row; raise a ValueError that names the fault."""
    if None in cells or None in cells.values():
        raise ValueError("more or fewer cells than the first line names")
    path, identity, camera, split_text = (str(cells.get(name, "")).strip() for name in (*_COLUMNS, "split"))
    if not path or not (folder / path).is_file():
        raise ValueError(f"no such file: {folder / path if path else 'path is empty'}")
    if not identity:
        raise ValueError("identity is empty")
    split = split_text or "train"
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}, not {split!r}")
    if camera and not (camera.isascii() and camera.isdigit() and len(camera) < 10):
        raise ValueError(f"camera must be a whole number from 1, not {camera!r}")
    if split != "train" and not int(camera or 0):
        raise ValueError(f"a {split} image needs its camera, a whole number from 1")
    return _Row(folder / path, identity, int(camera or 0), split)


def numbered(names: Iterable[str], source: object) -> dict[str, int]:
    """Give each name a number: its own value if all are whole numbers, else 1, 2, … in order of name.

    Args:
        names: Names of all splits at once, so that a name has the same number in each.
        source: File or folder that they come from, for messages.

    Raises:
        DatasetError: Two names are the same number, such as 1 and 0001.
    """
    order = sorted(set(names))
    if not all(name.isascii() and name.isdigit() and len(name) <= _DIGITS for name in order):
        return {name: number for number, name in enumerate(order, 1)}
    numbers = {name: int(name) for name in order}
    seen: dict[int, str] = {}
    for name, number in numbers.items():
        if number in seen:
            raise DatasetError(f"{source}: the identities {seen[number]} and {name} are the same number; rename one.")
        seen[number] = name
    return numbers
