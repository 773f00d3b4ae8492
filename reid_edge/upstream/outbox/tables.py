"""Tables of an outbox's file: rows, gaps, and one row of state.

All functions take part in the caller's transaction.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from reid_edge.upstream.observation import Gap, GapReason
from reid_edge.upstream.outbox.age_clock import MOST_AGE_US, AgeState
from reid_edge.upstream.outbox.records import (
    STATE_COLUMNS,
    Deleted,
    Row,
    State,
    StoredRow,
    acknowledged_checksum,
    checked_gap,
    checked_state,
    gap_checksum,
    is_intact,
    malformed,
    row_checksum,
    state_columns,
    verified_gap,
    verified_state,
    whole,
)

#: More gaps are merged, so that a year without network leaves a small table.
MOST_GAPS = 128

TABLE_NAMES = frozenset({"rows", "gaps", "state"})
_TABLES_1 = """
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
INSERT INTO state VALUES (1, '', 1, 0, 0, 0, 0, '', 0, 0, 0, '');
"""
_TABLES_2 = """
ALTER TABLE rows ADD COLUMN acked_us INTEGER;
ALTER TABLE gaps ADD COLUMN crc INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN destination TEXT NOT NULL DEFAULT '';
ALTER TABLE state ADD COLUMN replay TEXT NOT NULL DEFAULT '';
ALTER TABLE state ADD COLUMN predecessor TEXT NOT NULL DEFAULT '';
ALTER TABLE state ADD COLUMN checked_from INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN given INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN waiting INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN in_gaps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN crc_sum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN crc INTEGER NOT NULL DEFAULT 0;
"""
_BYTES = "total(length(CAST(payload AS BLOB)))"
_ROW = "seq, age_us, crc, payload, acked_us"
_GAP = "first_seq, last_seq, count, reason, sealed, crc"
_STATE_1 = STATE_COLUMNS[:11]
#: Rows that wait for an acknowledgement, rows that are acknowledged and kept, or both.
Which = Literal["waiting", "kept", "any"]
_WHICH: dict[Which, str] = {"waiting": "acked_us IS NULL", "kept": "acked_us IS NOT NULL", "any": "1"}


def create_tables(db: sqlite3.Connection) -> None:
    """Make empty tables; the state is to be saved before they are used."""
    _run(db, _TABLES_1 + _TABLES_2)


def migrate_from_1(db: sqlite3.Connection) -> None:
    """Add what format 2 has to the tables of format 1; the rows stay as they are.

    Their checksums, which cover the payload alone, are not made anew: that would write the whole file once more, and
    the disk may not have the room.  ``checked_from`` tells them from later ones.

    Raises:
        sqlite3.DatabaseError: The file is damaged.
    """
    _run(db, _TABLES_2)
    found = db.execute(f"SELECT {', '.join(_STATE_1)} FROM state").fetchone()  # noqa: S608 - own words
    if found is None:
        raise malformed("no state")
    state, age = checked_state(found)
    waiting, crc_sum = db.execute("SELECT count(*), sum(crc) FROM rows").fetchone()
    for *columns, sealed in db.execute("SELECT first_seq, last_seq, count, reason, sealed FROM gaps").fetchall():
        crc = gap_checksum(state.incarnation, checked_gap(columns), sealed)
        db.execute("UPDATE gaps SET crc = ? WHERE first_seq = ?", (crc, columns[0]))
    state = with_gaps(db, replace(state, rows=waiting, crc_sum=int(crc_sum or 0), checked_from=state.next_seq))
    (newest_us,) = db.execute("SELECT max(age_us) FROM rows WHERE age_us <= ?", (MOST_AGE_US,)).fetchone()
    save_state(db, replace(state, given=state.undelivered), age.healed(newest_us or 0))


@functools.cache
def schema() -> frozenset[tuple[str, str]]:
    """Return what :func:`table_definitions` finds in a sound file."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        create_tables(db)
        return table_definitions(db)


def table_definitions(db: sqlite3.Connection) -> frozenset[tuple[str, str]]:
    """Return the name and the definition of each table, index, trigger and view."""
    return frozenset((str(name), str(sql)) for name, sql in db.execute("SELECT name, sql FROM sqlite_master"))


def table_names(db: sqlite3.Connection) -> set[str]:
    """Return the names of all tables."""
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _run(db: sqlite3.Connection, statements: str) -> None:
    """Run statements in the caller's transaction, unlike ``executescript``."""
    for statement in filter(None, map(str.strip, statements.split(";"))):
        db.execute(statement)


