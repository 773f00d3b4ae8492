"""Tables of an outbox's file: rows, gaps, and one row of state.

All functions take part in the caller's transaction.
"""

from __future__ import annotations

import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import cast

from reid_edge.upstream.age_clock import AgeState
from reid_edge.upstream.observation import Gap, GapReason

#: (sequence number, encoded observation).
Row = tuple[int, bytes]
#: (sequence number, CRC-32 when it was put, encoded observation).
StoredRow = tuple[int, int, bytes]

#: More gaps are merged, so that a year without network leaves a small table.
MOST_GAPS = 128

TABLE_NAMES = frozenset({"rows", "gaps", "state"})
_TABLES = """
CREATE TABLE rows (seq INTEGER PRIMARY KEY, age_us INTEGER NOT NULL, crc INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE gaps (
    first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, count INTEGER NOT NULL, reason TEXT NOT NULL,
    sealed INTEGER NOT NULL
);
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1), epoch TEXT NOT NULL, next_seq INTEGER NOT NULL,
    dropped_full INTEGER NOT NULL, dropped_expired INTEGER NOT NULL, dropped_lost INTEGER NOT NULL,
    age_us INTEGER NOT NULL, boot TEXT NOT NULL, boot_us INTEGER NOT NULL,
    steady_wall_us INTEGER NOT NULL, steady_age_us INTEGER NOT NULL, steady_boot TEXT NOT NULL
);
"""


def create_tables(db: sqlite3.Connection) -> None:
    """Make the tables of an empty outbox with a new incarnation."""
    db.executescript(_TABLES)
    db.execute("INSERT INTO state VALUES (1, ?, 1, 0, 0, 0, 0, '', 0, 0, 0, '')", (secrets.token_hex(8),))


def table_names(db: sqlite3.Connection) -> set[str]:
    """Return the names of all tables."""
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


# Rows.


@dataclass(frozen=True)
class Deleted:
    """Rows that :func:`delete_rows` deleted; the sequence numbers are 0 if there were none."""

    rows: int
    payload_bytes: int
    first_seq: int
    last_seq: int


def insert_rows(db: sqlite3.Connection, first_seq: int, age_us: int, payloads: Sequence[bytes]) -> None:
    """Add rows with sequence numbers from ``first_seq`` on."""
    db.executemany(
        "INSERT INTO rows VALUES (?, ?, ?, ?)",
        [(seq, age_us, zlib.crc32(payload), payload) for seq, payload in enumerate(payloads, first_seq)],
    )


def delete_rows(db: sqlite3.Connection, first_seq: int, last_seq: int) -> Deleted:
    """Delete rows, from first to last included."""
    found = db.execute(
        "SELECT count(*), total(length(payload)), min(seq), max(seq) FROM rows WHERE seq BETWEEN ? AND ?",
        (first_seq, last_seq),
    ).fetchone()
    if not found[0]:
        return Deleted(0, 0, 0, 0)
    db.execute("DELETE FROM rows WHERE seq BETWEEN ? AND ?", (first_seq, last_seq))
    return Deleted(found[0], int(found[1]), found[2], found[3])


