"""Another file in place of a damaged one: what is intact of that is copied, and the rest is declared as lost.

Each row, each gap and the state prove themselves by their checksums, so what is copied is what was written.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from reid_edge.upstream.outbox import tables
from reid_edge.upstream.outbox.age_clock import AgeState
from reid_edge.upstream.outbox.audit import Audit, Tally, declared
from reid_edge.upstream.outbox.connection import open_file
from reid_edge.upstream.outbox.mark import Mark
from reid_edge.upstream.outbox.records import MOST, NOTHING_DROPPED, State, StoredRow, is_intact

#: Attempts to read beyond damaged pages that fail one after another: the end of one is found within 200 or so.
_MOST_FAILURES = 1000


def fresh(db: sqlite3.Connection, lost: int, mark: Mark | None) -> None:
    """Make the tables of a new incarnation, which declares what was lost with the one before, to the same gallery."""
    predecessor, destination = ("", "") if mark is None else (mark.incarnation, mark.destination)
    state = State(
        incarnation=secrets.token_hex(8), dropped=NOTHING_DROPPED, predecessor=predecessor, destination=destination
    )
    tables.create_tables(db)
    tables.save_state(db, tables.note_loss(db, state, lost), AgeState())


def estimated(damaged: Path) -> int:
    """Return how many rows a damaged file of format 1 holds as far as it can be read: it has no mark."""
    with (
        contextlib.closing(open_file(damaged)) as source,
        contextlib.suppress(sqlite3.Error),
    ):
        source.execute("PRAGMA locking_mode = EXCLUSIVE")
        return sum(1 for _ in source.execute("SELECT seq FROM rows"))
    return 0


def rescued(
    db: sqlite3.Connection,
    damaged: Path,
    known: tuple[State, AgeState] | None,
    mark: Mark | None,
    *,
    stale_possible: bool,
) -> tuple[int, int] | None:
    """Make tables that hold what is intact of a damaged file, under its incarnation.

    Args:
        db: Gets the tables.
        damaged: The file.
        known: Its state as of the last commit; None if that can only be read in the file.
        mark: Its mark.
        stale_possible: Rows that had been delivered may be found in it, since its log may be damaged.

    Raises:
        sqlite3.Error: The new tables cannot be written, or another program has the damaged file open.

    Returns:
        Numbers of observations that are copied, and that are declared as lost; None if nothing of the file is intact:
        then a new incarnation should begin.
    """
    with contextlib.closing(open_file(damaged)) as source:
        with contextlib.suppress(sqlite3.Error):
            source.execute("PRAGMA locking_mode = EXCLUSIVE")
        verified = known or _read_state(source)
        told = verified or _marked_state(mark)
        if told is None:
            return None
        state, age = told
        tables.create_tables(db)
        tally = Tally()
        for row in tally.intact(_intact_rows(source, state), state, age):
            tables.copy_rows(db, [row])
        for gap, sealed in tables.intact_gaps(source, state.incarnation):
            tables.write_gap(db, state.incarnation, gap, sealed)
    found = tables.with_gaps(db, tally.counted(state))
    if verified is None and not tally.highest and not found.gaps:
        return None
    state, lost = declared(db, Audit(state, found, age, [], stale_possible and not tally.accounts_for(state)), mark)
    tables.save_state(db, state, replace(age, age_us=max(age.age_us, tally.age_us)))
    return tally.rows, lost


def _read_state(source: sqlite3.Connection) -> tuple[State, AgeState] | None:
    try:
        return tables.load_state(source)
    except sqlite3.Error:
        return None


def _marked_state(mark: Mark | None) -> tuple[State, AgeState] | None:
    if mark is None:
        return None
    return State(dropped=NOTHING_DROPPED, **asdict(mark)), AgeState()


def _intact_rows(source: sqlite3.Connection, state: State) -> Iterator[StoredRow]:
    """Yield the intact rows, past damaged pages: a range of numbers that fails is halved, and tried again."""
    ranges, failures = [(1, MOST)], 0
    while ranges and failures < _MOST_FAILURES:
        first, last = ranges.pop()
        try:
            with contextlib.closing(tables.rows_between(source, first, last)) as rows:
                for row in rows:
                    if is_intact(row, state.incarnation, state.checked_from) and row[0] >= first:
                        yield row
                        first, failures = row[0] + 1, 0
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise
            failures += 1
            middle = (first + last) // 2
            if first < last:
                ranges += [(middle + 1, last), (first, middle)]
