"""Observations on disk until the gallery has them: bounded, with every dropped one declared.

:class:`Outbox` is the queue.  ``outbox_file`` keeps its file in use and replaces a damaged one, ``outbox_tables`` has
all SQL of the rows, and ``outbox_database`` makes, opens, locks and sets aside files.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Literal

from reid_edge.errors import OutboxError
from reid_edge.upstream import outbox_database as database
from reid_edge.upstream import outbox_tables as tables
from reid_edge.upstream.age_clock import Reading, read_clocks
from reid_edge.upstream.message import Encoding, encode_observation
from reid_edge.upstream.observation import Ack, Gap, GapReason, Observation
from reid_edge.upstream.outbox_database import Synchronous
from reid_edge.upstream.outbox_file import OutboxFile, Result, SetAsideError
from reid_edge.upstream.outbox_records import Row, State, StoredRow, is_intact
from reid_edge.upstream.recent_counts import RecentCounts

_LOG = logging.getLogger(__name__)
#: What is dropped when the outbox is full: the oldest rows, or what would be put.
WhenFull = Literal["drop-oldest", "refuse-newest"]
MOST_RETENTION_S = 10 * 365 * 86400


class Outbox:
    """A queue of encoded observations in one SQLite file.

    Once :meth:`put` has returned, the observations survive the end of the process and, with ``synchronous="FULL"``, a
    power cut.  A row leaves when it is acknowledged, or when it is dropped: the oldest, or instead the newest, are
    dropped when there are too many, and those that are too old.  Dropped observations are counted, and declared by
    :meth:`gaps` until the gaps are acknowledged too.

    A damaged file is set aside beside the outbox as ``NAME.corrupt-TIME``, logged and listed in ``set_aside``, and a
    new one with a new incarnation is started at once.  Sequence numbers grow, and leap at each opening, so that none is
    given twice even if the last commits were lost in a power cut or an older copy of the file was put back.

    A file that was removed or replaced is noticed at the next :meth:`put`, :meth:`expire` or :meth:`close`: its
    observations are declared as lost, a file in its place is set aside, and a new file is started.

    All methods may be called from any thread.

    Args:
        path: The file; missing folders are made, for this user alone.
        max_rows: Most rows kept.
        max_bytes: Most bytes of encoded observations kept.  The file takes about a tenth more, its log up to 16 MB.
        retention_s: Rows older than this are dropped by :meth:`expire`; at most ten years.
        when_full: ``drop-oldest``: the oldest rows make room for new ones.  ``refuse-newest``: new observations are not
            kept while there is no room.  Either are declared as a gap.
        synchronous: ``FULL``: each put waits for the disk.  ``NORMAL``: the last puts may be lost in a power cut, and
            no gap declares them.
        read_clocks: Reads the machine's clocks.

    Raises:
        OutboxError: Another process has it, it cannot be written, or a bound is not positive or too large.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        max_rows: int = 100_000,
        max_bytes: int = 256_000_000,
        retention_s: float = 72 * 3600,
        when_full: WhenFull = "drop-oldest",
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
        self._when_full = when_full
        self._listeners: list[Callable[[], None]] = []
        self._recently = RecentCounts()
        self._file = OutboxFile(Path(path), synchronous=synchronous, read_clocks=read_clocks)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def set_aside(self) -> list[Path]:
        """Files that were damaged or in the way since this outbox was opened, under their new names."""
        return self._file.set_aside

    @property
    def incarnation(self) -> str:
        """Name of this file: 16 hexadecimal digits; called ``epoch`` on the wire and in the file."""
        return self._file.state.incarnation

    @property
    def depth(self) -> int:
        """Number of rows."""
        return self._file.state.rows

    @property
    def payload_bytes(self) -> int:
        """Bytes of the encoded observations of all rows."""
        return self._file.state.payload_bytes

    @property
    def gap_count(self) -> int:
        """Number of gaps that are not acknowledged."""
        return self._file.state.gaps

    @property
    def last_seq(self) -> int:
        """Highest sequence number given so far."""
        return self._file.state.next_seq - 1

    @property
    def dropped(self) -> dict[GapReason, int]:
        """Observations dropped since the file was made, by reason."""
        return dict(self._file.state.dropped)

    def dropped_recently(self, within_s: float = 300.0) -> dict[str, int]:
        """Return the observations dropped in the last ``within_s`` seconds, at most 15 minutes, by reason."""
        return self._recently.within(within_s)

    @property
    def oldest_us(self) -> int | None:
        """Time at which the oldest row was put, microseconds since 1970 UTC by the present clock; None without rows.

        Raises:
            OutboxError: The file cannot be read.
        """
        with self._file.lock:
            age_s = self.oldest_age_s()
            return None if age_s is None else time.time_ns() // 1000 - int(age_s * 1e6)

    def oldest_age_s(self) -> float | None:
        """Return for how many seconds the oldest row has been waiting; None without rows.

        Raises:
            OutboxError: The file cannot be read.
        """
        with self._file.lock:
            oldest = self._file.read(tables.oldest_age_us, None)
            return None if oldest is None else max(0, self._file.clock.now_us() - oldest) / 1e6

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each put, in the thread that put."""
        self._listeners.append(listener)

    def put(self, observations: Sequence[Observation], encoding: Encoding = "fp16") -> None:
        """Keep observations, all or none, in one commit; if there is no room, ``when_full`` says what is dropped.

        Raises:
            MessageError: One of them cannot be encoded.
            OutboxError: They are not kept, e.g. because the disk is full, and the outbox is as it was before.  Try
                again, or give them up with :meth:`lose`.
        """
        self.put_encoded([encode_observation(observation, encoding) for observation in observations])

    def put_encoded(self, payloads: Sequence[bytes]) -> None:
        """Keep observations that are encoded already, as :meth:`put` does.

        Raises:
            OutboxError: As for :meth:`put`.
        """
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
        """Declare ``count`` observations that could not be put; the gap is written once the disk takes it."""
        with self._file.lock:
            self._file.undeclared += count

    def pending(self, after_seq: int, limit: int) -> list[Row]:
        """Return the oldest rows with a higher sequence number, ascending.

        Rows whose bytes have changed on disk are dropped as ``lost``.

        Raises:
            OutboxError: The file cannot be read.
        """
        found, intact = True, list[Row]()
        while found and not intact:
            found, intact = self._intact(lambda db: tables.rows_after(db, after_seq, limit))
        return intact

    def fetch(self, seqs: Sequence[int]) -> list[Row]:
        """Return those of up to 500 rows that are still here, ascending.

        Raises:
            OutboxError: The file cannot be read.
        """
        return self._intact(lambda db: tables.rows_numbered(db, seqs))[1]

    def gaps(self) -> list[Gap]:
        """Return the gaps to declare: the same ones until they are acknowledged, though more may have come since.

        Raises:
            OutboxError: The file cannot be written.
        """
        if not self.gap_count:
            return []
        try:
            return self._write("writing", lambda db, state: (state, tables.seal_gaps(db, state.incarnation)))
        except SetAsideError:
            return []

    def acknowledge(self, ack: Ack) -> None:
        """Delete rows and gaps that the gallery has; an acknowledgement for another incarnation is ignored.

        Raises:
            OutboxError: The file cannot be written; the rows stay, and may be sent again.
        """

        def work(db: sqlite3.Connection, state: State) -> tuple[State, None]:
            for first_seq, last_seq in tables.consecutive_runs(ack.seqs):
                state = state.without(tables.delete_rows(db, first_seq, last_seq))
            if ack.gaps:
                tables.delete_gaps(db, ack.gaps)
                state = tables.with_gaps(db, state)
            return state, None

        with self._file.lock, suppress(SetAsideError):
            if ack.incarnation == self.incarnation and (ack.seqs or ack.gaps):
                # A deletion that is lost in a power cut only means that the rows are sent again.
                self._write("deleting", work, synchronous="NORMAL")

    def expire(self) -> None:
        """Drop rows that are too old, and overwrite deleted ones in the file and its log; to be called every minute.

        Raises:
            OutboxError: The file cannot be written.
        """
        with self._file.lock, suppress(SetAsideError):
            self._file.check_place()
            self._file.clock.settle()
            last = self._file.read(
                lambda db: tables.last_older_than(db, self._file.clock.now_us() - self._retention_us), 0
            )
            if last:
                self._write("deleting", lambda db, state: (self._drop(db, state, 0, last, "expired"), None))
            self._declare()
            if self._file.dirty or self.depth:
                self._write("writing", lambda _, state: (state, None))
                self._file.read(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), [])
                self._file.dirty = False
            database.remove_aside(self._file.path, older_than_s=self._retention_us / 1e6)

    def close(self) -> None:
        """Close the file; its rows are there when it is opened again."""
        with self._file.lock:
            if self._file.is_open:
                with suppress(OutboxError, SetAsideError):
                    self._file.check_place(closing=True)
                    self._declare()
            self._file.close()

    def _write(
        self,
        doing: str,
        work: Callable[[sqlite3.Connection, State], tuple[State, Result]],
        *,
        synchronous: Synchronous | None = None,
    ) -> Result:
        """Run ``work`` in a transaction, and count what it has dropped."""
        with self._file.lock:
            before = self._file.state.dropped
            result = self._file.write(doing, work, synchronous=synchronous)
            for reason, count in self._file.state.dropped.items():
                if count > before[reason]:
                    self._recently.add(reason, count - before[reason])
            return result

    def _insert(self, payloads: Sequence[bytes]) -> None:
        def work(db: sqlite3.Connection, state: State) -> tuple[State, None]:
            state = self._with_losses(db, state)
            kept = payloads[: self._room_for(payloads, state)] if self._when_full == "refuse-newest" else payloads
            tables.insert_rows(db, state.incarnation, state.next_seq, self._file.clock.now_us(), kept)
            state = state.with_rows(len(kept), sum(map(len, kept)))
            state = self._without(db, state, len(payloads) - len(kept), "full")
            last = tables.last_to_drop(db, state.rows - self._max_rows, state.payload_bytes - self._max_bytes)
            if last:
                state = self._drop(db, state, 0, last, "full")
            return state, None

        self._write("writing", work)
        self._file.undeclared = 0

    def _declare(self) -> None:
        """Write the gap of observations that could not be put."""
        if self._file.undeclared:
            self._write("writing", lambda db, state: (self._with_losses(db, state), None))
            self._file.undeclared = 0

    def _with_losses(self, db: sqlite3.Connection, state: State) -> State:
        """Declare observations that could not be put."""
        return self._without(db, state, self._file.undeclared, "lost")

    def _without(self, db: sqlite3.Connection, state: State, count: int, reason: GapReason) -> State:
        """Spend a sequence number on each of ``count`` observations that are not kept."""
        if not count:
            return state
        first_seq = state.next_seq
        state = replace(state, next_seq=first_seq + count, given=state.given + count)
        return self._noted(db, state, Gap(first_seq, state.next_seq - 1, count, reason))

    def _room_for(self, payloads: Sequence[bytes], state: State) -> int:
        """Return how many of the observations, from the first on, there is room for."""
        rows, size = max(0, self._max_rows - state.rows), self._max_bytes - state.payload_bytes
        sizes = accumulate(map(len, payloads))
        return min(rows, sum(1 for _ in takewhile(lambda total: total <= size, sizes)))

    def _drop(self, db: sqlite3.Connection, state: State, first_seq: int, last_seq: int, reason: GapReason) -> State:
        """Delete rows and note the gap."""
        gone = tables.delete_rows(db, first_seq, last_seq)
        if not gone.rows:
            return state
        return self._noted(db, state.without(gone), Gap(gone.first_seq, gone.last_seq, gone.rows, reason))

    def _noted(self, db: sqlite3.Connection, state: State, gap: Gap) -> State:
        tables.note_gap(db, state.incarnation, gap)
        dropped = {**state.dropped, gap.reason: state.dropped[gap.reason] + gap.count}
        return tables.with_gaps(db, replace(state, dropped=dropped))

    def _intact(self, find: Callable[[sqlite3.Connection], list[StoredRow]]) -> tuple[bool, list[Row]]:
        """Return whether ``find`` found rows, and those whose bytes are as they were put; others are dropped."""
        with self._file.lock:
            none: list[StoredRow] = []
            found = self._file.read(find, none)
            state = self._file.state
            intact = [row for row in found if is_intact(row, state.incarnation, state.checked_from)]
            with suppress(SetAsideError):
                for seq in {row[0] for row in found}.difference(row[0] for row in intact):
                    self._lose_row(seq)
            return bool(found), [(seq, payload) for seq, _, _, payload, _ in intact]

    def _lose_row(self, seq: int) -> None:
        _LOG.warning(
            "row %d of the outbox %s has changed on disk: it is dropped. Check the disk.", seq, self._file.path
        )
        self._write("deleting", lambda db, state: (self._drop(db, state, seq, seq, "lost"), None))
