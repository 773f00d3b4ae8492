"""The table of gaps: what was dropped, until the receiving end knows."""

from __future__ import annotations

import sqlite3
from typing import cast

from reid_edge.upstream.observation import Gap, GapReason

MOST = 128
"""More are merged, so that a year without network leaves a small table."""


def note(db: sqlite3.Connection, gap: Gap) -> None:
    """Add a gap, as part of an open one of the same reason where no other lies between."""
    before = db.execute("SELECT * FROM gaps WHERE first_seq < ? ORDER BY first_seq DESC LIMIT 1", (gap.first_seq,))
    row = before.fetchone()
    if row is not None and (row[3], row[4]) == (gap.reason, 0):
        db.execute(
            "UPDATE gaps SET last_seq = max(last_seq, ?), count = count + ? WHERE first_seq = ?",
            (gap.last_seq, gap.count, row[0]),
        )
        return
    db.execute("INSERT INTO gaps VALUES (?, ?, ?, ?, 0)", (gap.first_seq, gap.last_seq, gap.count, gap.reason))
    if count(db) > MOST:
        _merge_oldest_open(db)


def seal(db: sqlite3.Connection) -> list[Gap]:
    """The gaps to send.  They grow no more: an acknowledgement of what was sent is then one of all that they hold.

    While some that were sent wait for their acknowledgement, those are handed out again, and no others.
    """
    sealed = _gaps(db, "sealed = 1")
    if sealed:
        return sealed
    db.execute("UPDATE gaps SET sealed = 1")
    return _gaps(db, "sealed = 1")


def forget(db: sqlite3.Connection, ranges: tuple[tuple[int, int], ...]) -> None:
    """Delete gaps that the receiving end has stored; one that it cannot have seen as it is stays."""
    db.executemany("DELETE FROM gaps WHERE first_seq = ? AND last_seq = ? AND sealed = 1", ranges)


def count(db: sqlite3.Connection) -> int:
    """How many there are."""
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