# Rows.


def insert_rows(db: sqlite3.Connection, state: State, age_us: int, payloads: Sequence[bytes]) -> State:
    """Add rows, put when the age clock had that count; returns the state with them."""
    rows: list[StoredRow] = [
        (seq, age_us, row_checksum(state.incarnation, seq, age_us, None, payload), payload, None)
        for seq, payload in enumerate(payloads, state.next_seq)
    ]
    copy_rows(db, rows)
    return state.with_rows(len(rows), sum(map(len, payloads)), sum(crc for _, _, crc, _, _ in rows))


def copy_rows(db: sqlite3.Connection, rows: Iterable[StoredRow]) -> None:
    """Add rows as they are."""
    db.executemany(f"INSERT INTO rows ({_ROW}) VALUES (?, ?, ?, ?, ?)", rows)  # noqa: S608 - own words


def delete_rows(db: sqlite3.Connection, first_seq: int, last_seq: int, which: Which = "any") -> Deleted:
    """Delete rows, from first to last included.

    Raises:
        sqlite3.DatabaseError: They are out of order, as after damage.
    """
    found = _counted(db, first_seq, last_seq, which)
    if found.rows:
        db.execute(f"DELETE FROM rows WHERE seq BETWEEN ? AND ? AND {_WHICH[which]}", (first_seq, last_seq))  # noqa: S608
    return found


def _counted(db: sqlite3.Connection, first_seq: int, last_seq: int, which: Which) -> Deleted:
    count, different, size, first, last, crc_sum = db.execute(
        f"SELECT count(*), count(DISTINCT seq), {_BYTES}, min(seq), max(seq), total(crc) FROM rows "  # noqa: S608 - own words
        f"WHERE seq BETWEEN ? AND ? AND {_WHICH[which]}",
        (first_seq, last_seq),
    ).fetchone()
    if count and (
        different != count or first < first_seq or last > last_seq
    ):  # SQLite stops at the first that is beyond
        raise malformed("rows out of order")
    return Deleted(count, int(size), first or 0, last or 0, int(crc_sum))


def keep_rows(db: sqlite3.Connection, state: State, first_seq: int, last_seq: int, acked_us: int) -> State:
    """Keep rows that waited, as acknowledged when the age clock had that count; returns the state without them.

    Rows of format 1, whose checksum does not cover this, are deleted.

    Raises:
        sqlite3.DatabaseError: A row is not as it was written.
    """
    if first_seq < state.checked_from:
        last_old = min(last_seq, state.checked_from - 1)
        state = state.without(delete_rows(db, first_seq, last_old, "waiting"))
        first_seq = last_old + 1
    kept = _counted(db, first_seq, last_seq, "waiting")
    found = db.execute(
        f"SELECT seq, age_us, crc FROM rows WHERE seq BETWEEN ? AND ? AND {_WHICH['waiting']}",  # noqa: S608
        (first_seq, last_seq),
    ).fetchall()
    if not all(whole(value) for row in found for value in row):
        raise malformed("a row has changed")
    db.executemany(
        "UPDATE rows SET acked_us = ?, crc = ? WHERE seq = ?",
        [
            (acked_us, acknowledged_checksum(state.incarnation, seq, age_us, crc, acked_us), seq)
            for seq, age_us, crc in found
        ],
    )
    return state.without(kept).with_kept(kept)


def kept_after(db: sqlite3.Connection, seq: int, limit: int) -> list[StoredRow]:
    """Return the oldest kept rows with a higher sequence number, ascending."""
    query = f"SELECT {_ROW} FROM rows WHERE seq > ? AND {_WHICH['kept']} ORDER BY seq LIMIT ?"  # noqa: S608 - own words
    return db.execute(query, (seq, limit)).fetchall()


def wait_again(db: sqlite3.Connection, state: State, rows: Sequence[StoredRow]) -> State:
    """Make kept rows wait again; returns the state with them."""
    waiting = [
        (row_checksum(state.incarnation, seq, age_us, None, payload), seq, len(payload))
        for seq, age_us, _, payload, _ in rows
    ]
    db.executemany("UPDATE rows SET acked_us = NULL, crc = ? WHERE seq = ?", [row[:2] for row in waiting])
    again = Deleted(len(waiting), sum(row[2] for row in waiting), 0, 0, sum(row[0] for row in waiting))
    return state.with_waiting(again)