def rows_after(db: sqlite3.Connection, seq: int, limit: int) -> list[StoredRow]:
    """Return the oldest rows with a higher sequence number, ascending."""
    return db.execute("SELECT seq, crc, payload FROM rows WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)).fetchall()


def rows_numbered(db: sqlite3.Connection, seqs: Sequence[int]) -> list[StoredRow]:
    """Return those rows that are there, ascending; at most 500 at once."""
    marks = ",".join("?" * len(seqs))
    query = f"SELECT seq, crc, payload FROM rows WHERE seq IN ({marks}) ORDER BY seq"  # noqa: S608 - own words
    return db.execute(query, tuple(seqs)).fetchall()


def oldest_age_us(db: sqlite3.Connection) -> int | None:
    """Return the age clock's count when the oldest row was put; None if there is no row."""
    oldest = db.execute("SELECT age_us FROM rows ORDER BY seq LIMIT 1").fetchone()
    return None if oldest is None else int(oldest[0])


def last_to_drop(db: sqlite3.Connection, excess_rows: int, excess_bytes: int) -> int:
    """Return the row up to which all must go to remove that many rows and bytes; 0 for none."""
    last = 0
    for seq, size in db.execute("SELECT seq, length(payload) FROM rows ORDER BY seq"):
        if excess_rows <= 0 and excess_bytes <= 0:
            break
        last, excess_rows, excess_bytes = seq, excess_rows - 1, excess_bytes - size
    return last


def last_older_than(db: sqlite3.Connection, age_us: int) -> int:
    """Return the last row put before the age clock had that count; 0 for none.  Rows are in order of age."""
    newer = db.execute("SELECT seq FROM rows WHERE age_us >= ? ORDER BY seq LIMIT 1", (age_us,)).fetchone()
    if newer is not None:
        return int(newer[0]) - 1
    last = db.execute("SELECT max(seq) FROM rows").fetchone()[0]
    return int(last or 0)


def consecutive_runs(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each run of consecutive numbers."""
    first = last = None
    for seq in sorted(set(seqs)):
        if first is None or last is None or seq != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = seq
        last = seq
    if first is not None and last is not None:
        yield first, last


def changed_rows(found: Sequence[StoredRow]) -> list[int]:
    """Return the numbers of rows whose bytes have changed since they were put."""
    return [seq for seq, crc, payload in found if zlib.crc32(payload) != crc]


# Gaps: dropped observations, until the gallery knows of them.


def note_gap(db: sqlite3.Connection, gap: Gap) -> None:
    """Add a gap: as part of an open one of the same reason, if no other lies between."""
    before = db.execute("SELECT * FROM gaps WHERE first_seq < ? ORDER BY first_seq DESC LIMIT 1", (gap.first_seq,))
    row = before.fetchone()
    if row is not None and (row[3], row[4]) == (gap.reason, 0):
        db.execute(
            "UPDATE gaps SET last_seq = max(last_seq, ?), count = count + ? WHERE first_seq = ?",
            (gap.last_seq, gap.count, row[0]),
        )
        return
    db.execute("INSERT INTO gaps VALUES (?, ?, ?, ?, 0)", (gap.first_seq, gap.last_seq, gap.count, gap.reason))
    if count_gaps(db) > MOST_GAPS:
        _merge_oldest_open(db)


def seal_gaps(db: sqlite3.Connection) -> list[Gap]:
    """Return the gaps to send; they do not grow after this, so an acknowledgement covers all that they hold.

    While sealed gaps wait for their acknowledgement, those are returned again, and no others.
    """
    sealed = _gaps(db, "sealed = 1")
    if sealed:
        return sealed
    db.execute("UPDATE gaps SET sealed = 1")
    return _gaps(db, "sealed = 1")


def delete_gaps(db: sqlite3.Connection, ranges: tuple[tuple[int, int], ...]) -> None:
    """Delete gaps that the gallery has stored; a gap that it cannot have seen as it is stays."""
    db.executemany("DELETE FROM gaps WHERE first_seq = ? AND last_seq = ? AND sealed = 1", ranges)


def count_gaps(db: sqlite3.Connection) -> int:
    """Return the number of gaps."""
    return cast(int, db.execute("SELECT count(*) FROM gaps").fetchone()[0])


def _merge_oldest_open(db: sqlite3.Connection) -> None:
    pair = _gaps(db, "sealed = 0 ORDER BY first_seq LIMIT 2")
    if len(pair) < 2:
        return
    db.executemany("DELETE FROM gaps WHERE first_seq = ?", [(gap.first_seq,) for gap in pair])
    larger = max(pair, key=lambda gap: gap.count)
    merged = (pair[0].first_seq, max(gap.last_seq for gap in pair), sum(gap.count for gap in pair), larger.reason)
    db.execute("INSERT INTO gaps VALUES (?, ?, ?, ?, 0)", merged)


def _gaps(db: sqlite3.Connection, where: str) -> list[Gap]:
    rows = db.execute(f"SELECT first_seq, last_seq, count, reason FROM gaps WHERE {where}")  # noqa: S608 - own words
    return [Gap(first, last, number, cast(GapReason, reason)) for first, last, number, reason in rows]


# State.


@dataclass(frozen=True)
class State:
    """Summary of an outbox, known without reading its file; replaced as a whole after each commit.

    Attributes:
        incarnation: Names the file.
        next_seq: Sequence number of the next row.
        rows: Number of rows.
        payload_bytes: Bytes of their encoded observations.
        gaps: Number of gaps.
        dropped: Observations dropped since the file was made, by reason.
    """

    incarnation: str
    next_seq: int
    rows: int
    payload_bytes: int
    gaps: int
    dropped: dict[GapReason, int]

    def with_rows(self, count: int, payload_bytes: int) -> State:
        """Return the state after rows were added."""
        return replace(
            self,
            next_seq=self.next_seq + count,
            rows=self.rows + count,
            payload_bytes=self.payload_bytes + payload_bytes,
        )

    def without(self, gone: Deleted) -> State:
        """Return the state after rows were deleted."""
        return replace(self, rows=self.rows - gone.rows, payload_bytes=self.payload_bytes - gone.payload_bytes)


def load_state(db: sqlite3.Connection) -> tuple[State, AgeState]:
    """Read the state, and every page but those of a feature's tail, so that damage shows now rather than in a month.

    Raises:
        sqlite3.DatabaseError: The file is damaged.
    """
    found = db.execute("SELECT * FROM state").fetchone()
    count, size, highest = db.execute("SELECT count(*), total(length(payload)), max(seq) FROM rows").fetchone()
    if found is None or (highest or 0) >= found[2]:
        raise sqlite3.DatabaseError("malformed: no state, or rows beyond the last")
    _, incarnation, next_seq, full, expired, lost, *age = found
    dropped: dict[GapReason, int] = {"full": full, "expired": expired, "lost": lost}
    return State(incarnation, next_seq, count, int(size), count_gaps(db), dropped), AgeState(*age)


def save_state(db: sqlite3.Connection, state: State, age: AgeState) -> None:
    """Write the part of the state that cannot be counted from the other tables."""
    db.execute(
        "UPDATE state SET next_seq = ?, dropped_full = ?, dropped_expired = ?, dropped_lost = ?, age_us = ?, "
        "boot = ?, boot_us = ?, steady_wall_us = ?, steady_age_us = ?, steady_boot = ?",
        (
            state.next_seq,
            state.dropped["full"],
            state.dropped["expired"],
            state.dropped["lost"],
            *astuple(age),
        ),
    )
