"""Records of an outbox's file, verified before they are believed.

SQLite does not enforce a schema on reading: after damage to the disk a NOT NULL column may read NULL, and a number or a
name may be another.  So each record has a checksum over all of its columns, and nothing is used of one that fails.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, get_args

from reid_edge.upstream.observation import Gap, GapReason
from reid_edge.upstream.outbox.age_clock import AgeState

#: (sequence number, encoded observation).
Row = tuple[int, bytes]
#: (sequence number, age clock's count when put, checksum, payload, age clock's count when acknowledged or None), of any
#: type, as the file has them.
StoredRow = tuple[Any, Any, Any, Any, Any]
NOTHING_DROPPED: dict[GapReason, int] = {"full": 0, "expired": 0, "lost": 0}
#: SQLite's largest integer.
MOST = 2**63 - 1


def malformed(what: str) -> sqlite3.DatabaseError:
    """Return the error that SQLite raises for a damaged file, for damage that SQLite does not notice."""
    return sqlite3.DatabaseError(f"malformed: {what}")


def whole(value: object, least: int = 0) -> bool:
    """Return whether a value is an integer that the file can hold, not below ``least``."""
    return type(value) is int and least <= value <= MOST


# Rows.


def row_checksum(incarnation: str, seq: int, age_us: int, acked_us: int | None, payload: bytes) -> int:
    """Return the checksum of a row: two CRC-32, so that a new ``acked_us`` can be entered without the payload."""
    return zlib.crc32(payload) ^ _head_checksum(incarnation, seq, age_us, acked_us)


def acknowledged_checksum(incarnation: str, seq: int, age_us: int, crc: int, acked_us: int) -> int:
    """Return the checksum of a row that waited until now, and is acknowledged."""
    return crc ^ _head_checksum(incarnation, seq, age_us, None) ^ _head_checksum(incarnation, seq, age_us, acked_us)


def is_intact(row: StoredRow, incarnation: str, checked_from: int) -> bool:
    """Return whether a row is as it was written.

    Args:
        row: As the file has it.
        incarnation: The file's.
        checked_from: Rows below were written in format 1, whose checksum covers the payload alone.
    """
    seq, age_us, crc, payload, acked_us = row
    if not (whole(seq, 1) and whole(age_us) and type(payload) is bytes and (acked_us is None or whole(acked_us))):
        return False
    if crc == row_checksum(incarnation, seq, age_us, acked_us, payload):
        return True
    return bool(seq < checked_from and acked_us is None and crc == zlib.crc32(payload))


def _head_checksum(incarnation: str, seq: int, age_us: int, acked_us: int | None) -> int:
    head = struct.pack("<qqq", seq, age_us, -1 if acked_us is None else acked_us)
    return zlib.crc32(head, zlib.crc32(incarnation.encode()))


# Gaps.


def gap_checksum(incarnation: str, gap: Gap, sealed: int) -> int:
    """Return the checksum of a gap."""
    return _checksum([incarnation, *astuple(gap), sealed])


def verified_gap(found: Sequence[Any], incarnation: str) -> tuple[Gap, int]:
    """Return a gap, and 1 if it is sealed, from its columns and its checksum.

    Raises:
        sqlite3.DatabaseError: It is not as it was written.
    """
    *columns, sealed, crc = found
    gap = checked_gap(columns)
    if sealed not in (0, 1) or crc != gap_checksum(incarnation, gap, sealed):
        raise malformed("a gap has changed")
    return gap, sealed


def checked_gap(columns: Sequence[Any]) -> Gap:
    """Return a gap from its columns.

    Raises:
        sqlite3.DatabaseError: They are not those of a gap.
    """
    first_seq, last_seq, count, reason = columns
    if not (whole(first_seq, 1) and whole(last_seq, first_seq) and whole(count, 1) and reason in get_args(GapReason)):
        raise malformed("a gap has changed")
    return Gap(first_seq, last_seq, count, reason)


# State.


@dataclass(frozen=True)
class Deleted:
    """Rows that were deleted, kept or made to wait again; all is 0 if there were none."""

    rows: int
    payload_bytes: int
    first_seq: int
    last_seq: int
    crc_sum: int


@dataclass(frozen=True, kw_only=True)
class State:
    """Summary of an outbox, known without reading its file; replaced as a whole after each commit.

    Attributes:
        incarnation: Names the file.
        next_seq: Sequence number of the next row.
        rows: Number of rows that wait.
        payload_bytes: Bytes of their encoded observations.
        gaps: Number of gaps.
        in_gaps: Observations that they count, together.
        crc_sum: Sum of the checksums of the rows that wait: tells that they are those that should.
        kept: Number of rows that are acknowledged and kept.
        kept_bytes: Bytes of their encoded observations.
        given: Observations that were put into this file, or declared in it without having been put.
        dropped: Observations dropped since the file was made, by reason.
        destination: Where the rows are to go: the upstream URI without secrets; "" if not known yet.
        replay: Text of :class:`~reid_edge.upstream.outbox.notes.Notes`.
        predecessor: Incarnation of the file that this one replaced, whose loss is declared here; "" for none.
        checked_from: Rows below were written in format 1, whose checksum covers the payload alone.
    """

    incarnation: str
    next_seq: int = 1
    rows: int = 0
    payload_bytes: int = 0
    gaps: int = 0
    in_gaps: int = 0
    crc_sum: int = 0
    kept: int = 0
    kept_bytes: int = 0
    given: int = 0
    dropped: dict[GapReason, int]
    destination: str = ""
    replay: str = ""
    predecessor: str = ""
    checked_from: int = 0

    @property
    def undelivered(self) -> int:
        """Number of observations that wait, and of those that are dropped without the gallery knowing it yet."""
        return self.rows + self.in_gaps

    def with_rows(self, count: int, payload_bytes: int, crc_sum: int) -> State:
        """Return the state after rows were added."""
        return replace(
            self,
            next_seq=self.next_seq + count,
            given=self.given + count,
            rows=self.rows + count,
            payload_bytes=self.payload_bytes + payload_bytes,
            crc_sum=self.crc_sum + crc_sum,
        )

    def with_kept(self, kept: Deleted) -> State:
        """Return the state after rows that do not wait any more were kept."""
        return replace(self, kept=self.kept + kept.rows, kept_bytes=self.kept_bytes + kept.payload_bytes)

    def without_kept(self, gone: Deleted) -> State:
        """Return the state after kept rows were deleted."""
        return replace(
            self, kept=max(0, self.kept - gone.rows), kept_bytes=max(0, self.kept_bytes - gone.payload_bytes)
        )

    def with_waiting(self, again: Deleted) -> State:
        """Return the state after kept rows were made to wait again."""
        return replace(
            self.without_kept(again),
            rows=self.rows + again.rows,
            payload_bytes=self.payload_bytes + again.payload_bytes,
            crc_sum=self.crc_sum + again.crc_sum,
        )

    def without(self, gone: Deleted) -> State:
        """Return the state after rows that waited were deleted."""
        return replace(
            self,
            rows=max(0, self.rows - gone.rows),
            payload_bytes=max(0, self.payload_bytes - gone.payload_bytes),
            crc_sum=max(0, self.crc_sum - gone.crc_sum),
        )


#: Columns of the state, in the order of the checksum; the first 11 are those of format 1.
STATE_COLUMNS = (
    *("epoch", "next_seq", "dropped_full", "dropped_expired", "dropped_lost"),
    *("age_us", "boot", "boot_us", "steady_wall_us", "steady_age_us", "steady_boot"),
    *("destination", "replay", "predecessor", "checked_from", "given", "waiting", "in_gaps", "crc_sum"),
)
_TEXTS = {"epoch", "boot", "steady_boot", "destination", "replay", "predecessor"}


def state_columns(state: State, age: AgeState) -> list[int | str]:
    """Return what the file keeps of a state, in the order of ``STATE_COLUMNS``, and its checksum."""
    dropped = [state.dropped["full"], state.dropped["expired"], state.dropped["lost"]]
    later = [state.destination, state.replay, state.predecessor, state.checked_from, state.given, state.rows]
    columns = [state.incarnation, state.next_seq, *dropped, *astuple(age), *later, state.in_gaps, state.crc_sum]
    return [*columns, _checksum(columns)]


def verified_state(found: Sequence[Any]) -> tuple[State, AgeState]:
    """Return the state, from its columns and its checksum.

    Raises:
        sqlite3.DatabaseError: It is not as it was written.
    """
    *columns, crc = found
    state, age = checked_state(columns)
    if crc != _checksum(columns):
        raise malformed("the state has changed")
    return state, age


def checked_state(columns: Sequence[Any]) -> tuple[State, AgeState]:
    """Return the state from its columns; those of a later format than 1 may be left out.

    Raises:
        sqlite3.DatabaseError: They are not those of a state.
    """
    known = dict(zip(STATE_COLUMNS, columns, strict=False))
    for name, value in known.items():
        if not (type(value) is str if name in _TEXTS else whole(value)):
            raise malformed(f"the state's {name} is {value!r:.60}")
    incarnation, next_seq, full, expired, lost, *age = columns[:11]
    if not (incarnation and next_seq):
        raise malformed("the state has no incarnation or number")
    state = State(
        incarnation=incarnation,
        next_seq=next_seq,
        dropped={"full": full, "expired": expired, "lost": lost},
        rows=known.get("waiting", 0),
        **{name: known[name] for name in STATE_COLUMNS[11:] if name in known and name != "waiting"},
    )
    return state, AgeState(*age)


def _checksum(columns: Sequence[object]) -> int:
    return zlib.crc32(json.dumps(columns).encode())