def rewrite_rows(db: sqlite3.Connection, state: State, rows: Sequence[Row]) -> State:
    """Replace the payloads of those rows that wait and are intact; returns the state with them."""
    for seq, payload in rows:
        for row in rows_numbered(db, [seq]):
            if not is_intact(row, state.incarnation, state.checked_from):
                continue
            _, age_us, crc, old, _ = row
            new_crc = row_checksum(state.incarnation, seq, age_us, None, payload)
            db.execute("UPDATE rows SET payload = ?, crc = ? WHERE seq = ?", (payload, new_crc, seq))
            grown = len(payload) - len(old)
            state = replace(state, payload_bytes=state.payload_bytes + grown, crc_sum=state.crc_sum + new_crc - crc)
    return state


def all_rows(db: sqlite3.Connection) -> sqlite3.Cursor:
    """Return a cursor of every row, also of those that do not wait; an open one keeps the file locked after closing."""
    return db.execute(f"SELECT {_ROW} FROM rows ORDER BY seq")  # noqa: S608 - own words


def rows_between(db: sqlite3.Connection, first_seq: int, last_seq: int) -> sqlite3.Cursor:
    """Return a cursor of the rows from first to last included, ascending."""
    return db.execute(f"SELECT {_ROW} FROM rows WHERE seq BETWEEN ? AND ? ORDER BY seq", (first_seq, last_seq))  # noqa: S608


def rows_after(db: sqlite3.Connection, seq: int, limit: int) -> list[StoredRow]:
    """Return the oldest rows that wait and have a higher sequence number, ascending."""
    query = f"SELECT {_ROW} FROM rows WHERE seq > ? AND {_WHICH['waiting']} ORDER BY seq LIMIT ?"  # noqa: S608 - own words
    return db.execute(query, (seq, limit)).fetchall()


def rows_numbered(db: sqlite3.Connection, seqs: Sequence[int]) -> list[StoredRow]:
    """Return those rows that wait, ascending; at most 500 at once."""
    marks = ",".join("?" * len(seqs))
    query = f"SELECT {_ROW} FROM rows WHERE seq IN ({marks}) AND {_WHICH['waiting']} ORDER BY seq"  # noqa: S608 - own words
    return db.execute(query, tuple(seqs)).fetchall()


def last_to_drop(db: sqlite3.Connection, excess_rows: int, excess_bytes: int, which: Which) -> int:
    """Return the row up to which all such rows must go to remove that many rows and bytes; 0 for none."""
    last = 0
    query = f"SELECT seq, coalesce(length(CAST(payload AS BLOB)), 0) FROM rows WHERE {_WHICH[which]} ORDER BY seq"  # noqa: S608
    for seq, size in db.execute(query):
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


# Gaps: dropped observations, until the gallery knows of them.


def note_gap(db: sqlite3.Connection, incarnation: str, gap: Gap) -> None:
    """Add a gap: as part of an open one of the same reason, if no other lies between.

    Raises:
        sqlite3.DatabaseError: A gap is not as it was written.
    """
    before = _gaps(db, incarnation, f"first_seq < {gap.first_seq} ORDER BY first_seq DESC LIMIT 1")
    if before:
        open_gap, sealed = before[0]
        if (open_gap.reason, sealed) == (gap.reason, 0):
            last_seq = max(open_gap.last_seq, gap.last_seq)
            gap = Gap(open_gap.first_seq, last_seq, open_gap.count + gap.count, gap.reason)
    write_gap(db, incarnation, gap, 0)
    if db.execute("SELECT count(*) FROM gaps").fetchone()[0] > MOST_GAPS:
        _merge_oldest_open(db, incarnation)


def seal_gaps(db: sqlite3.Connection, incarnation: str) -> list[Gap]:
    """Return the gaps to send; they do not grow after this, so an acknowledgement covers all that they hold.

    While sealed gaps wait for their acknowledgement, those are returned again, and no others.

    Raises:
        sqlite3.DatabaseError: A gap is not as it was written.
    """
    gaps = _gaps(db, incarnation)
    sealed = [gap for gap, is_sealed in gaps if is_sealed]
    if sealed:
        return sealed
    for gap, _ in gaps:
        write_gap(db, incarnation, gap, 1)
    return [gap for gap, _ in gaps]


