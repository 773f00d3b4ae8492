"""A comparison of what an outbox's file holds, at opening, with what it should hold: the rest is declared as lost.

A file can be sound for SQLite and yet lack rows: its log was cut, pages of several commits are mixed, an older copy of
the file was put back.  The state counts what waits, with a sum of checksums; so does the mark, which tells how far the
file had come.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

from reid_edge.upstream.observation import Gap
from reid_edge.upstream.outbox.age_clock import AgeState
from reid_edge.upstream.outbox.mark import Mark
from reid_edge.upstream.outbox.records import State, StoredRow, is_intact, malformed
from reid_edge.upstream.outbox.tables import all_rows, delete_rows, load_state, note_loss, with_gap, with_gaps


@dataclass
class Tally:
    """Counts of intact rows.

    Attributes:
        rows: Rows that wait.
        payload_bytes: Bytes of their payloads.
        crc_sum: Sum of their checksums.
        kept: Rows that are acknowledged and kept.
        kept_bytes: Bytes of their payloads.
        highest: Highest sequence number, of all rows.
        age_us: Highest count of the age clock.
        damaged: Sequence numbers of rows that are not as they were written.
        damaged_sum: Sum of the checksums that are stored with them.
    """

    rows: int = 0
    payload_bytes: int = 0
    crc_sum: int = 0
    kept: int = 0
    kept_bytes: int = 0
    highest: int = 0
    age_us: int = 0
    damaged: list[int] = field(default_factory=list)
    damaged_sum: int = 0

    def intact(self, rows: Iterable[StoredRow], state: State, age: AgeState) -> Iterator[StoredRow]:
        """Count rows, and yield those that are intact."""
        for row in rows:
            seq, age_us, crc, payload, acked_us = row
            if not is_intact(row, state.incarnation, state.checked_from) or (
                seq < state.checked_from and age_us > age.age_us  # format 1 had no checksum of it
            ):
                self.damaged.append(seq)
                self.damaged_sum += crc if type(crc) is int else 0
                continue
            self.highest, self.age_us = max(self.highest, seq), max(self.age_us, age_us)
            if acked_us is None:
                self.rows += 1
                self.payload_bytes += len(payload)
                self.crc_sum += crc
            else:
                self.kept += 1
                self.kept_bytes += len(payload)
            yield row

    def accounts_for(self, expected: State) -> bool:
        """Return whether the rows that are expected are there, and no others, though some are damaged."""
        rows, crc_sum = self.rows + len(self.damaged), self.crc_sum + self.damaged_sum
        return (rows, crc_sum) == (expected.rows, expected.crc_sum)

    def counted(self, state: State) -> State:
        """Return the state with what was counted; its next number is above all."""
        return replace(
            state,
            rows=self.rows,
            payload_bytes=self.payload_bytes,
            crc_sum=self.crc_sum,
            kept=self.kept,
            kept_bytes=self.kept_bytes,
            next_seq=max(state.next_seq, self.highest + 1),
        )


@dataclass(frozen=True)
class Audit:
    """A file that was read whole.

    Attributes:
        expected: What it should hold by its own count.
        found: What it holds.
        age: The age clock's state.
        damaged: Rows that are not as they were written.
        stale_possible: Rows that had been delivered may be among those found, in place of others: pages of several
            commits may be mixed after damage to the log.
    """

    expected: State
    found: State
    age: AgeState
    damaged: list[int]
    stale_possible: bool


def audited(db: sqlite3.Connection, *, stale_possible: bool) -> Audit:
    """Read a file whole, but for the tails of features, so that damage shows now rather than in a month.

    Raises:
        sqlite3.DatabaseError: It is damaged in more than single rows.
    """
    (problem,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if problem != "ok":
        raise malformed(" ".join(str(problem).split()))
    expected, age = load_state(db)
    tally = Tally()
    with closing(all_rows(db)) as rows:
        for _ in tally.intact(rows, expected, age):
            pass
    found = with_gaps(db, tally.counted(expected))
    age = replace(age, age_us=max(age.age_us, tally.age_us))
    return Audit(expected, found, age, tally.damaged, stale_possible and not tally.accounts_for(expected))


def settled(db: sqlite3.Connection, audit: Audit, mark: Mark | None) -> tuple[State, int]:
    """Delete damaged rows, and declare what is missing.

    Returns:
        The state, and how many observations were declared as lost.
    """
    for seq in audit.damaged:
        if not delete_rows(db, seq, seq).rows:
            raise malformed("a row cannot be found by its number")
    return declared(db, audit, mark)


def declared(db: sqlite3.Connection, audit: Audit, mark: Mark | None) -> tuple[State, int]:
    """Declare what is missing by the state and by the mark; returns the state, and how many are missing."""
    state = audit.found
    if mark is None or mark.incarnation == state.predecessor:
        lost = _missing(audit.expected, state, stale_possible=audit.stale_possible)
        return note_loss(db, state, lost), lost
    if mark.incarnation != state.incarnation:  # another file lies in the place of that one
        lost = _missing(audit.expected, state, stale_possible=audit.stale_possible) + mark.undelivered
        return replace(note_loss(db, state, lost), predecessor=mark.incarnation), lost
    state, lost = _up_to_mark(db, audit, mark)
    return replace(state, next_seq=max(state.next_seq, mark.next_seq), given=max(state.given, mark.given)), lost


def _up_to_mark(db: sqlite3.Connection, audit: Audit, mark: Mark) -> tuple[State, int]:
    expected = audit.expected
    found = replace(audit.found, destination=audit.found.destination or mark.destination)  # a file may be older
    if _has_rows_of(mark, found):
        lost = max(0, mark.in_gaps - found.in_gaps)
    elif mark.given <= expected.given:
        lost = _missing(expected, found, stale_possible=audit.stale_possible)
    elif not _has_rows_of(expected, found):
        lost = mark.undelivered if audit.stale_possible else max(0, mark.undelivered - found.undelivered)
    else:  # the file is whole, and older
        lost = min(mark.given - expected.given, mark.undelivered)
        last_seq = max(mark.next_seq, found.next_seq + lost) - 1
        state = replace(found, next_seq=last_seq + 1)
        return with_gap(db, state, Gap(found.next_seq, last_seq, lost, "lost")), lost
    return note_loss(db, replace(found, next_seq=max(found.next_seq, mark.next_seq)), lost), lost


def _missing(expected: State, found: State, *, stale_possible: bool) -> int:
    """Return how many of the undelivered observations that are expected can be missing at most."""
    if _has_rows_of(expected, found):
        missing = 0
    elif stale_possible or found.rows >= expected.rows:
        missing = max(1, expected.rows)
    else:
        missing = expected.rows - found.rows
    return missing + max(0, expected.in_gaps - found.in_gaps)


def _has_rows_of(expected: State | Mark, found: State) -> bool:
    return (expected.rows, expected.crc_sum) == (found.rows, found.crc_sum)
