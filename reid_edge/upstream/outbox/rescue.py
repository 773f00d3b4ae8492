"""Another file in place of a damaged one: what is intact of that is copied, and the rest is declared as lost.

Each row, each gap and the state prove themselves by their checksums, so what is copied is what was written.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from reid_edge.upstream.outbox import database, tables
from reid_edge.upstream.outbox.age_clock import AgeState
from reid_edge.upstream.outbox.audit import Audit, Tally, declared
from reid_edge.upstream.outbox.connection import open_file
from reid_edge.upstream.outbox.mark import Mark
from reid_edge.upstream.outbox.records import MOST, NOTHING_DROPPED, State, StoredRow, is_intact

_LOG = logging.getLogger(__name__)
#: Attempts to read beyond damaged pages that fail one after another: the end of one is found within 200 or so.
_MOST_FAILURES = 1000


def build_fresh(path: Path, mark: Mark | None, *, lost: int) -> None:
    """Make a file of a new incarnation for an outbox, whole or not at all.

    Args:
        path: The outbox.
        mark: Mark of the file that was there before; None if there was none.
        lost: Number of observations that were lost with it: the new file declares them.

    Raises:
        sqlite3.Error: It cannot be written.
        OSError: It cannot be written.
    """
    database.build(path, lambda db: _fresh(db, lost, mark))


def build_rescued(
    path: Path, known: tuple[State, AgeState] | None, mark: Mark | None, *, stale_possible: bool
) -> tuple[int, int]:
    """Make a file for an outbox whose own is damaged, with what is intact of that, whole or not at all.

    Args:
        path: The outbox.
        known: Its state as of the last commit; None if that can only be read in the file.
        mark: Its mark.
        stale_possible: Rows that had been delivered may be found in it, since its log may be damaged.

    Raises:
        sqlite3.Error: The new file cannot be written, or another program has the damaged one open.
        OSError: It cannot be written.

    Returns:
        Numbers of observations that are copied, and that are declared as lost.
    """
    try:
        database.pad(path)
        copied = database.build(path, lambda db: _rescued(db, path, known, mark, stale_possible=stale_possible))
    except (sqlite3.Error, OSError) as error:
        if "locked" in str(error):
            raise
        _LOG.warning("what is intact of the outbox %s cannot be copied: %s", path, error)
        copied = None
    if copied is not None:
        return copied
    lost = _estimated(path) if mark is None else mark.undelivered
    build_fresh(path, mark, lost=lost)
    return 0, lost


def _fresh(db: sqlite3.Connection, lost: int, mark: Mark | None) -> None:
    """Make the tables of a new incarnation, which declares what was lost with the one before, to the same gallery."""
    predecessor, destination = ("", "") if mark is None else (mark.incarnation, mark.destination)
    state = State(
        incarnation=secrets.token_hex(8), dropped=NOTHING_DROPPED, predecessor=predecessor, destination=destination
    )
    tables.create_tables(db)
    tables.save_state(db, tables.note_loss(db, state, lost), AgeState())


def _estimated(damaged: Path) -> int:
    """Return how many rows a damaged file of format 1 holds as far as it can be read: it has no mark."""
    with (
        contextlib.closing(open_file(damaged)) as source,
        contextlib.suppress(sqlite3.Error),
    ):
        source.execute("PRAGMA locking_mode = EXCLUSIVE")
        return sum(1 for _ in source.execute("SELECT seq FROM rows"))
    return 0


def _rescued(
    db: sqlite3.Connection,
    damaged: Path,
    known: tuple[State, AgeState] | None,
    mark: Mark | None,
    *,
    stale_possible: bool,
) -> tuple[int, int] | None:
    """Make tables that hold what is intact of a damaged file, under its incarnation.

    Returns:
        As :func:`build_rescued`; None if nothing of the file is intact: then a new incarnation should begin.
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
