"""Observations on disk until the receiving end has them: bounded, and honest about what it had to drop."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TypeVar

from reid_edge.errors import OutboxError
from reid_edge.upstream.message import Ack, Encoding, Gap, GapReason, Observation, encode_observation
from reid_edge.upstream.outbox import database, gaps, rows
from reid_edge.upstream.outbox.age import AgeClock, Reading, read_clocks
from reid_edge.upstream.outbox.database import Synchronous
from reid_edge.upstream.outbox.rows import Payload, Row
from reid_edge.upstream.outbox.state import State, load, save

Result = TypeVar("Result")
_LOG = logging.getLogger(__name__)
MOST_RETENTION_S = 10 * 365 * 86400


class _SetAsideError(Exception):
    """The file was damaged, and a new one has been started."""


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
        self.path = Path(path)
        self.set_aside: list[Path] = []
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._retention_us = int(retention_s * 1e6)
        self._synchronous = synchronous
        self._read_clocks = read_clocks
        self._listeners: list[Callable[[], None]] = []
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._log_identity: tuple[int, int] | None = None
        self._dirty = True
        self._unwritten = 0
        self._lock_descriptor: int | None = database.lock(self.path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def epoch(self) -> str:
        """Names this file: 16 hexadecimal digits."""
        return self._state.epoch

    @property
    def depth(self) -> int:
        """How many rows wait."""
        return self._state.rows

    @property
    def bytes(self) -> int:
        """How many bytes of encoded observations wait."""
        return self._state.payload_bytes

    @property
    def gap_count(self) -> int:
        """How many gaps wait to be acknowledged."""
        return self._state.gaps

    @property
    def last_seq(self) -> int:
        """Highest sequence number given; those above it are yet to come."""
        return self._state.next_seq - 1

    @property
    def dropped(self) -> dict[GapReason, int]:
        """Observations dropped since the file was made, by reason."""
        return dict(self._state.dropped)

    @property
    def oldest_us(self) -> int | None:
        """When the oldest row was put, microseconds since 1970 UTC by the clock as it is now; None if none waits.

        Raises:
            OutboxError: The file cannot be read.
        """
        query = "SELECT age_us FROM rows ORDER BY seq LIMIT 1"
        with self._lock:
            oldest = self._read(lambda db: db.execute(query).fetchone(), None)
            return None if oldest is None else time.time_ns() // 1000 - (self._clock.now_us() - oldest[0])

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
        with self._lock:
            self._check_place()
            try:
                self._insert(payloads)
            except _SetAsideError:
                self._insert(payloads)
        for listener in self._listeners:
            listener()

    def lose(self, count: int) -> None:
        """Declare observations that could not be put; the gap is written once the disk takes it."""
        with self._lock:
            self._unwritten += count

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
            return self._write("writing", lambda db, state: (state, gaps.seal(db)))
        except _SetAsideError:
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

        with self._lock, suppress(_SetAsideError):
            if ack.epoch == self.epoch and (ack.seqs or ack.gaps):
                # Losing a deletion with the power only means to send again.
                self._write("deleting", work, synchronous="NORMAL")

    def expire(self) -> None:
        """Drop rows that are too old, and overwrite what was deleted, in the file and its log; call every minute.

        Raises:
            OutboxError: The file cannot be written.
        """
        with self._lock, suppress(_SetAsideError):
            self._check_place()
            self._clock.settle()
            last = self._read(lambda db: rows.last_older_than(db, self._clock.now_us() - self._retention_us), 0)
            if last:
                self._write("deleting", lambda db, state: (self._drop(db, state, 0, last, "expired"), None))
            self._declare()
            if self._dirty or self.depth:
                self._write("writing", lambda db, state: (self._saved(db, state), None))
                self._read(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), [])
                self._dirty = False
            database.remove_aside(self.path, older_than_s=self._retention_us / 1e6)

    def close(self) -> None:
        """Close the file; what waits is there when it is opened again."""
        with self._lock:
            if self._db is not None:
                with suppress(OutboxError, _SetAsideError):
                    self._check_place(closing=True)
                    self._declare()
            self._disconnect()
            if self._lock_descriptor is not None:
                os.close(self._lock_descriptor)
                self._lock_descriptor = None

    def _open(self) -> None:
        """Open the file, or begin a new one."""
        try:
            if not self.path.exists():
                database.create(self.path)
                self._connect(leap=False)
                return
            try:
                if self.path.stat().st_size == 0:
                    raise sqlite3.DatabaseError("malformed: the file is empty")
                self._connect(leap=True)
            except sqlite3.DatabaseError as error:
                if not database.is_corruption(error):
                    raise
                self._begin_anew(error)
        except (sqlite3.Error, OSError) as error:
            raise database.outbox_error(self.path, "opening", error) from error

    def _connect(self, *, leap: bool) -> None:
        with contextlib.ExitStack() as stack:
            db = database.connect(self.path)
            stack.callback(db.close)
            state, age = load(db)
            self._clock = AgeClock(age, self._read_clocks)
            if leap:
                state = replace(state, next_seq=_leapt(state.next_seq))
            try:
                self._saved(db, state)
            except sqlite3.OperationalError:
                if not database.emptied_log(self.path, db):
                    raise
                self._saved(db, state)
            self._identity = database.identity(self.path)
            self._log_identity = database.identity(database.log_path(self.path))
            self._db, self._state = db, state
            stack.pop_all()

    def _disconnect(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _check_place(self, *, closing: bool = False) -> None:
        """Start anew if the file was removed or replaced: what goes into it now, nobody would ever find."""
        with suppress(OSError):  # else it cannot be told now: SQLite will say what is wrong
            found = database.identity(self.path)
            if self._db is not None and found != self._identity:
                self._leave_stray(self._db, replaced=found is not None, closing=closing)

    def _leave_stray(self, db: sqlite3.Connection, *, replaced: bool, closing: bool) -> None:
        waited, what = self._state.rows, "replaced" if replaced else "removed"
        self._db = None
        with suppress(OSError):
            database.close_stray(self.path, db, self._log_identity)
        if closing and not waited and not self._unwritten:
            return
        _LOG.log(
            logging.ERROR if closing and waited else logging.WARNING,
            "the outbox %s was %s while in use: %d observations that waited in it are lost. A new "
            "one is started, which declares them as a gap. Stop the camera before its outbox is moved.",
            self.path,
            what,
            waited,
        )
        self._start_over(self._take_place)

    def _take_place(self) -> None:
        """Start a new file where the old one was; what lies there is set aside."""
        self._renew_lock()
        if database.identity(self.path) is not None:
            self.set_aside.append(database.set_aside(self.path))
            _LOG.warning("what was in its place is set aside as %s.", self.set_aside[-1].name)
        database.create(self.path)
        self._connect(leap=False)

    def _renew_lock(self) -> None:
        """Lock again if the lock's file has gone, with the folder or alone."""
        held = self._lock_descriptor
        if held is not None and not database.still_locked(self.path, held):
            self._lock_descriptor = database.lock(self.path)
            os.close(held)

    def _start_over(self, begin: Callable[[], None]) -> None:
        """Count what waits as lost, and begin with another file."""
        self._unwritten += self._state.rows
        self._state = replace(self._state, rows=0, payload_bytes=0, gaps=0)
        try:
            begin()
        except (sqlite3.Error, OSError) as failure:
            self._disconnect()
            raise database.outbox_error(self.path, "starting anew", failure) from failure

    def _begin_anew(self, error: sqlite3.Error) -> None:
        """Set the damaged file aside and start a new one."""
        self._disconnect()
        aside = database.set_aside(self.path)
        self.set_aside.append(aside)
        _LOG.warning(
            "the outbox %s is damaged (%s): set aside as %s, and a new one is started. "
            "What waited in it will not be delivered. Check the disk.",
            self.path,
            error,
            aside.name,
        )
        database.create(self.path)
        self._connect(leap=False)

    def _write(
        self,
        doing: str,
        work: Callable[[sqlite3.Connection, State], tuple[State, Result]],
        *,
        synchronous: Synchronous | None = None,
    ) -> Result:
        """Run ``work`` in a transaction; what it makes of the state counts once that is committed.

        Where the disk has no room, the log is emptied into the file, and ``work`` tried once more.
        """
        with self._lock:
            db = self._connection()
            db.execute(f"PRAGMA synchronous = {synchronous or self._synchronous}")
            try:
                try:
                    state, result = self._committed(db, work)
                except sqlite3.OperationalError:
                    if not database.emptied_log(self.path, db):
                        raise
                    state, result = self._committed(db, work)
            except sqlite3.Error as error:
                self._give_up(doing, error)
            self._state = state
            self._dirty = True
            return result

    def _committed(
        self, db: sqlite3.Connection, work: Callable[[sqlite3.Connection, State], tuple[State, Result]]
    ) -> tuple[State, Result]:
        try:
            db.execute("BEGIN IMMEDIATE")
            done = work(db, self._state)
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return done

    def _read(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        """Run ``work``; ``otherwise`` if the file turned out to be damaged."""
        with self._lock:
            try:
                return work(self._connection())
            except sqlite3.Error as error:
                with suppress(_SetAsideError):
                    self._give_up("reading", error)
                return otherwise

    def _connection(self) -> sqlite3.Connection:
        if self._lock_descriptor is None:
            raise OutboxError(f"the outbox {self.path} is closed.")
        if self._db is None:  # a new file could not be started the last time
            self._renew_lock()
            self._open()
        assert self._db is not None
        return self._db

    def _give_up(self, doing: str, error: sqlite3.Error) -> NoReturn:
        """Raises what a failure amounts to."""
        if isinstance(error, sqlite3.IntegrityError):  # interrupted between a commit and noting it: read it anew
            self._disconnect()
        if not database.is_corruption(error):
            raise database.outbox_error(self.path, doing, error) from error
        self._start_over(lambda: self._begin_anew(error))
        raise _SetAsideError from error

    def _insert(self, payloads: Sequence[Payload]) -> None:
        def work(db: sqlite3.Connection, state: State) -> tuple[State, None]:
            state = self._with_losses(db, state)
            rows.insert(db, state.next_seq, self._clock.now_us(), payloads)
            state = state.with_rows(len(payloads), sum(map(len, payloads)))
            last = rows.last_to_drop(db, state.rows - self._max_rows, state.payload_bytes - self._max_bytes)
            if last:
                state = self._drop(db, state, 0, last, "full")
            return self._saved(db, state), None

        self._write("writing", work)
        self._unwritten = 0

    def _declare(self) -> None:
        """Write the gap of what could not be put."""
        if self._unwritten:
            self._write("writing", lambda db, state: (self._with_losses(db, state), None))
            self._unwritten = 0

    def _with_losses(self, db: sqlite3.Connection, state: State) -> State:
        """Spend a sequence number on each observation that could not be put."""
        if not self._unwritten:
            return state
        first_seq = state.next_seq
        state = replace(state, next_seq=first_seq + self._unwritten)
        return self._noted(db, state, Gap(first_seq, state.next_seq - 1, self._unwritten, "lost"))

    def _drop(self, db: sqlite3.Connection, state: State, first_seq: int, last_seq: int, reason: GapReason) -> State:
        """Delete rows and note the gap."""
        gone = rows.delete(db, first_seq, last_seq)
        if not gone.rows:
            return state
        return self._noted(db, state.without(gone), Gap(gone.first_seq, gone.last_seq, gone.rows, reason))

    def _noted(self, db: sqlite3.Connection, state: State, gap: Gap) -> State:
        gaps.note(db, gap)
        dropped = {**state.dropped, gap.reason: state.dropped[gap.reason] + gap.count}
        return self._saved(db, replace(state, dropped=dropped, gaps=gaps.count(db)))

    def _saved(self, db: sqlite3.Connection, state: State) -> State:
        save(db, state, self._clock.state())
        return state

    def _sound(self, query: str, parameters: Sequence[int]) -> tuple[int, list[Row]]:
        """How many rows were found, and those whose bytes are as they were put; others are dropped."""
        with self._lock:
            none: list[tuple[int, int, Payload]] = []
            found = self._read(lambda db: db.execute(query, tuple(parameters)).fetchall(), none)
            damaged = rows.damaged(found)
            with suppress(_SetAsideError):
                for seq in damaged:
                    self._lose_row(seq)
            return len(found), [(seq, payload) for seq, _, payload in found if seq not in damaged]

    def _lose_row(self, seq: int) -> None:
        _LOG.warning("row %d of the outbox %s has changed on disk: dropped. Check the disk.", seq, self.path)
        self._write("deleting", lambda db, state: (self._drop(db, state, seq, seq, "lost"), None))


def _leapt(next_seq: int) -> int:
    """A sequence number far above, and not the one that another opening of the same file would leap to."""
    return ((next_seq >> 20) + 1 + secrets.randbelow(1 << 16)) << 20