def intact_gaps(db: sqlite3.Connection, incarnation: str) -> list[tuple[Gap, int]]:
    """Return the gaps of a damaged file that can be read and are as they were written."""
    intact = []
    with contextlib.suppress(sqlite3.Error):
        for found in db.execute(f"SELECT {_GAP} FROM gaps").fetchall():  # noqa: S608 - own words
            with contextlib.suppress(sqlite3.DatabaseError):
                intact.append(verified_gap(found, incarnation))
    return intact


def delete_gaps(db: sqlite3.Connection, ranges: tuple[tuple[int, int], ...]) -> None:
    """Delete gaps that the gallery has stored; a gap that it cannot have seen as it is stays."""
    db.executemany("DELETE FROM gaps WHERE first_seq = ? AND last_seq = ? AND sealed = 1", ranges)


def with_gap(db: sqlite3.Connection, state: State, gap: Gap) -> State:
    """Declare observations that are dropped; returns the state that counts them."""
    note_gap(db, state.incarnation, gap)
    dropped = {**state.dropped, gap.reason: state.dropped[gap.reason] + gap.count}
    return with_gaps(db, replace(state, dropped=dropped))


def note_loss(db: sqlite3.Connection, state: State, count: int, reason: GapReason = "lost") -> State:
    """Declare observations that have no sequence number, or whose is not known: each spends a new one."""
    if not count:
        return state
    first_seq = state.next_seq
    state = replace(state, next_seq=first_seq + count, given=state.given + count)
    return with_gap(db, state, Gap(first_seq, first_seq + count - 1, count, reason))


def with_gaps(db: sqlite3.Connection, state: State) -> State:
    """Return the state with the gaps that are there, counted.

    Raises:
        sqlite3.DatabaseError: A gap is not as it was written.
    """
    gaps = _gaps(db, state.incarnation)
    return replace(state, gaps=len(gaps), in_gaps=sum(gap.count for gap, _ in gaps))


def _merge_oldest_open(db: sqlite3.Connection, incarnation: str) -> None:
    pair = [gap for gap, _ in _gaps(db, incarnation, "sealed = 0 ORDER BY first_seq LIMIT 2")]
    if len(pair) < 2:
        return
    db.executemany("DELETE FROM gaps WHERE first_seq = ?", [(gap.first_seq,) for gap in pair])
    larger = max(pair, key=lambda gap: gap.count)
    last_seq, count = max(gap.last_seq for gap in pair), sum(gap.count for gap in pair)
    write_gap(db, incarnation, Gap(pair[0].first_seq, last_seq, count, larger.reason), 0)


def write_gap(db: sqlite3.Connection, incarnation: str, gap: Gap, sealed: int) -> None:
    """Write a gap; ``sealed`` is 1 if it has been sent and may not grow."""
    db.execute(
        "INSERT OR REPLACE INTO gaps (first_seq, last_seq, count, reason, sealed, crc) VALUES (?, ?, ?, ?, ?, ?)",
        (gap.first_seq, gap.last_seq, gap.count, gap.reason, sealed, gap_checksum(incarnation, gap, sealed)),
    )


def _gaps(db: sqlite3.Connection, incarnation: str, where: str = "1 ORDER BY first_seq") -> list[tuple[Gap, int]]:
    query = f"SELECT {_GAP} FROM gaps WHERE {where}"  # noqa: S608 - own words
    return [verified_gap(found, incarnation) for found in db.execute(query).fetchall()]


# State.


def load_state(db: sqlite3.Connection) -> tuple[State, AgeState]:
    """Return what the file should hold, by its own count, and the age clock's state.

    Raises:
        sqlite3.DatabaseError: The state is damaged.
    """
    found = db.execute(f"SELECT {', '.join(STATE_COLUMNS)}, crc FROM state").fetchone()  # noqa: S608 - own words
    if found is None:
        raise malformed("no state")
    return verified_state(found)


def save_state(db: sqlite3.Connection, state: State, age: AgeState) -> None:
    """Write the state.

    Raises:
        sqlite3.DatabaseError: Its place is damaged.
    """
    columns = ", ".join(f"{name} = ?" for name in (*STATE_COLUMNS, "crc"))
    if db.execute(f"UPDATE state SET {columns} WHERE id = 1", state_columns(state, age)).rowcount != 1:  # noqa: S608
        raise malformed("no state")
