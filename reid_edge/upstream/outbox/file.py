"""An outbox's file while it is in use: opened, locked, and replaced when it is damaged or gone."""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

from reid_edge.errors import OutboxError
from reid_edge.files import identity
from reid_edge.upstream.clocks import Reading
from reid_edge.upstream.outbox import database, failures, folder
from reid_edge.upstream.outbox.age_clock import AgeClock, AgeState
from reid_edge.upstream.outbox.audit import audited, settled
from reid_edge.upstream.outbox.database import Synchronous
from reid_edge.upstream.outbox.mark import Mark, MarkFile
from reid_edge.upstream.outbox.records import NOTHING_DROPPED, State, malformed
from reid_edge.upstream.outbox.rescue import build_fresh, build_rescued
from reid_edge.upstream.outbox.tables import note_loss, save_state
from reid_edge.wording import counted

Result = TypeVar("Result")
#: After an attempt to open that failed and took longer, the next is made after so many times as long.
_LONG_S, _REST = 0.1, 10
#: After errors of the disk the file is read whole at most so often.
_RECHECK_S = 60.0
_LOG = logging.getLogger(__name__)


class SetAsideError(Exception):
    """The file was damaged, and a new one has been started."""


class OutboxFile:
    """Transactions on one SQLite file; another is started when it is damaged, removed or replaced.

    What is intact of a damaged file is copied to the new one, under the same incarnation.  What is missing is declared
    in the new file from its beginning: a kill or a power cut at any point loses no declaration.

    Args:
        path: The file; missing folders are made, for this user alone.
        synchronous: Whether each commit waits for the disk.
        read_clocks: Reads the machine's clocks.
        wait_for_disk: If the disk is full, read-only or failing, begin without a file: ``is_open`` is False, reads find
            nothing, writes raise OutboxError, and each write tries to open the file again.

    Attributes:
        path: The file.
        set_aside: Files that were damaged or in the way, under their new names.
        lock: Held during each transaction; hold it around several that belong together.
        state: The summary as of the last commit.
        clock: Ages of rows.
        dirty: Something was written since this was last set to False.
        undeclared: Number of lost observations that no gap declares yet.
        openings: Number of times that a file has been opened.

    Raises:
        OutboxError: Another process has it, it is another program's or a later release's, or it cannot be written.
    """

    state: State
    clock: AgeClock

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Synchronous,
        read_clocks: Callable[[], Reading],
        wait_for_disk: bool = False,
    ) -> None:
        self.path = path
        self.set_aside: list[Path] = []
        self.lock = threading.RLock()
        self.dirty = True
        self.undeclared = 0
        self.openings = 0
        self.state = State(incarnation=secrets.token_hex(8), next_seq=_unlike_any(), dropped=NOTHING_DROPPED)
        self.clock = AgeClock(AgeState(), read_clocks)
        self._synchronous = synchronous
        self._read_clocks = read_clocks
        self._mark = MarkFile(path)
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._log_identity: tuple[int, int] | None = None
        self._lock_file: TextIO | None = None
        self._known: tuple[State, AgeState] | None = None
        self._waiting = False
        self._suspect = False
        self._closed = False
        self._failure: OutboxError | None = None
        self._retry_s = 0.0
        self._recheck_s = 0.0
        try:
            self._open()
        except OutboxError as error:
            if not (wait_for_disk and failures.may_pass(error)):
                self.close()
                raise
            self._waiting = True
            _LOG.error("observations cannot be kept on disk, and wait in memory: %s", error)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and release its lock."""
        with self.lock:
            if self.undeclared and not self._closed:
                _LOG.error(
                    "%s could not be written to the outbox %s. %s.",
                    counted(self.undeclared, "observation"),
                    self.path,
                    "Lost" if self._waiting else "To be declared as lost when it is opened again",
                )
            self._closed = True
            self._disconnect()
            self._mark.close()
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None

    def lose(self, count: int) -> None:
        """Count observations that could not be written; the mark keeps the count until a gap declares it."""
        self.undeclared += count
        if not self._waiting:
            self._mark.write(self._marked(), sync=False)

    def _marked(self) -> Mark:
        state = self.state if self._known is None else self._known[0]
        return Mark.of(replace(state, given=state.given + self.undeclared, in_gaps=state.in_gaps + self.undeclared))

    @property
    def is_open(self) -> bool:
        """Return whether there is a file to write to."""
        return self._db is not None

    def _open(self) -> None:
        """Open the file, or begin a new one."""
        try:
            self._claim()
            self._mark.open()
            if identity(self.path) is None:
                self._begin_fresh()
                return
            stale_possible = self._suspect or folder.has_log(self.path)
            try:
                if self.path.stat().st_size == 0:
                    raise malformed("the file is empty")
                self._connect(leap=True)
            except sqlite3.Error as error:
                if not failures.is_damage(error) and not failures.is_unreadable(
                    error, self.path, folder.log_path(self.path)
                ):
                    raise
                self._replace_damaged(error, stale_possible=stale_possible)
        except (sqlite3.Error, OSError) as error:
            raise failures.outbox_error(self.path, "opening", error) from error

    def _claim(self) -> None:
        """Lock the outbox; again, if the lock file was removed, with the folder or alone."""
        held = self._lock_file
        if held is not None and folder.still_locked(self.path, held):
            return
        self._lock_file = folder.lock(self.path)
        if held is not None:
            held.close()

    def _connect(self, *, leap: bool) -> None:
        stale_possible = self._suspect or folder.has_log(self.path)
        with contextlib.ExitStack() as stack:
            db = database.connect(self.path)
            stack.callback(db.close)
            audit = audited(db, stale_possible=stale_possible)
            clock = AgeClock(audit.age, self._read_clocks)

            def settle() -> tuple[State, int]:
                state, lost = settled(db, audit, self._mark.mark)
                if leap or self._waiting:
                    told = self.state.next_seq if self._waiting else 0
                    state = replace(state, next_seq=_leapt(max(state.next_seq, told)))
                save_state(db, state, clock.state())
                return state, lost

            state, lost = database.transaction_making_room(self.path, db, settle)
            self._identity = identity(self.path)
            self._log_identity = identity(folder.log_path(self.path))
            self._db, self.state, self.clock = db, state, clock
            self.undeclared = self.undeclared if self._waiting else 0  # else the mark had it
            self._known, self._waiting, self._suspect, self.openings = None, False, False, self.openings + 1
            stack.pop_all()
        self._mark.write(self._marked(), sync=True)
        if lost:
            _LOG.warning(
                "%s missing in the outbox %s, which is damaged or older than it should be, and now declared as lost. "
                "Check the disk.",
                counted(lost, "observation"),
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
        if closing and not self.state.undelivered and not self.undeclared:
            return
        _LOG.log(
            logging.ERROR if closing and waited else logging.WARNING,
            "the outbox %s was %s while in use, with %s waiting in it: lost. A new one is "
            "started, which declares the loss as a gap. Stop the camera before you move its outbox.",
            self.path,
            what,
            counted(waited, "observation"),
        )
        self._start_over(self._take_place)

    def _take_place(self) -> None:
        """Start a new file where the old one was; a file that lies there is set aside."""
        self._claim()
        self._mark_known()
        if identity(self.path) is not None:
            self.set_aside.append(folder.set_aside(self.path))
            _LOG.warning("the file in its place is set aside as %s.", self.set_aside[-1].name)
        self._begin_fresh()

    def _begin_fresh(self) -> None:
        """Start a new file where there is none; what the one before held is declared as lost."""
        mark = self._mark.mark
        if mark is not None and mark.undelivered and self._known is None:
            _LOG.warning(
                "the outbox %s is gone, with %s waiting in it. A new one is started, which declares the loss as a gap.",
                self.path,
                counted(mark.undelivered, "observation"),
            )
        build_fresh(self.path, mark, lost=0 if mark is None else mark.undelivered)
        folder.install(self.path)
        self._connect(leap=False)

    def _start_over(self, begin: Callable[[], None]) -> None:
        """Begin with another file; nothing waits until there is one."""
        given, in_gaps = self.state.given + self.undeclared, self.state.in_gaps + self.undeclared
        self._known = replace(self.state, given=given, in_gaps=in_gaps), self.clock.state()
        self.undeclared = 0
        self.state = replace(self.state, rows=0, payload_bytes=0, gaps=0, in_gaps=0, crc_sum=0)
        try:
            begin()
        except (sqlite3.Error, OSError) as failure:
            self._disconnect()
            raise failures.outbox_error(self.path, "starting anew", failure) from failure

    def _replace_damaged(self, error: sqlite3.Error, *, stale_possible: bool) -> None:
        """Set the damaged file aside, and start another with what is intact of it."""
        self._disconnect()
        self._mark_known()
        folder.remove_aside(self.path, older_than_s=-1)  # for their space
        kept, lost = build_rescued(self.path, self._known, self._mark.mark, stale_possible=stale_possible)
        aside = folder.set_aside(self.path)
        self.set_aside.append(aside)
        _LOG.warning(
            "the outbox %s is damaged (%s): set aside as %s, and another is started. Observations in it that were "
            "intact, and are copied: %d. Declared as lost: %d. Check the disk.",
            self.path,
            error,
            aside.name,
            kept,
            lost,
        )
        folder.install(self.path)
        self._connect(leap=True)

    def _mark_known(self) -> None:
        """Write what waited in a file that is given up, so that it is declared whatever happens from here."""
        if self._known is not None:
            self._mark.write(self._marked(), sync=True)

    def exchange(self, beside: Path | None, taken: Path) -> None:
        """Go on with another file: ``taken`` if it exists, else a new one.

        Args:
            beside: Where the present file is kept; None deletes it.
            taken: File to take up.

        Raises:
            OutboxError: ``taken`` is in use, or a file cannot be renamed or opened; no file is lost.
        """
        with self.lock, contextlib.ExitStack() as stack:
            db = self._connection()
            try:
                if identity(taken) is not None:
                    stack.enter_context(contextlib.closing(folder.lock(taken)))
                    database.give_up_log(taken, database.connect(taken))
                self._db = None
                database.give_up_log(self.path, db)
                self._mark.close()
                self._mark, self._known = MarkFile(self.path), None
                if beside is None:
                    folder.remove(self.path)
                else:
                    folder.put_beside(self.path, beside)
                if identity(taken) is not None:
                    folder.take_up(taken, self.path)
            except (sqlite3.Error, OSError) as error:
                self._disconnect()
                raise failures.outbox_error(self.path, "exchanging it", error) from error
            self._open()

    def write(
        self,
        doing: str,
        work: Callable[[sqlite3.Connection, State], tuple[State, Result]],
        *,
        synchronous: Synchronous | None = None,
    ) -> Result:
        """Run ``work`` in a transaction; the state that it returns counts once the transaction is committed.

        Losses that no gap declares yet are declared in the same transaction.
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
                state, result = database.transaction_making_room(self.path, db, partial(self._saved, db, work))
            except sqlite3.Error as error:
                self._give_up(doing, error)
            grown, self.state, self.dirty = state.given > self.state.given, state, True
            self.undeclared = 0
            self._mark.write(Mark.of(state), sync=grown and self._synchronous == "FULL")
            return result

    def _saved(
        self, db: sqlite3.Connection, work: Callable[[sqlite3.Connection, State], tuple[State, Result]]
    ) -> tuple[State, Result]:
        """Declare the losses, run ``work``, and write the state that it returns."""
        state, result = work(db, note_loss(db, self.state, self.undeclared))
        save_state(db, state, self.clock.state())
        return state, result

    def read(self, work: Callable[[sqlite3.Connection], Result], otherwise: Result) -> Result:
        """Run ``work`` and return its result, or ``otherwise`` if there has been no file yet.

        Raises:
            OutboxError: The file cannot be read.
            SetAsideError: The file was damaged, and another has been started.
        """
        with self.lock:
            if self._waiting and not self._closed:
                return otherwise
            try:
                return work(self._connection())
            except sqlite3.Error as error:
                self._give_up("reading", error)

    def recheck(self) -> bool:
        """Open the file again, since some of it is damaged: all is read then, and what is missing is declared.

        Returns:
            False if the disk does not take that now, and everything is as it was.
        """
        try:
            self.write("writing", lambda _, state: (state, None))
        except OutboxError as error:
            _LOG.warning("what is damaged stays in the outbox %s for now: %s", self.path, error)
            return False
        _LOG.warning("the outbox %s has changed on disk: it is read whole. Check the disk.", self.path)
        self._disconnect()
        self._suspect = True
        self._connection()
        return True

    def found_damaged(self, what: str) -> None:
        """Start another file, since this one was found to be damaged by what SQLite does not notice."""
        with suppress(SetAsideError):
            self._give_up("reading", malformed(what))

    def reopen(self) -> bool:
        """Open the file if it is not; return whether it is open."""
        with self.lock, suppress(OutboxError):
            self._connection()
        return self.is_open

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise OutboxError(f"the outbox {self.path} is closed.")
        if self._db is None:
            begin_s = time.monotonic()
            if self._failure is not None and begin_s < self._retry_s:
                raise OutboxError(str(self._failure)) from self._failure
            try:
                self._open()
            except OutboxError as error:
                took_s = time.monotonic() - begin_s
                self._failure, self._retry_s = error, begin_s + (_REST * took_s if took_s > _LONG_S else 0)
                raise
        assert self._db is not None
        return self._db

    def _give_up(self, doing: str, error: sqlite3.Error) -> NoReturn:
        """Raise OutboxError for a failure, or replace a damaged file and raise SetAsideError."""
        if type(error) is not sqlite3.DatabaseError:
            if failures.is_damage(error) or (failures.is_io_error(error) and self._is_shorter()):
                self._disconnect()  # opening it again will tell
                self._suspect = True
            raise failures.outbox_error(self.path, doing, error) from error
        self._start_over(lambda: self._replace_damaged(error, stale_possible=True))
        raise SetAsideError from error

    def _is_shorter(self) -> bool:
        """Return whether the file or its log cannot be read whole, at most once a minute: that takes seconds."""
        if self._db is None or time.monotonic() < self._recheck_s:
            return False
        self._recheck_s = time.monotonic() + _RECHECK_S
        try:
            return bool(self._db.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)])
        except sqlite3.Error:
            return True


def _leapt(next_seq: int) -> int:
    """Return a sequence number far above, unlike the one that another opening of the same file leaps to."""
    return ((next_seq >> 20) + 1 + secrets.randbelow(1 << 16)) << 20


def _unlike_any() -> int:
    """Return a sequence number that no outbox has given, for tracklets that begin before there is a file."""
    return (1 << 44) + (secrets.randbelow(1 << 26) << 20)
