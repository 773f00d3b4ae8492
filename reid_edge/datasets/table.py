"""A CSV file of one's own: path, identity, camera and, if it has more than training images, split."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reid_edge.datasets.people import numbered
from reid_edge.datasets.records import LabelledImage, Split
from reid_edge.errors import DatasetError

_NEEDED = ("path", "identity", "camera")
_SPLITS = ("train", "query", "gallery")
#: File in a folder that is given instead of the file.
_NAME = "images.csv"
#: Bad rows that a message lists.
_LISTED = 10


@dataclass(frozen=True)
class _Row:
    path: Path
    identity: str
    camera: int
    split: str


def load_csv(root: Path, split: Split) -> list[LabelledImage]:
    """List the rows of one split, in order.

    Identities are whole numbers (0 in a gallery: distractors) or names, which are numbered in order.  Without a column
    ``split`` every row is for training.

    Args:
        root: The file, or the folder that holds ``images.csv``.  Paths in it are relative to its folder.
        split: Which rows.

    Raises:
        DatasetError: No such file, a column that is missing, bad rows (each with its line), or no row of this split.
    """
    file = root / _NAME if root.is_dir() else root
    rows = _read(file)
    numbers = numbered((row.identity for row in rows), file)
    images = [LabelledImage(row.path, numbers[row.identity], row.camera) for row in rows if row.split == split]
    if not images:
        raise DatasetError(
            f"{file} has no row of the {split} split. Name the split of each row ({', '.join(_SPLITS)}) in a column "
            "'split'; without that column every row is for training."
        )
    return images


def _read(file: Path) -> list[_Row]:
    rows: list[_Row] = []
    bad: list[str] = []
    seen: dict[Path, int] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            _check_columns(file, reader.fieldnames or ())
            for cells in reader:
                try:
                    row = _parse(file.parent, cells)
                    file_itself = row.path.resolve()
                    if file_itself in seen:
                        raise ValueError(f"{row.path} stands in line {seen[file_itself]} already")
                except ValueError as error:
                    bad.append(f"line {reader.line_num}: {error}")
                    continue
                seen[file_itself] = reader.line_num
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file} is not a readable CSV file ({error}). Give the file with --root.") from error
    if bad:
        more = f" … and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise DatasetError(f"{file} has {len(bad):,} bad rows: {'; '.join(bad[:_LISTED])}{more}.")
    return rows


def _check_columns(file: Path, columns: object) -> None:
    found = tuple(columns) if isinstance(columns, list | tuple) else ()
    if missing := [name for name in _NEEDED if name not in found]:
        raise DatasetError(
            f"{file}: the first line must name the columns path, identity, camera and perhaps split; "
            f"missing: {', '.join(missing)}; found: {', '.join(found) or 'nothing'}."
        )


def _parse(folder: Path, cells: Mapping[str | None, str | list[str] | None]) -> _Row:
    """One row; raises ValueError with what is wrong."""
    if None in cells or None in cells.values():
        raise ValueError("more or fewer cells than the first line names")
    path, identity, camera, split = (str(cells.get(name, "")).strip() for name in (*_NEEDED, "split"))
    if not path or not (folder / path).is_file():
        raise ValueError(f"no such file: {folder / path if path else 'path is empty'}")
    if not identity:
        raise ValueError("identity is empty")
    split = split or "train"
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}, not {split!r}")
    if camera and not (camera.isascii() and camera.isdigit() and len(camera) < 10):
        raise ValueError(f"camera must be a whole number from 1, not {camera!r}")
    if split != "train" and not int(camera or 0):
        raise ValueError(f"a {split} image needs its camera, a whole number from 1")
    return _Row(folder / path, identity, int(camera or 0), split)
