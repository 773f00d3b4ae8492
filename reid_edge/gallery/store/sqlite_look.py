"""A look at a gallery's SQLite file, often and in pieces: damage is found within minutes, and not once a day."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reid_edge.gallery.entries import Record
from reid_edge.gallery.store.damage import DAMAGED, DamagedRows
from reid_edge.gallery.store.sql import AUDIT_NAMES, COLUMN_NAMES
from reid_edge.gallery.store.sqlite_file import connect_again

#: The newest rows, which each look reads, and lines of the audit likewise.
NEWEST, NEWEST_LINES = 500, 100
#: Rows of a piece of the others.
PIECE = 500

_ROWS = (
    f"SELECT {COLUMN_NAMES}, observations.number, feature, checksum, hash FROM observations "  # noqa: S608 - own words
    "LEFT JOIN models ON models.number = model "
)
_NEWEST_ROWS = f"{_ROWS} ORDER BY observations.number DESC LIMIT {NEWEST}"
_NEXT_ROWS = f"{_ROWS} WHERE observations.number > ? ORDER BY observations.number LIMIT {PIECE}"
_NEWEST = (
    _NEWEST_ROWS,
    *(f"SELECT * FROM {table}" for table in ("settings", "models", "erasures")),  # noqa: S608
    f"SELECT {AUDIT_NAMES} FROM audit ORDER BY number DESC LIMIT {NEWEST_LINES}",  # noqa: S608
)
#: In what SQLite says of a file into which nothing more should be written.
_BROKEN = ("malformed", "not a database", "I/O")


class RollingLook:
    """Looks at a gallery's file: at all that is new each time, and at the rest in turn.

    Each look is on a connection of its own, since pages in memory hide what has become of the file.

    Args:
        path: The file.
        record: Returns the record of a row; of a damaged one it takes note.
        damaged: Takes note of what cannot be read.
    """

    def __init__(self, path: Path, record: Callable[[Sequence[Any]], Record | None], damaged: DamagedRows) -> None:
        self._path, self._record, self._damaged = path, record, damaged
        self._after = 0

    def look(self, most_s: float) -> str:
        """Look at the file; return why what is written now would be lost, or "" if it would not.

        Args:
            most_s: Seconds after which no further piece is read.

        Raises:
            sqlite3.Error: The file cannot be opened.
        """
        with contextlib.closing(connect_again(self._path)) as db:
            faults = [fault for query in _NEWEST if (fault := _fault(partial(self._read, db, query)))]
            if faults:
                self._damaged.note_structure(f"what is newest cannot be read: {faults[0]}")
            if broken := [fault for fault in faults if any(word in fault for word in _BROKEN)]:
                return f"the newest part of the gallery {self._path} cannot be read any more: {broken[0]}"
            until_s = time.monotonic() + most_s
            while time.monotonic() < until_s and self._next(db):
                pass
        return ""

    def _read(self, db: sqlite3.Connection, query: str) -> None:
        rows = db.execute(query).fetchall()
        if query == _NEWEST_ROWS:
            for row in rows:
                self._record(row)

    def _next(self, db: sqlite3.Connection) -> bool:
        """Read the next piece; return False at the end, from where the next look begins anew."""
        after, self._after = self._after, self._after + PIECE

        def read() -> int:
            rows = db.execute(_NEXT_ROWS, (after,)).fetchall()
            for row in rows:
                self._record(row)
            self._after = rows[-1][-4] if rows else 0
            return len(rows)

        if fault := _fault(read):
            self._damaged.note_structure(f"observations from number {after + 1:,} on cannot be read: {fault}")
            (last,) = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'observations'").fetchone() or (0,)
            self._after = self._after if self._after < last else 0
        return bool(self._after)


def _fault(read: Callable[[], object]) -> str:
    """Return what is wrong with what is read; "" if nothing is.

    Raises:
        sqlite3.OperationalError: Another process keeps the file.
    """
    try:
        read()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        return str(error)
    except (sqlite3.DatabaseError, *DAMAGED) as error:
        return str(error)
    return ""
