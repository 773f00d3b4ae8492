"""An outbox's file while it is in use: opened, locked, and replaced when it is damaged or gone."""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

from reid_edge.errors import OutboxError
from reid_edge.files import identity
from reid_edge.upstream import outbox_database as database
from reid_edge.upstream.age_clock import AgeClock, Reading
from reid_edge.upstream.outbox_database import Synchronous
from reid_edge.upstream.outbox_records import State
from reid_edge.upstream.outbox_tables import load_state, save_state

Result = TypeVar("Result")
_LOG = logging.getLogger(__name__)


class SetAsideError(Exception):
    """The file was damaged, and a new one has been started."""


class OutboxFile:
    """Transactions on one SQLite file; a new file is started when it is damaged, removed or replaced.

    Args:
        path: The file; missing folders are made, for this user alone.
        synchronous: Whether each commit waits for the disk.
        read_clocks: Reads the machine's clocks.

    Attributes:
        path: The file.
        set_aside: Files that were damaged or in the way, under their new names.
        lock: Held during each transaction; hold it around several that belong together.
        state: The summary as of the last commit.
        clock: Ages of rows.
        dirty: Something was written since this was last set to False.
        undeclared: Number of lost observations that no gap declares yet.

    Raises:
        OutboxError: Another process has it, or it cannot be written.
    """

    state: State
    clock: AgeClock

    def __init__(self, path: Path, *, synchronous: Synchronous, read_clocks: Callable[[], Reading]) -> None:
        self.path = path
        self.set_aside: list[Path] = []
        self.lock = threading.RLock()
        self.dirty = True
        self.undeclared = 0
        self._synchronous = synchronous
        self._read_clocks = read_clocks
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._log_identity: tuple[int, int] | None = None
        self._lock_file: TextIO | None = database.lock(self.path)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and release its lock."""
        with self.lock:
            self._disconnect()
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None

    @property
    def is_open(self) -> bool:
        """Return whether there is a file to write to."""
        return self._db is not None

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
                self._replace_damaged(error)
        except (sqlite3.Error, OSError) as error:
            raise database.outbox_error(self.path, "opening", error) from error

    def _connect(self, *, leap: bool) -> None:
        with contextlib.ExitStack() as stack:
            db = database.connect(self.path)
            stack.callback(db.close)
            state, age, missing = load_state(db)
            self.clock = AgeClock(age, self._read_clocks)
            if leap:
                state = replace(state, next_seq=_leapt(state.next_seq))
            try:
                save_state(db, state, self.clock.state())
            except sqlite3.OperationalError:
                if not database.empty_log(self.path, db):
                    raise
                save_state(db, state, self.clock.state())
            self._identity = identity(self.path)
            self._log_identity = identity(database.log_path(self.path))
            self._db, self.state = db, state
            stack.pop_all()
        if missing:
            self.undeclared += missing
            _LOG.warning(
                "%d observations are missing in the outbox %s: they are declared as lost. Check the disk.",
                missing,
                self.path,
            )

    def _disconnect(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def check_place(self, *, closing: bool = False) -> None:
        """Start a new file if this one was removed or replaced: nobody would ever find what is written to it now."""
        with suppress(OSError):  # then SQLite will say what is wrong
            found = identity(self.path)
            if self._db is not None and found != self._identity:
                self._leave_stray(self._db, replaced=found is not None, closing=closing)

    def _leave_stray(self, db: sqlite3.Connection, *, replaced: bool, closing: bool) -> None:
        waited, what = self.state.rows, "replaced" if replaced else "removed"
        self._db = None
        with suppress(OSError):
            database.close_stray(self.path, db, self._log_identity)
        if closing and not waited and not self.undeclared:
            return
        _LOG.log(
            logging.ERROR if closing and waited else logging.WARNING,
            "the outbox %s was %s while in use: %d observations that waited in it are lost. A new "
            "one is started, which declares them as a gap. Stop the camera before you move its outbox.",
            self.path,
            what,
            waited,
        )
        self._start_over(self._take_place)

    def _take_place(self) -> None:
        """Start a new file where the old one was; a file that lies there is set aside."""
        self._renew_lock()
        if identity(self.path) is not None:
            self.set_aside.append(database.set_aside(self.path))
            _LOG.warning("the file in its place is set aside as %s.", self.set_aside[-1].name)
        database.create(self.path)
        self._connect(leap=False)

    def _renew_lock(self) -> None:
        """Lock again if the lock file was removed, with the folder or alone."""
        held = self._lock_file
        if held is not None and not database.still_locked(self.path, held):
            self._lock_file = database.lock(self.path)
            held.close()

    def _start_over(self, begin: Callable[[], None]) -> None:
        """Count all rows as lost, and begin with another file."""
        self.undeclared += self.state.undelivered
        self.state = replace(self.state, rows=0, payload_bytes=0, gaps=0, in_gaps=0)
        try:
            begin()
        except (sqlite3.Error, OSError) as failure:
            self._disconnect()
            raise database.outbox_error(self.path, "starting anew", failure) from failure

    def _replace_damaged(self, error: sqlite3.Error) -> None:
        """Set the damaged file aside and start a new one."""
        self._disconnect()
        aside = database.set_aside(self.path)
        self.set_aside.append(aside)
        _LOG.warning(
            "the outbox %s is damaged (%s): set aside as %s, and a new one is started. "
            "The observations in it will not be delivered. Check the disk.",
            self.path,
            error,
            aside.name,
        )
        database.create(self.path)
        self._connect(leap=False)

    def write(
        self,
        doing: str,
        work: Callable[[sqlite3.Connection, State], tuple[State, Result]],
        *,
        synchronous: Synchronous | None = None,
    ) -> Result:
        """Run ``work`` in a transaction; the state that it returns counts once the transaction is committed.

        If the disk has no room, the log is emptied into the file and ``work`` is tried once more.

        Args:
            doing: Names the work in an error message: ``writing``, ``deleting``.
            work: Takes the database and the state; returns the new state and a result.
            synchronous: Overrides the setting of this file.

        Raises:
            OutboxError: The file cannot be written; nothing has changed.
            SetAsideError: The file was damaged, and a new one has been started.
        """
        with self.lock:
            db = self._connection()
            db.execute(f"PRAGMA synchronous = {synchronous or self._synchronous}")
            try:
                try:
                    state, result = self._committed(db, work)
                except sqlite3.OperationalError:
                    if not database.empty_log(self.path, db):
                        raise
                    state, result = self._committed(db, work)
            except sqlite3.Error as error:
                self._give_up(doing, error)
            self.state = state
            self.dirty = True
            return result

    def _committed(
        self, db: sqlite3.Connection, work: Callable[[sqlite3.Connection, State], tuple[State, Result]]
    ) -> tuple[State, Result]:
        try:
            db.execute("BEGIN IMMEDIATE")
            state, result = work(db, self.state)
            save_state(db, state, self.clock.state())
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return state, result

    def read(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        """Run ``work`` and return its result, or ``otherwise`` if the file turned out to be damaged.

        Raises:
            OutboxError: The file cannot be read.
        """
        with self.lock:
            try:
                return work(self._connection())
            except sqlite3.Error as error:
                with suppress(SetAsideError):
                    self._give_up("reading", error)
                return otherwise

    def _connection(self) -> sqlite3.Connection:
        if self._lock_file is None:
            raise OutboxError(f"the outbox {self.path} is closed.")
        if self._db is None:  # a new file could not be started the last time
            self._renew_lock()
            self._open()
        assert self._db is not None
        return self._db

    def _give_up(self, doing: str, error: sqlite3.Error) -> NoReturn:
        """Raise OutboxError for a failure, or replace a damaged file and raise SetAsideError."""
        if isinstance(error, sqlite3.IntegrityError):  # interrupted between a commit and noting it: read the file again
            self._disconnect()
        if not database.is_corruption(error):
            raise database.outbox_error(self.path, doing, error) from error
        self._start_over(lambda: self._replace_damaged(error))
        raise SetAsideError from error


def _leapt(next_seq: int) -> int:
    """Return a sequence number far above, unlike the one that another opening of the same file leaps to."""
    return ((next_seq >> 20) + 1 + secrets.randbelow(1 << 16)) << 20
