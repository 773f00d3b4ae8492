"""CSV files that say which tracklet is of which person: people found, or true ones."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid_edge.errors import InputError
from reid_edge.evaluation.people import NOBODY, Ints

Key = tuple[str, str, str]
_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class PeopleFile:
    """The rows of a file.

    Attributes:
        path: The file.
        people: Person of each row by camera, tracklet and time; time is empty where the file has no such column, and
            the person where the row names none.
        timed: Whether the file has a column ``time``.
    """

    path: Path
    people: dict[Key, str]
    timed: bool


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Rows of two files, side by side.

    Attributes:
        found: Number of each row's person found, N; −1: the row is not in the file.
        true: Number of its true person, N; −1: it is nobody.
        left_out: Rows found that the truth does not list.
    """

    found: Ints
    true: Ints
    left_out: int


def read_people(path: Path) -> PeopleFile:
    """Read a CSV file with the columns camera, tracklet (or id) and person, and perhaps time.

    Other columns are ignored.  Cells are separated by commas, semicolons or tabs; the text is UTF-8.

    Raises:
        InputError: It cannot be read, a column is missing, or rows are bad; each is named with its line.
    """
    people: dict[Key, str] = {}
    lines: dict[Key, int] = {}
    bad: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            delimiter = max(",;\t", key=header.count)
            columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
            name = _tracklet_column(path, columns)
            for line, cells in enumerate(csv.DictReader(stream, columns, delimiter=delimiter), 2):
                camera, tracklet, time = (str(cells.get(one) or "").strip() for one in ("camera", name, "time"))
                key = (camera, tracklet, time)
                if not camera or not tracklet:
                    bad.append(f"line {line}: camera or {name} is empty")
                elif key in people:
                    bad.append(f"line {line}: {' '.join(filter(None, key))} stands in line {lines[key]} already")
                else:
                    people[key], lines[key] = str(cells.get("person") or "").strip(), line
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a readable CSV file in UTF-8 ({error}).") from error
    if bad:
        more = f" … and {len(bad) - _LISTED:,} more" if len(bad) > _LISTED else ""
        raise InputError(f"{path} has {len(bad):,} bad rows: {'; '.join(bad[:_LISTED])}{more}.")
    return PeopleFile(path=path, people=people, timed="time" in columns)


def compared(found: PeopleFile, truth: PeopleFile) -> Compared:
    """Put the rows of people found beside the true ones.

    What is judged are the rows of the truth.  A row of the truth without a person is nobody: a false detection.  A row
    found without a person is a person of its own.

    Raises:
        InputError: One file tells times and the other does not, or they have no row in common.
    """
    if found.timed != truth.timed:
        with_time, without = (found, truth) if found.timed else (truth, found)
        raise InputError(f"{with_time.path} has a column 'time' and {without.path} has none; leave it out or add it.")
    if found.people.keys().isdisjoint(truth.people):
        raise InputError(
            f"{found.path} and {truth.path} have no tracklet in common; both need the same names of cameras and "
            f"tracklets, e.g. {_example(found.people)} and {_example(truth.people)}."
        )
    keys = list(truth.people)
    of_truth = {person: number for number, person in enumerate(sorted(set(truth.people.values()) - {""}))}
    of_found = {person: number for number, person in enumerate(sorted(set(found.people.values()) - {""}))}
    numbers = np.full(len(keys), NOBODY, np.int64)
    for row, key in enumerate(keys):
        if key in found.people:
            numbers[row] = of_found.get(found.people[key], len(of_found) + row)
    return Compared(
        found=numbers,
        true=np.array([of_truth.get(truth.people[key], NOBODY) for key in keys], np.int64),
        left_out=len(found.people.keys() - truth.people.keys()),
    )


def _tracklet_column(path: Path, columns: list[str]) -> str:
    name = "tracklet" if "tracklet" in columns else "id"
    missing = [one for one in ("camera", name, "person") if one not in columns]
    if missing:
        listed = ", ".join("tracklet (or id)" if one == "id" else one for one in missing)
        raise InputError(
            f"{path}: the first line must name the columns camera, tracklet (or id) and person; missing: {listed}; "
            f"found: {', '.join(columns) or 'nothing'}."
        )
    return name


def _example(people: Mapping[Key, str]) -> str:
    return " ".join(filter(None, next(iter(people), ("nothing",))))
