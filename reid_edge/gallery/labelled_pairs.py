"""Pairs of stored observations of which a person says whether they are one person: a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reid_edge.errors import ContradictionError, NoSuchObservationError, UsageError
from reid_edge.gallery.entries import Record, parse_id
from reid_edge.gallery.held_tracklets import ModelTracklets

#: Largest file, and most pairs: more than a person labels.
MOST_BYTES, MOST_PAIRS = 8 * 2**20, 20_000
_LABELS = {"same": True, "different": False}
EXAMPLE = "door/3fa2b7c9/17,yard/88ab01c2/4,same"


@dataclass(frozen=True)
class LabelledPair:
    """Two ids, whether they are one person, and the line of the file."""

    first: str
    second: str
    same: bool
    line: int


@dataclass(frozen=True)
class LabelledRows:
    """Labelled pairs as rows of sightings.

    Attributes:
        same: Q×2 rows of one person, each pair once.
        different: P×2 rows of two people.
        missing: Number of pairs left out: the gallery no longer holds one of the two, or holds it of another model.
    """

    same: npt.NDArray[np.int64]
    different: npt.NDArray[np.int64]
    missing: int


def read_pairs(path: Path) -> list[LabelledPair]:
    """Read a file of labelled pairs.

    Each line has two ids, as ``search`` shows them, and ``same`` or ``different``, with commas between.  Empty lines
    and lines that begin with ``#`` are left out.

    Raises:
        UsageError: The file cannot be read, is too large, or has a line of another form.
    """
    pairs = []
    for number, row in enumerate(csv.reader(io.StringIO(_text(path))), start=1):
        fields = [field.strip() for field in row]
        if not any(fields) or fields[0].startswith("#"):
            continue
        if len(fields) != 3 or fields[2].lower() not in _LABELS:
            shown = ",".join(fields)
            raise UsageError(
                f"{path}, line {number}: expected two ids and same or different: {EXAMPLE}; got {shown[:80]!a}."
            )
        for name in fields[:2]:
            _checked_id(name, path, number)
        pairs.append(LabelledPair(fields[0], fields[1], _LABELS[fields[2].lower()], number))
    if not 0 < len(pairs) <= MOST_PAIRS:
        raise UsageError(f"{path}: expected 1 to {MOST_PAIRS:,} pairs, a line each: {EXAMPLE}; got {len(pairs):,}.")
    return pairs


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UsageError(f"{path}: expected at most {MOST_BYTES // 2**20} MiB of pairs; it is larger.")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"--pairs {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: expected text in UTF-8, a pair on each line: {EXAMPLE}.") from error
    if "\0" in text:
        raise UsageError(f"{path}: expected text, a pair on each line: {EXAMPLE}; got bytes of 0.")
    return text


def _checked_id(name: str, path: Path, line: int) -> None:
    try:
        parse_id(name)
    except UsageError as error:
        raise UsageError(f"{path}, line {line}: {error}") from error


def rows_of(pairs: list[LabelledPair], held: ModelTracklets, find: Callable[[str], Record]) -> LabelledRows:
    """Return labelled pairs as rows of the tracklets of one model.

    Args:
        pairs: Pairs of observations; two of the same tracklets count once.
        held: The tracklets.
        find: Returns the record of an id.

    Raises:
        UsageError: An id could be several observations.
        ContradictionError: The same two tracklets are said to be one person and two, or a tracklet to be two people.
    """
    places = {key: row for row, key in enumerate(held.keys)}
    labels: dict[tuple[int, int], tuple[bool, int]] = {}
    missing = 0
    for pair in pairs:
        rows = [_row(name, places, find) for name in (pair.first, pair.second)]
        if None in rows:
            missing += 1
            continue
        low, high = sorted(row for row in rows if row is not None)
        known = labels.setdefault((low, high), (pair.same, pair.line))
        if known[0] != pair.same:
            raise ContradictionError(
                f"line {pair.line} of the pairs says that {pair.first} and {pair.second} are "
                f"{'one person' if pair.same else 'two people'}, line {known[1]} says the opposite. Take one out."
            )
        if low == high and not pair.same:
            raise ContradictionError(f"line {pair.line} of the pairs: both ids are of one tracklet, so of one person.")
    return LabelledRows(_rows(labels, same=True), _rows(labels, same=False), missing)


def _row(name: str, places: dict[tuple[str, str, int], int], find: Callable[[str], Record]) -> int | None:
    try:
        return places.get(find(name).entry.tracklet)
    except NoSuchObservationError:
        return None


def _rows(labels: dict[tuple[int, int], tuple[bool, int]], *, same: bool) -> npt.NDArray[np.int64]:
    chosen = [pair for pair, (label, _) in sorted(labels.items()) if label is same and pair[0] != pair[1]]
    return np.array(chosen, np.int64).reshape(-1, 2)
