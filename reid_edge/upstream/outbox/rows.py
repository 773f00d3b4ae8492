"""The table of rows: what waits."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Payload = bytes
Row = tuple[int, Payload]


@dataclass(frozen=True)
class Deleted:
    """What :func:`delete` deleted; the sequence numbers are 0 where it was nothing."""

    rows: int
    payload_bytes: int
    first_seq: int
    last_seq: int


def insert(db: sqlite3.Connection, first_seq: int, age_us: int, payloads: Sequence[Payload]) -> None:
    """Add rows with sequence numbers from ``first_seq`` on."""
    db.executemany(
        "INSERT INTO rows VALUES (?, ?, ?, ?)",
        [(seq, age_us, zlib.crc32(payload), payload) for seq, payload in enumerate(payloads, first_seq)],
    )


def delete(db: sqlite3.Connection, first_seq: int, last_seq: int) -> Deleted:
    """Delete rows, from first to last included."""
    found = db.execute(
        "SELECT count(*), total(length(payload)), min(seq), max(seq) FROM rows WHERE seq BETWEEN ? AND ?",
        (first_seq, last_seq),
    ).fetchone()
    if not found[0]:
        return Deleted(0, 0, 0, 0)
    db.execute("DELETE FROM rows WHERE seq BETWEEN ? AND ?", (first_seq, last_seq))
    return Deleted(found[0], int(found[1]), found[2], found[3])


def last_to_drop(db: sqlite3.Connection, excess_rows: int, excess_bytes: int) -> int:
    """The row that must go, with all before it, to be rid of so many rows and bytes; 0 for none."""
    last = 0
    for seq, size in db.execute("SELECT seq, length(payload) FROM rows ORDER BY seq"):
        if excess_rows <= 0 and excess_bytes <= 0:
            break
        last, excess_rows, excess_bytes = seq, excess_rows - 1, excess_bytes - size
    return last


def last_older_than(db: sqlite3.Connection, age_us: int) -> int:
    """The last row put before that count of the age clock; 0 for none.  Rows are in order of age."""
    newer = db.execute("SELECT seq FROM rows WHERE age_us >= ? ORDER BY seq LIMIT 1", (age_us,)).fetchone()
    if newer is not None:
        return int(newer[0]) - 1
    last = db.execute("SELECT max(seq) FROM rows").fetchone()[0]
    return int(last or 0)


def runs(seqs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    first = last = None
    for seq in sorted(set(seqs)):
        if first is None or last is None or seq != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = seq
        last = seq
    if first is not None and last is not None:
        yield first, last


def damaged(found: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Those whose bytes have changed since they were put."""
    return [seq for seq, crc, payload in found if zlib.crc32(payload) != crc]
