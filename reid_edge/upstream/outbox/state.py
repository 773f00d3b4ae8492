"""What an outbox knows without asking its file."""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass, replace

from reid_edge.upstream.observation import GapReason
from reid_edge.upstream.outbox import gaps
from reid_edge.upstream.outbox.age import AgeState
from reid_edge.upstream.outbox.rows import Deleted


@dataclass(frozen=True)
class State:
    """Replaced as a whole, after each commit.

    Attributes:
        epoch: Names the file.
        next_seq: Sequence number of the next row.
        rows: How many wait.
        payload_bytes: Of those.
        gaps: How many wait.
        dropped: Observations dropped since the file was made.
    """

    epoch: str
    next_seq: int
    rows: int
    payload_bytes: int
    gaps: int
    dropped: dict[GapReason, int]

    def with_rows(self, count: int, payload_bytes: int) -> State:
        """After rows were added."""
        return replace(
            self,
            next_seq=self.next_seq + count,
            rows=self.rows + count,
            payload_bytes=self.payload_bytes + payload_bytes,
        )

    def without(self, gone: Deleted) -> State:
        """After rows were deleted."""
        return replace(self, rows=self.rows - gone.rows, payload_bytes=self.payload_bytes - gone.payload_bytes)


def load(db: sqlite3.Connection) -> tuple[State, AgeState]:
    """Read the state, and every page but those of a feature's tail: damage shows now rather than in a month.

    Raises:
        sqlite3.DatabaseError: The file is damaged.
    """
    found = db.execute("SELECT * FROM state").fetchone()
    count, size, highest = db.execute("SELECT count(*), total(length(payload)), max(seq) FROM rows").fetchone()
    if found is None or (highest or 0) >= found[2]:
        raise sqlite3.DatabaseError("malformed: no state, or rows beyond the last")
    _, epoch, next_seq, full, expired, lost, *age = found
    dropped: dict[GapReason, int] = {"full": full, "expired": expired, "lost": lost}
    return State(epoch, next_seq, count, int(size), gaps.count(db), dropped), AgeState(*age)


def save(db: sqlite3.Connection, state: State, age: AgeState) -> None:
    """Write what the file cannot tell by counting."""
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
