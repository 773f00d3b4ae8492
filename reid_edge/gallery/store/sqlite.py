"""A gallery in one SQLite file: fp16 features, compared exactly by NumPy after SQL has filtered."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.errors import ModelMismatchError, StoreError
from reid_edge.files import identity
from reid_edge.gallery.entries import Entry, Match, Record, Selection
from reid_edge.gallery.store.base import Added, AuditEntry, Erased, Erasure, StoredGap
from reid_edge.gallery.store.columns import COLUMNS, checksum_of, row_of
from reid_edge.gallery.store.erasures import covering, deleted_now, new_erasure, not_erased
from reid_edge.gallery.store.sql import COLUMN_NAMES, SqlStore, condition, sql_entry
from reid_edge.gallery.store.sqlite_file import connect, store_errors
from reid_edge.types import Feature

STORED = np.dtype("<f2")
Numbers = npt.NDArray[np.int64]
#: Numbers of rows, ascending, and their features, n×D float32.
Block = tuple[Numbers, npt.NDArray[np.float32]]
#: Number of row numbers that a block covers.
SPAN = 8192
#: Memory for features: half a million observations of 512 numbers.
MEMORY_BYTES = 1 << 30
#: Rows compared at a time when a search does not cover everything.
ROWS_AT_A_TIME = 8192
#: Longest wait of a close for another thread's call; it waits as long again after interrupting that call.
CLOSE_S = 2.0

_MARKS = ", ".join("?" * (len(COLUMNS) + 2))
_INSERT = f"INSERT OR IGNORE INTO observations ({COLUMN_NAMES}, feature, checksum) VALUES ({_MARKS})"  # noqa: S608


class SqliteStore(SqlStore):
    """See :class:`reid_edge.gallery.store.base.Store`.

    If the file is removed or replaced while it is open, the call that notices fails, and the next one opens what is
    there then.

    Args:
        path: Path of the file.
        create: Make it if there is none.
        memory_bytes: Memory for features that searches of everything may keep from one to the next.

    Raises:
        StoreError: There is no gallery, or it cannot be opened.
    """

    mark = "?"

    def __init__(self, path: Path, *, create: bool, memory_bytes: int = MEMORY_BYTES) -> None:
        self.name = f"sqlite:{path}"
        self._path = path.absolute()
        self._create = create
        self._closed = False
        self._lock = threading.RLock()
        self._blocks = FeatureBlocks(memory_bytes)
        self._open()

    def add(self, records: Sequence[Record], gaps: Sequence[StoredGap] = ()) -> Added:
        """Store the records and gaps that are not stored yet."""
        with self._writing() as db:
            numbers = self._model_numbers(db, records)
            fresh = not_erased(records, self._erasures(db))
            rows = [_row(record, numbers[record.entry.model_hash]) for record in fresh]
            stored = db.executemany(_INSERT, rows).rowcount if rows else 0
            new_gaps = self._add_gaps(db, gaps)
        return Added(stored, len(fresh) - stored, len(records) - len(fresh), new_gaps)

    def search(self, feature: Feature, *, model_hash: str, selection: Selection, top: int) -> list[Match]:
        """Return the observations nearest to a feature."""
        with self._reading() as db:
            model = db.execute("SELECT number FROM models WHERE hash = ?", (model_hash,)).fetchone()
            if model is None:
                return []
            by_time_alone = selection == Selection(since_us=selection.since_us)
            scored = self._scores_of_all if by_time_alone else self._scores_of_some
            numbers, scores = scored(db, model[0], feature, selection)
            chosen = _best(scores, top)
            return [
                Match(_entry(db, int(number), model_hash), min(1.0, float(score)))
                for number, score in zip(numbers[chosen], scores[chosen], strict=True)
            ]

    def find(self, camera: str, incarnation_start: str, seq: int) -> list[Record]:
        """Return the records of a camera and number whose incarnation begins so."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {COLUMN_NAMES}, feature, hash FROM observations JOIN models ON models.number = model "  # noqa: S608
                "WHERE camera = ? AND seq = ? AND substr(epoch, 1, ?) = ? ORDER BY epoch",
                (camera, seq, len(incarnation_start), incarnation_start),
            ).fetchall()
        return [Record(sql_entry(row, row[-1]), _features([row[-2]])[0]) for row in rows]

    def erase(self, selection: Selection, *, now_us: int, boot: str = "") -> Erased:
        """Delete the selected observations and keep them out."""
        erasure = new_erasure(selection, now_us=now_us, boot=boot)
        with self._writing() as db:
            rows = self._delete(db, deleted_now(selection, erasure))
            erasure = covering(erasure, max((row[3] for row in rows), default=None))
            self._put_erasure(db, erasure)
        return Erased(tuple(sorted(row[:3] for row in rows)), self._forget(), erasure)

    def apply_erasures(self, erasures: Sequence[Erasure]) -> Erased:
        """Put erasures in force that were made elsewhere, and delete what they cover."""
        keys = set()
        with self._writing() as db:
            for erasure in erasures:
                keys |= {row[:3] for row in self._delete(db, erasure.selection)}
                self._put_erasure(db, erasure)
        return Erased(tuple(sorted(keys)), self._forget())

    def expire(self, before_us: int, note: AuditEntry | None = None) -> int:
        """Delete observations and gaps from before a time."""
        with self._writing() as db:
            count = self._delete_before(db, before_us, note)
        if count:
            self._forget()
        return count

    def accept_model(self, model_hash: str, dim: int | None, *, now_us: int, only_first: bool = False) -> bool:
        """Take features of this model from now on."""
        with self._writing() as db:
            known = "EXISTS (SELECT 1 FROM models)" if only_first else "FALSE"
            db.execute(
                f"INSERT OR IGNORE INTO models (hash, dim, accepted_us) SELECT ?, ?, ? WHERE NOT {known}",
                (model_hash, dim, now_us),
            )
            db.execute("UPDATE models SET dim = coalesce(dim, ?) WHERE hash = ?", (dim, model_hash))
            row = db.execute("SELECT dim FROM models WHERE hash = ?", (model_hash,)).fetchone()
        return row is not None and dim in (None, row[0])

    def close(self) -> None:
        """Close the file."""
        self._closed = True
        if not self._lock.acquire(timeout=CLOSE_S):
            with contextlib.suppress(sqlite3.Error):  # it was closed meanwhile
                self._connection.interrupt()
            if not self._lock.acquire(timeout=CLOSE_S):
                return  # it waits for another process; nothing of it is committed when this one ends
        try:
            self._blocks.clear()
            self._connection.close()
        finally:
            self._lock.release()

    def _open(self) -> None:
        """Open the file, and remember its identity."""
        self._connection = connect(self._path, create=self._create)
        self._file = identity(self._path)
        self._blocks.clear()
        self._listed: tuple[tuple[int, int, int], Numbers] = ((0, 0, 0), _numbers(()))

    def _check_file(self) -> None:
        """Raise StoreError if the file was removed or replaced: what it takes would be lost."""
        if self._file is None or identity(self._path) != self._file:
            self._file = None
            raise StoreError(
                f"the gallery's file {self._path} was removed or replaced while it was open; the next attempt opens "
                f"what is there{' or makes it anew' if self._create else ''}."
            )

    def _ready(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"the gallery in {self._path} is closed.")
        if self._file is None:
            self._connection.close()
            self._open()
        self._check_file()
        return self._connection

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock, store_errors(self._path):
            db = self._ready()
            db.execute(begin)
            try:
                yield db
                self._check_file()
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite itself undoes some
                    db.execute("ROLLBACK")
                raise
            self._check_file()  # it may have been removed during the commit

    def _reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._transaction("BEGIN")

    def _writing(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._transaction("BEGIN IMMEDIATE")

    @staticmethod
    def _delete(db: sqlite3.Connection, selection: Selection) -> list[tuple[str, str, int, int]]:
        """Delete the selected observations; return camera, incarnation, number and first sight of each."""
        where, values = condition(selection, "?")
        return db.execute(
            f"DELETE FROM observations WHERE {where} RETURNING camera, epoch, seq, first_us",  # noqa: S608
            values,
        ).fetchall()

    def _lock_audit(self, db: Any) -> None:
        """Do nothing: there is one writer at a time anyway."""

    @staticmethod
    def _model_numbers(db: sqlite3.Connection, records: Sequence[Record]) -> dict[str, int]:
        numbers: dict[str, int] = dict(db.execute("SELECT hash, number FROM models").fetchall())
        if unknown := {record.entry.model_hash for record in records} - set(numbers):
            raise ModelMismatchError(f"the gallery has not accepted the model {min(unknown)}.")
        return numbers

    def _scores_of_all(
        self, db: sqlite3.Connection, model: int, feature: Feature, selection: Selection
    ) -> tuple[Numbers, Feature]:
        """Return the numbers and scores of all rows of a model but those that were last seen too early."""

        def load(start: int, stop: int) -> Block:
            rows = db.execute(
                "SELECT number, feature FROM observations WHERE number >= ? AND number < ? AND +model = ?",
                (start, stop, model),
            ).fetchall()
            return _numbers(row[0] for row in rows), _features([row[1] for row in rows], feature.size)

        live = self._live(db, model)
        scores = self._blocks.scores(model, live, feature, load)
        early = db.execute("SELECT number FROM observations WHERE last_us < ?", (selection.since_us or 0,)).fetchall()
        late = np.isin(live, _numbers(number for (number,) in early), invert=True)
        return live[late], scores[late]

    def _live(self, db: sqlite3.Connection, model: int) -> Numbers:
        """Return the numbers of all rows of a model, listed again if this or another process has written since."""
        (others,) = db.execute("PRAGMA data_version").fetchone()
        state = (model, others, db.total_changes)
        if self._listed[0] != state:
            rows = db.execute("SELECT number FROM observations WHERE model = ? ORDER BY number", (model,))
            self._listed = (state, _numbers(number for (number,) in rows))
        return self._listed[1]

    @staticmethod
    def _scores_of_some(
        db: sqlite3.Connection, model: int, feature: Feature, selection: Selection
    ) -> tuple[Numbers, Feature]:
        where, values = condition(selection, "?")
        rows = db.execute(
            f"SELECT number, feature FROM observations WHERE +model = ? AND {where}",  # noqa: S608
            (model, *values),
        )
        numbers, scores = [_numbers(())], [np.empty(0, np.float32)]
        while some := rows.fetchmany(ROWS_AT_A_TIME):
            numbers.append(_numbers(row[0] for row in some))
            scores.append(_products(_features([row[1] for row in some], feature.size), feature))
        return np.concatenate(numbers), np.concatenate(scores)

    def _forget(self) -> str:
        """Empty the write-ahead log, which still holds deleted rows; return what is left of them, in words."""
        with self._lock, store_errors(self._path):
            self._blocks.clear()
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return (
            f"{self._path}-wal may still hold bytes, since another process was reading; 'gallery expire' empties it"
            if busy
            else "none"
        )


class FeatureBlocks:
    """Features of one model in blocks of :data:`SPAN` successive row numbers.

    Rows never change and their numbers are never given twice, so a block is good as long as it holds exactly the rows
    that the database lists now; that is checked at every search, hence other processes may write.

    Args:
        limit_bytes: Memory that the features may take; what does not fit is read at every search.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._model: int | None = None
        self._blocks: dict[int, Block] = {}

    def scores(self, model: int, live: Numbers, feature: Feature, load: Callable[[int, int], Block]) -> Feature:
        """Return the products of a feature with those of all rows of a model.

        Args:
            model: Number of the model.
            live: Numbers of all its rows at present, ascending, N.
            feature: D float32.
            load: Returns the rows of that model from one number up to, but not including, another.

        Returns:
            N float32.
        """
        before, self._blocks = self._blocks if self._model == model else {}, {}
        self._model = model
        held = 0
        parts = [np.empty(0, np.float32)]
        for start, numbers in _spans(live):
            block = before.pop(start, None)
            if block is None or not np.array_equal(block[0], numbers):
                block = load(start, start + SPAN)
            parts.append(_products(block[1], feature))
            if held + block[1].nbytes <= self._limit:
                self._blocks[start] = block
                held += block[1].nbytes
        return np.concatenate(parts)

    def clear(self) -> None:
        """Forget all features."""
        self._blocks = {}


def _products(features: npt.NDArray[np.float32], feature: Feature) -> Feature:
    """Return the products of N×D features with one; N float32.

    Not by BLAS: its threads wait for one another on a busy machine, and the product is bound by memory anyway (17 ms
    against 17 to 95 ms for 98,304×512 on 2 cores).
    """
    scores: Feature = np.einsum("nd,d->n", features, feature)
    return scores


def _best(scores: Feature, top: int) -> npt.NDArray[np.intp]:
    """Return the indices of the highest scores, highest first."""
    some = np.argpartition(-scores, top)[:top] if len(scores) > top else np.arange(len(scores))
    return some[np.argsort(-scores[some], kind="stable")]


def _spans(live: Numbers) -> Iterator[tuple[int, Numbers]]:
    """Yield the first possible number of each block that holds rows, and the numbers of its rows."""
    if not len(live):
        return
    bounds = np.arange(live[0] // SPAN, live[-1] // SPAN + 2) * SPAN
    edges = np.searchsorted(live, bounds)
    for bound, first, last in zip(bounds[:-1], edges[:-1], edges[1:], strict=True):
        if last > first:
            yield int(bound), live[first:last]


def _entry(db: sqlite3.Connection, number: int, model_hash: str) -> Entry:
    row = db.execute(f"SELECT {COLUMN_NAMES} FROM observations WHERE number = ?", (number,)).fetchone()  # noqa: S608
    return sql_entry(row, model_hash)


def _row(record: Record, model: int) -> tuple[object, ...]:
    """Return a record as a row of observations."""
    feature = _blob(record.feature)
    return (*row_of(record.entry, model).values(), feature, checksum_of(record.entry, feature))


def _blob(feature: Feature) -> bytes:
    return feature.astype(STORED).tobytes()


def _features(blobs: Sequence[bytes], dim: int = -1) -> Feature:
    rows = np.frombuffer(b"".join(blobs), STORED).astype(np.float32)
    return rows.reshape(len(blobs), dim) if blobs else rows.reshape(0, max(dim, 0))


def _numbers(values: Iterable[int]) -> Numbers:
    return np.fromiter(values, np.int64)
