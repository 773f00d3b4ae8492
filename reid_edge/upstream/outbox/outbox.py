"""Observations on disk until the receiving end has them: bounded, and honest about what it had to drop."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from reid_edge.errors import OutboxError
from reid_edge.upstream.message import Encoding, encode_observation
from reid_edge.upstream.observation import Ack, Gap, GapReason, Observation
from reid_edge.upstream.outbox import database, gaps, rows
from reid_edge.upstream.outbox.age import Reading, read_clocks
from reid_edge.upstream.outbox.database import Synchronous
from reid_edge.upstream.outbox.file import OutboxFile, SetAsideError
from reid_edge.upstream.outbox.rows import Payload, Row
from reid_edge.upstream.outbox.state import State

Result = TypeVar("Result")
_LOG = logging.getLogger(__name__)
MOST_RETENTION_S = 10 * 365 * 86400


class Outbox:
    """A queue of encoded observations in one SQLite file.

    What :meth:`put` has returned from survives the end of the process and, with ``synchronous="FULL"``, of the power.
    A row leaves when it is acknowledged, or when it is dropped: the oldest go when there are too many or when they are
    too old.  What was dropped is counted, and declared by :meth:`gaps` until that is acknowledged too.

    A damaged file is set aside beside the outbox as ``NAME.corrupt-TIME``, logged, kept in ``set_aside``, and a new one
    with a new epoch is started, at once.  Sequence numbers grow, and leap at each opening, so that none is given twice
    even if the last commits were lost with the power or an older copy of the file was put back.

    A file that was removed or replaced is noticed at the next :meth:`put`, :meth:`expire` or :meth:`close`: what waited
    in it is declared as lost, what is in its place is set aside, and a new file is started.

    All methods may be called from any thread.

    Args:
        path: The file; folders that are missing are made, for this user alone.
        max_rows: Most rows kept.
        max_bytes: Most bytes of encoded observations kept.  The file takes about a tenth more, its log up to 16 MB.
        retention_s: Rows older than this are dropped by :meth:`expire`; at most ten years.
        synchronous: ``FULL``: each put waits for the disk.  ``NORMAL``: the last puts may be lost with the power, and
            no gap tells of them.
        read_clocks: Looks at the machine's clocks.

    Raises:
        OutboxError: Another process has it, it cannot be written, or a bound makes no sense.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        max_rows: int = 100_000,
        max_bytes: int = 256_000_000,
        retention_s: float = 72 * 3600,
        synchronous: Synchronous = "FULL",
        read_clocks: Callable[[], Reading] = read_clocks,
    ) -> None:
        if max_rows < 1 or max_bytes < 1 or not retention_s > 0:
            raise OutboxError(
                f"max_rows, max_bytes and retention_s must be positive; got {max_rows}, {max_bytes}, {retention_s}."
            )
        if retention_s > MOST_RETENTION_S:
            raise OutboxError(f"retention_s must be at most {MOST_RETENTION_S} (ten years); got {retention_s:g}.")
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._retention_us = int(retention_s * 1e6)
        self._listeners: list[Callable[[], None]] = []
        self._file = OutboxFile(Path(path), synchronous=synchronous, read_clocks=read_clocks)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def set_aside(self) -> list[Path]:
        """Files that were damaged or in the way, since this one was opened."""
        return self._file.set_aside

    @property
    def incarnation(self) -> str:
        """Names this file: 16 hexadecimal digits; ``epoch`` on the wire and in the file."""
        return self._file.state.epoch

    @property
    def depth(self) -> int:
        """How many rows wait."""
        return self._file.state.rows

    @property
    def bytes(self) -> int:
        """How many bytes of encoded observations wait."""
        return self._file.state.payload_bytes

    @property
    def gap_count(self) -> int:
        """How many gaps wait to be acknowledged."""
        return self._file.state.gaps

    @property
    def last_seq(self) -> int:
        """Highest sequence number given; those above it are yet to come."""
        return self._file.state.next_seq - 1

    @property
    def dropped(self) -> dict[GapReason, int]:
        """Observations dropped since the file was made, by reason."""
        return dict(self._file.state.dropped)

    @property
    def oldest_us(self) -> int | None:
        """When the oldest row was put, microseconds since 1970 UTC by the clock as it is now; None if none waits.

        Raises:
            OutboxError: The file cannot be read.
        """
        query = "SELECT age_us FROM rows ORDER BY seq LIMIT 1"
        with self._file.lock:
            oldest = self._file.read(lambda db: db.execute(query).fetchone(), None)
            return None if oldest is None else time.time_ns() // 1000 - (self._file.clock.now_us() - oldest[0])

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each put, in the thread that put."""
        self._listeners.append(listener)

    def put(self, observations: Sequence[Observation], encoding: Encoding = "fp16") -> None:
        """Keep observations: all or none, in one commit.  The oldest rows go where there is no room.

        Raises:
            MessageError: One that cannot be encoded.
            OutboxError: They are not kept, e.g. since the disk is full.  The outbox is as it was before; try again,
                or give them up with :meth:`lose`.
        """
        payloads = [encode_observation(observation, encoding) for observation in observations]
        if not payloads:
            return
        with self._file.lock:
            self._file.check_place()
            try:
                self._insert(payloads)
            except SetAsideError:
                self._insert(payloads)
        for listener in self._listeners:
            listener()

    def lose(self, count: int) -> None:
        """Declare observations that could not be put; the gap is written once the disk takes it."""
        with self._file.lock:
            self._file.unwritten += count

    def pending(self, after_seq: int, limit: int) -> list[Row]:
        """Oldest rows with a higher sequence number: (seq, encoded observation), ascending.

        Rows whose bytes have changed on disk are dropped, as ``lost``.

        Raises:
            OutboxError: The file cannot be read.
        """
        query = "SELECT seq, crc, payload FROM rows WHERE seq > ? ORDER BY seq LIMIT ?"
        found, sound = self._sound(query, (after_seq, limit))
        while found and not sound:
            found, sound = self._sound(query, (after_seq, limit))
        return sound

    def fetch(self, seqs: Sequence[int]) -> list[Row]:
        """Those rows that are still here, ascending; at most 500 at once.

        Raises:
            OutboxError: The file cannot be read.
        """
        marks = ",".join("?" * len(seqs))
        return self._sound(f"SELECT seq, crc, payload FROM rows WHERE seq IN ({marks}) ORDER BY seq", seqs)[1]  # noqa: S608

    def gaps(self) -> list[Gap]:
        """What to declare; the same gaps again until they are acknowledged, though more may have come.

        Raises:
            OutboxError: The file cannot be written.
        """
        if not self.gap_count:
            return []
        try:
            return self._file.write("writing", lambda db, state: (state, gaps.seal(db)))
        except SetAsideError:
            return []

    def acknowledge(self, ack: Ack) -> None:
        """Delete what the receiving end has; an acknowledgement of another epoch is of no concern.

        Raises:
            OutboxError: The file cannot be written; the rows stay, and may be sent again.
        """

        def work(db: sqlite3.Connection, state: State) -> tuple[State, None]:
            for first_seq, last_seq in rows.runs(ack.seqs):
                state = state.without(rows.delete(db, first_seq, last_seq))
            if ack.gaps:
                gaps.forget(db, ack.gaps)
                state = replace(state, gaps=gaps.count(db))
            return state, None

        with self._file.lock, suppress(SetAsideError):
            if ack.epoch == self.incarnation and (ack.seqs or ack.gaps):
                # Losing a deletion with the power only means to send again.
                self._file.write("deleting", work, synchronous="NORMAL")

    def expire(self) -> None:
        """Drop rows that are too old, and overwrite what was deleted, in the file and its log; call every minute.

        Raises:
            OutboxError: The file cannot be written.
        """
        with self._file.lock, suppress(SetAsideError):
            self._file.check_place()
            self._file.clock.settle()
            last = self._file.read(
                lambda db: rows.last_older_than(db, self._file.clock.now_us() - self._retention_us), 0
            )
            if last:
                self._file.write("deleting", lambda db, state: (self._drop(db, state, 0, last, "expired"), None))
            self._declare()
            if self._file.dirty or self.depth:
                self._file.write("writing", lambda db, state: (self._file.saved(db, state), None))
                self._file.read(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), [])
                self._file.dirty = False
            database.remove_aside(self._file.path, older_than_s=self._retention_us / 1e6)

    def close(self) -> None:
        """Close the file; what waits is there when it is opened again."""
        with self._file.lock:
            if self._file.is_open:
                with suppress(OutboxError, SetAsideError):
                    self._file.check_place(closing=True)
                    self._declare()
            self._file.close()

    def _insert(self, payloads: Sequence[Payload]) -> None:
        def work(db: sqlite3.Connection, state: State) -> tuple[State, None]:
            state = self._with_losses(db, state)
            rows.insert(db, state.next_seq, self._file.clock.now_us(), payloads)
            state = state.with_rows(len(payloads), sum(map(len, payloads)))
            last = rows.last_to_drop(db, state.rows - self._max_rows, state.payload_bytes - self._max_bytes)
            if last:
                state = self._drop(db, state, 0, last, "full")
            return self._file.saved(db, state), None

        self._file.write("writing", work)
        self._file.unwritten = 0

    def _declare(self) -> None:
        """Write the gap of what could not be put."""
        if self._file.unwritten:
            self._file.write("writing", lambda db, state: (self._with_losses(db, state), None))
            self._file.unwritten = 0

    def _with_losses(self, db: sqlite3.Connection, state: State) -> State:
        """Spend a sequence number on each observation that could not be put."""
        if not self._file.unwritten:
            return state
        first_seq = state.next_seq
        state = replace(state, next_seq=first_seq + self._file.unwritten)
        return self._noted(db, state, Gap(first_seq, state.next_seq - 1, self._file.unwritten, "lost"))

    def _drop(self, db: sqlite3.Connection, state: State, first_seq: int, last_seq: int, reason: GapReason) -> State:
        """Delete rows and note the gap."""
        gone = rows.delete(db, first_seq, last_seq)
        if not gone.rows:
            return state
        return self._noted(db, state.without(gone), Gap(gone.first_seq, gone.last_seq, gone.rows, reason))

    def _noted(self, db: sqlite3.Connection, state: State, gap: Gap) -> State:
        gaps.note(db, gap)
        dropped = {**state.dropped, gap.reason: state.dropped[gap.reason] + gap.count}
        return self._file.saved(db, replace(state, dropped=dropped, gaps=gaps.count(db)))

    def _sound(self, query: str, parameters: Sequence[int]) -> tuple[int, list[Row]]:
        """How many rows were found, and those whose bytes are as they were put; others are dropped."""
        with self._file.lock:
            none: list[tuple[int, int, Payload]] = []
            found = self._file.read(lambda db: db.execute(query, tuple(parameters)).fetchall(), none)
            damaged = rows.damaged(found)
            with suppress(SetAsideError):
                for seq in damaged:
                    self._lose_row(seq)
            return len(found), [(seq, payload) for seq, _, payload in found if seq not in damaged]

    def _lose_row(self, seq: int) -> None:
        _LOG.warning("row %d of the outbox %s has changed on disk: dropped. Check the disk.", seq, self._file.path)
        self._file.write("deleting", lambda db, state: (self._drop(db, state, seq, seq, "lost"), None))
