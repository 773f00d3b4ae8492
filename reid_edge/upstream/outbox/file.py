"""The outbox's file as long as it is in use: opened, locked, replaced when it is damaged or gone."""

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
from reid_edge.upstream.outbox import database
from reid_edge.upstream.outbox.age import AgeClock, Reading
from reid_edge.upstream.outbox.database import Synchronous
from reid_edge.upstream.outbox.state import State, load, save

Result = TypeVar("Result")
_LOG = logging.getLogger(__name__)


class SetAsideError(Exception):
    """The file was damaged, and a new one has been started."""


class OutboxFile:
    """Transactions on one SQLite file, which another takes the place of when it is damaged, removed or replaced.

    Args:
        path: The file; folders that are missing are made, for this user alone.
        synchronous: Whether each commit waits for the disk.
        read_clocks: Looks at the machine's clocks.

    Attributes:
        path: The file.
        set_aside: What was damaged or in the way.
        lock: Held during each transaction; hold it around several that belong together.
        state: What is known without asking the file, as of the last commit.
        clock: Ages of rows.
        dirty: Something was written since this was last set to False.
        unwritten: Observations that are lost and not declared yet.

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
        self.unwritten = 0
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
        """Let go of the file and its lock."""
        with self.lock:
            self._disconnect()
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None

    @property
    def is_open(self) -> bool:
        """Whether there is a file to write to."""
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
                self._begin_anew(error)
        except (sqlite3.Error, OSError) as error:
            raise database.outbox_error(self.path, "opening", error) from error

    def _connect(self, *, leap: bool) -> None:
        with contextlib.ExitStack() as stack:
            db = database.connect(self.path)
            stack.callback(db.close)
            state, age = load(db)
            self.clock = AgeClock(age, self._read_clocks)
            if leap:
                state = replace(state, next_seq=_leapt(state.next_seq))
            try:
                self.saved(db, state)
            except sqlite3.OperationalError:
                if not database.emptied_log(self.path, db):
                    raise
                self.saved(db, state)
            self._identity = database.identity(self.path)
            self._log_identity = database.identity(database.log_path(self.path))
            self._db, self.state = db, state
            stack.pop_all()

    def _disconnect(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def check_place(self, *, closing: bool = False) -> None:
        """Start anew if the file was removed or replaced: what goes into it now, nobody would ever find."""
        with suppress(OSError):  # else it cannot be told now: SQLite will say what is wrong
            found = database.identity(self.path)
            if self._db is not None and found != self._identity:
                self._leave_stray(self._db, replaced=found is not None, closing=closing)

    def _leave_stray(self, db: sqlite3.Connection, *, replaced: bool, closing: bool) -> None:
        waited, what = self.state.rows, "replaced" if replaced else "removed"
        self._db = None
        with suppress(OSError):
            database.close_stray(self.path, db, self._log_identity)
        if closing and not waited and not self.unwritten:
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
        held = self._lock_file
        if held is not None and not database.still_locked(self.path, held):
            self._lock_file = database.lock(self.path)
            held.close()

    def _start_over(self, begin: Callable[[], None]) -> None:
        """Count what waits as lost, and begin with another file."""
        self.unwritten += self.state.rows
        self.state = replace(self.state, rows=0, payload_bytes=0, gaps=0)
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

    def write(
        self,
        doing: str,
        work: Callable[[sqlite3.Connection, State], tuple[State, Result]],
        *,
        synchronous: Synchronous | None = None,
    ) -> Result:
        """Run ``work`` in a transaction; what it makes of the state counts once that is committed.

        Where the disk has no room, the log is emptied into the file, and ``work`` tried once more.
        """
        with self.lock:
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
            self.state = state
            self.dirty = True
            return result

    def _committed(
        self, db: sqlite3.Connection, work: Callable[[sqlite3.Connection, State], tuple[State, Result]]
    ) -> tuple[State, Result]:
        try:
            db.execute("BEGIN IMMEDIATE")
            done = work(db, self.state)
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return done

    def read(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        """Run ``work``; ``otherwise`` if the file turned out to be damaged."""
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
        """Raises what a failure amounts to."""
        if isinstance(error, sqlite3.IntegrityError):  # interrupted between a commit and noting it: read it anew
            self._disconnect()
        if not database.is_corruption(error):
            raise database.outbox_error(self.path, doing, error) from error
        self._start_over(lambda: self._begin_anew(error))
        raise SetAsideError from error

    def saved(self, db: sqlite3.Connection, state: State) -> State:
        """The state, once it is written down with the ages of now."""
        save(db, state, self.clock.state())
        return state


def _leapt(next_seq: int) -> int:
    """A sequence number far above, and not the one that another opening of the same file would leap to."""
    return ((next_seq >> 20) + 1 + secrets.randbelow(1 << 16)) << 20
