"""Transactions on a gallery's SQLite file; when it is opened, it is noticed whether it lost commits or was replaced."""

from __future__ import annotations

import abc
import contextlib
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reid_edge.errors import StoreError
from reid_edge.gallery.store.base import AuditEntry, Erased, Erasure
from reid_edge.gallery.store.damage import DamagedRows
from reid_edge.gallery.store.sql import SqlStore
from reid_edge.gallery.store.sqlite_beside import ErasureJournal, Mark, MarkFile, journal_path, mark_path
from reid_edge.gallery.store.sqlite_file import connect, repair_advice, store_errors
from reid_edge.gallery.store.sqlite_watch import FileWatch
from reid_edge.wording import counted

log = logging.getLogger(__name__)

#: Longest wait of a close for another thread's call; it waits as long again after interrupting that call.
CLOSE_S = 2.0


class SqliteTransactions(SqlStore):
    """Base of the SQLite store: its connection, the journal of erasures and the mark of commits.

    Args:
        path: Path of the file.
        create: Make it if there is none.
        beside: Keep a journal and a mark beside it.

    Raises:
        StoreError: There is no gallery, or it cannot be opened.
    """

    damaged: DamagedRows
    mark = "?"
    last_event = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'person_events'"
    piece = "number IN (SELECT number FROM observations WHERE {})"

    def __init__(self, path: Path, *, create: bool, beside: bool = True) -> None:
        self.name = f"sqlite:{path}"
        self._path = path.absolute()
        self._create = create
        self._closed = False
        self._watch: FileWatch | None = None
        self._stale = False  # what is at the path has to be opened
        self._was_removed = False
        self._lost = ""  # why nothing may be written
        self._lock = threading.RLock()
        self._journal = ErasureJournal(journal_path(self._path)) if beside else None
        self._marks = MarkFile(mark_path(self._path)) if beside else None
        self._open()

    @abc.abstractmethod
    def apply_erasures(self, erasures: Sequence[Erasure]) -> Erased:
        """Put erasures in force that were made elsewhere, and delete what they cover."""

    @abc.abstractmethod
    def _forget_features(self) -> None:
        """Forget what is kept of the file in memory."""

    def close(self) -> None:
        """Close the file."""
        self._closed = True
        if not self._lock.acquire(timeout=CLOSE_S):
            with contextlib.suppress(sqlite3.Error):  # it was closed meanwhile
                self._connection.interrupt()
            if not self._lock.acquire(timeout=CLOSE_S):
                return  # it waits for another process; nothing of it is committed when this one ends
        try:
            self._forget_features()
            self._let_go()
        finally:
            self._lock.release()

    def _let_go(self) -> None:
        self._connection.close()
        if self._watch is not None:
            self._watch.close()
        self._watch = None

    def _open(self) -> None:
        """Open the file, and watch it from now on; compare it with what lies beside it."""
        marked = self._marks.read() if self._marks else None  # before the file: it is never ahead of a sound one
        self._connection = connect(self._path, create=self._create)
        self._forget_features()
        self._lost = ""
        try:
            with store_errors(self._path):
                self._connection.execute("SELECT count(*) FROM settings").fetchone()  # there is a log from here on
                self._watch = FileWatch(self._path)
            differs = self._difference(marked)
            self._merge_journal(all_again=differs is not None)  # first, so that a kill in between forgets no erasure
            if differs is not None:
                self._record_difference(*differs)
            elif not self._was_removed:
                self.damaged.clear()
        except BaseException:
            self._let_go()
            raise

    def _difference(self, marked: Mark | None) -> tuple[Mark, Mark] | None:
        """Return file and mark as they are if the file lacks commits of the mark, or is not the one that was marked."""
        if self._marks is None or marked is None:
            return None
        with self._reading() as db:
            known = dict(db.execute("SELECT name, value FROM settings").fetchall())
            found = Mark(known.get("gallery", ""), int(known.get("commits", "0")))
        whole = found.gallery == marked.gallery and found.commits >= marked.commits
        return None if whole else (found, marked)

    def _record_difference(self, found: Mark, marked: Mark) -> None:
        """Record in log and audit that commits are lost, or that another file is in the place."""
        detail: dict[str, Any] = {"commits": found.commits, "marked": marked.commits}
        if found.gallery == marked.gallery:
            lost = marked.commits - found.commits
            action, what = "commits lost", f"{lost} {'commits are' if lost > 1 else 'commit is'} missing at the end of"
        else:
            action, what = "file replaced", "another file is in the place of"
        self.damaged.note_loss(f"{what} the gallery; the audit says so")
        log.error(
            "%s the gallery %s: the audit says so. What cameras still have comes again if a backup is restored.%s",
            what,
            self._path,
            repair_advice(self._path),
        )
        with self._writing() as db:
            self._append(db, AuditEntry(at_us=_now_us(), user="reid-edge", action=action, purpose="", detail=detail))
            if found.gallery == marked.gallery:
                counted = self._counted(db).commits  # erasures that were applied again count, too
                self._change_setting(db, "commits", str(max(counted, marked.commits)))

    def _merge_journal(self, *, all_again: bool) -> None:
        """Put erasures in force that the file does not know, being an older copy, and complete the journal.

        Args:
            all_again: Those that it knows, too: pages from before and after an erasure may be mixed.
        """
        if self._journal is None:
            return
        written = {erasure.id: erasure for erasure in self._read_journal()}
        held = {erasure.id: erasure for erasure in self.erasures()}
        missing = [one for one in written.values() if held.get(one.id) != one and not _later(held.get(one.id), one)]
        if missing:
            log.warning("%s of %s only in its journal: applied now.", counted(len(missing), "erasure"), self._path)
            erased = self.apply_erasures(missing)
            detail = {"erasures": [one.id for one in missing], "observations": len(erased.keys)}
            self.audit_append(
                AuditEntry(at_us=_now_us(), user="reid-edge", action="erase again", purpose="", detail=detail)
            )
        elif unwritten := [one for one in held.values() if one.id not in written]:
            with self._writing():
                self._journal.append(unwritten)
        if all_again and held:
            self.apply_erasures(list(held.values()))

    def _read_journal(self) -> list[Erasure]:
        with store_errors(self._path):
            return self._journal.read() if self._journal else []

    def _check_file(self) -> None:
        """Raise StoreError if the file was removed, replaced or overwritten: what it takes would be lost."""
        if self._watch is None or not self._watch.is_in_place:
            if self._watch is not None and self._watch.is_gone:
                self._was_removed = True
                self.damaged.note_loss("its file was removed while it was open, with all that it held")
            self._stale = True
            raise StoreError(
                f"the gallery's file {self._path} was removed or replaced while it was open; the next attempt opens "
                f"what is there{' or makes it anew' if self._create else ''}."
            )
        try:
            self._watch.check_contents()
        except StoreError as error:
            raise StoreError(f"{error}{repair_advice(self._path)}") from error
        if not self._watch.logs_are_in_place:
            self._stale = True
            raise StoreError(f"the log of the gallery {self._path} was removed while it was open; it is opened again.")

    def _ready(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"the gallery in {self._path} is closed.")
        if self._stale:
            self._open_again()
        self._check_file()
        return self._connection

    def _open_again(self) -> None:
        """Open what is at the path now; of a file that only lacks its log, what the log held is written first."""
        if self._watch is not None and self._watch.is_in_place:
            self._watch.check_contents()
            with contextlib.suppress(sqlite3.Error):  # the mark tells what is missing
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._let_go()
        self._stale = False
        try:
            self._open()
        except BaseException:
            self._stale = True
            raise
        self._was_removed = False

    @contextlib.contextmanager
    def _transaction(self, begin: str, *, counted: bool = False) -> Iterator[sqlite3.Connection]:
        with self._lock, store_errors(self._path):
            db = self._ready()
            if counted and self._lost:
                raise StoreError(f"{self._lost}; nothing is stored.{repair_advice(self._path)}")
            db.execute(begin)
            try:
                yield db
                mark = self._counted(db) if counted else None
                self._check_file()
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite itself undoes some
                    db.execute("ROLLBACK")
                raise
            self._check_file()  # it may have been removed during the commit
            if mark is not None and self._marks is not None:
                self._marks.write(mark)

    def _counted(self, db: sqlite3.Connection) -> Mark:
        """Count the commit that follows; return the mark that it makes."""
        db.execute("INSERT OR IGNORE INTO settings VALUES ('gallery', ?)", (uuid.uuid4().hex,))
        (commits,) = db.execute(
            "INSERT INTO settings VALUES ('commits', '1') ON CONFLICT (name) DO UPDATE "
            "SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) RETURNING CAST(value AS INTEGER)"
        ).fetchone()
        (gallery,) = db.execute("SELECT value FROM settings WHERE name = 'gallery'").fetchone()
        return Mark(gallery, commits)

    def _reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._transaction("BEGIN")

    def _writing(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._transaction("BEGIN IMMEDIATE", counted=True)

    def _many(self, db: Any, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        db.executemany(sql, rows)

    def _begin_events_after(self, db: Any, number: int) -> None:
        """Give the next event a larger number than this one."""
        db.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'person_events', 0 "
            "WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'person_events')"
        )
        db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'person_events'", (number,))

    def _lock_audit(self, db: Any) -> None:
        """Do nothing: there is one writer at a time anyway."""

    def _forget(self) -> str:
        """Empty the write-ahead log, which still holds deleted rows; return what is left of them, in words."""
        with self._lock, store_errors(self._path):
            self._forget_features()
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return (
            f"{self._path}-wal may still hold bytes, since another process was reading; 'gallery expire' empties it"
            if busy
            else "none"
        )


def _later(held: Erasure | None, written: Erasure) -> bool:
    """Return True if an erasure differs from what the journal says in ending later alone."""
    if held is None or held.until_us <= written.until_us:
        return False
    return replace(held.selection, until_us=written.until_us) == written.selection


def _now_us() -> int:
    return time.time_ns() // 1000
