"""Readers of your own images: a folder for each person, or a CSV file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reid_edge.datasets.labelled_images import JUNK, LabelledImage, Split, without_junk
from reid_edge.datasets.layout import entry, folders_in, images_in, locate
from reid_edge.errors import DatasetError
from reid_edge.wording import counted

_SPLITS: tuple[Split, ...] = ("train", "query", "gallery")
#: Number of the camera in a file name: ``17_c3_0001.jpg``.
_CAMERA = re.compile(r"(?:^|_)c(\d{1,9})(?!\d)", re.IGNORECASE)
#: Columns that a CSV file must have.
_COLUMNS = ("path", "identity", "camera")
#: Name of the CSV file where a folder is given.
_CSV_NAME = "images.csv"
#: Bad rows that a message lists.
_LISTED = 10
#: What to do with a folder for each camera in that of a person.
_NESTED = (
    "The images of a person lie directly in its folder, with the camera in their names (17_c3_0001.jpg). Or list "
    "images of any folders in a CSV file (--dataset csv)."
)
#: Longer numbers count as names: they would not fit into 64 bits.
_DIGITS = 15
#: Names of junk (``-1`` in Market-1501, ``00-1`` in MARS) and of distractors (``0``, ``0000``).
_JUNK, _DISTRACTOR = re.compile(r"0*-0*1"), re.compile(r"0+")


def load_folder(root: Path, split: Split) -> list[LabelledImage]:
    """List one split of ``ROOT/{train,query,gallery}/<identity>/*.jpg``, in order of folder and file name.

    The name of an image's folder is its identity (see :func:`numbered`); junk is left out.  The camera is the number
    after a ``c`` at the start of the file name or after ``_``: ``a_c3_17.jpg`` is of camera 3.  Without such a number
    the camera is not known (0).

    Raises:
        DatasetError: A folder is missing or holds no image.
    """
    folder = locate("a folder of images", root, ("folder",), _SPLITS)
    people = {part: _people(entry(folder, part)) for part in _SPLITS}
    if not people[split]:
        raise DatasetError(f"no {split} split: expected {folder / split}/IDENTITY/*.jpg, one folder for each person.")
    numbers = numbered((path.name for paths in people.values() for path in paths), folder)
    images = [
        LabelledImage(path, numbers[person.name], _camera(path))
        for person in people[split]
        for path in images_in(person, nested=_NESTED)
    ]
    return without_junk(images, folder / split)


def _people(folder: Path | None) -> list[Path]:
    return folders_in(folder) if folder is not None and folder.is_dir() else []


def _camera(path: Path) -> int:
    match = _CAMERA.search(path.stem)
    return int(match[1]) if match else 0


@dataclass(frozen=True)
class _Row:
    path: Path
    identity: str
    camera: int
    split: str
    tracklet: str


def load_csv(root: Path, split: Split) -> list[LabelledImage]:
    """List the rows of one split of a CSV file with the columns path, identity and camera, in order.

    Identities are numbers or names (see :func:`numbered`); junk is left out.  An empty camera is not known (0).
    Without a column ``split`` every row is for training.  A column ``tracklet`` names the tracklet that an image is of,
    one of its person and camera, by any text.  Semicolons and tabs may take the place of commas.

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
    images = [
        LabelledImage(row.path, numbers[row.identity], row.camera, sequence=row.tracklet)
        for row in rows
        if row.split == split
    ]
    if not images:
        raise DatasetError(
            f"{file} has no row of the {split} split. Name the split of each row ({', '.join(_SPLITS)}) in a column "
            "'split'; without that column every row is for training."
        )
    return without_junk(images, file)


def _read_rows(file: Path) -> list[_Row]:
    rows: list[_Row] = []
    bad: list[str] = []
    seen: dict[Path, int] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            delimiter = max(",;\t", key=header.count)
            columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
            _check_columns(file, columns)
            reader = csv.DictReader(stream, columns, delimiter=delimiter)
            for cells in reader:
                if not any(cells.values()):  # spreadsheets leave rows of commas behind
                    continue
                try:
                    row = _parse_row(file.parent, cells)
                    image = row.path.resolve()
                    if image in seen:
                        raise ValueError(f"{row.path} stands in line {seen[image]} already")
                except ValueError as error:
                    bad.append(f"line {reader.line_num + 1}: {error}")
                    continue
                seen[image] = reader.line_num + 1
                rows.append(row)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{file} is not a readable CSV file: it is not UTF-8 text ({error}). Save it as 'CSV UTF-8'."
        ) from error
    except (OSError, csv.Error) as error:
        raise DatasetError(f"{file} is not a readable CSV file ({error}). Give the file with --root.") from error
    if bad:
        more = f" … and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        raise DatasetError(f"{file} has {counted(len(bad), 'bad row')}: {'; '.join(bad[:_LISTED])}{more}.")
    return rows


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    if missing := [name for name in _COLUMNS if name not in columns]:
        raise DatasetError(
            f"{file}: the first line must name the columns path, identity, camera and perhaps split; "
            f"missing: {', '.join(missing)}; found: {', '.join(columns) or 'nothing'}."
        )


def _parse_row(folder: Path, cells: Mapping[str | None, str | list[str] | None]) -> _Row:
    """Check the cells of one row; raise a ValueError that names the fault."""
    if None in cells or None in cells.values():
        raise ValueError("more or fewer cells than the first line names")
    path, identity, camera, split_text = (str(cells.get(name, "")).strip() for name in (*_COLUMNS, "split"))
    if not (folder / path).is_file():
        path = path.replace("\\", "/")  # as Windows writes paths
    if not path or not (folder / path).is_file():
        raise ValueError(f"no such file: {folder / path if path else 'path is empty'}")
    if not identity:
        raise ValueError("identity is empty")
    split = split_text or "train"
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}, not {split!r}")
    if camera and not (camera.isascii() and camera.isdigit() and len(camera) < 10):
        raise ValueError(f"camera must be a whole number from 1, not {camera!r}")
    return _Row(folder / path, identity, int(camera or 0), split, str(cells.get("tracklet", "")).strip())


def numbered(names: Iterable[str], source: object) -> dict[str, int]:
    """Give each name of an identity a number.

    ``-1`` is junk and ``0`` stands for distractors, as in Market-1501, whatever other names there are.  The others keep
    their own value if all of them are whole numbers, else they are 1, 2, … in order of name.

    Args:
        names: Names of all splits at once, so that a name has the same number in each.
        source: File or folder that they come from, for messages.

    Raises:
        DatasetError: Two names are the same number, such as 1 and 0001, or a number is below -1.
    """
    order = sorted(set(names))
    numbers = {name: JUNK for name in order if _JUNK.fullmatch(name)}
    numbers |= {name: 0 for name in order if _DISTRACTOR.fullmatch(name)}
    people = [name for name in order if name not in numbers]
    if not all(name.isascii() and name.isdigit() and len(name) <= _DIGITS for name in people):
        _refuse_negative(people, source)
        return numbers | {name: number for number, name in enumerate(people, 1)}
    seen: dict[int, str] = {}
    for name in people:
        if (number := int(name)) in seen:
            raise DatasetError(f"{source}: the identities {seen[number]} and {name} are the same number; rename one.")
        seen[number] = name
    return numbers | {name: number for number, name in seen.items()}


def _refuse_negative(names: Iterable[str], source: object) -> None:
    if negative := [name for name in names if re.fullmatch(r"-\d+", name)]:
        raise DatasetError(
            f"{source}: identity {negative[0]} means nothing: expected a name, a whole number from 1, "
            "0 for distractors in the gallery, or -1 for junk. Rename it."
        )
