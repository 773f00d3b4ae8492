"""A gallery in one SQLite file: fp16 features, compared exactly by NumPy after SQL has filtered."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.gallery.entries import Match, Record, Selection
from reid_edge.gallery.store.base import Added, AuditEntry, Erased, Erasure, StoredGap
from reid_edge.gallery.store.columns import COLUMNS, checksum_of, intact_entry, row_of
from reid_edge.gallery.store.damage import DamagedRows
from reid_edge.gallery.store.erasures import covering, deleted_now, new_erasure, not_erased, spent_us
from reid_edge.gallery.store.snapshots import RECORDS, Snapshot, SqlSnapshot
from reid_edge.gallery.store.sql import COLUMN_NAMES, condition
from reid_edge.gallery.store.sqlite_features import (
    STORED,
    Block,
    FeatureBlocks,
    Numbers,
    best,
    features_of,
    intact,
    numbers_of,
    products,
)
from reid_edge.gallery.store.sqlite_file import connect_again, store_errors
from reid_edge.gallery.store.sqlite_look import RollingLook
from reid_edge.gallery.store.sqlite_transactions import SqliteTransactions
from reid_edge.types import Feature

#: Memory for features: half a million observations of 512 numbers.
MEMORY_BYTES = 1 << 30
#: Time that a look at the file may take, seconds.
LOOK_S = 0.2
#: Rows compared at a time when a search does not cover everything.
ROWS_AT_A_TIME = 8192

_MARKS = ", ".join("?" * (len(COLUMNS) + 2))
_INSERT = f"INSERT OR IGNORE INTO observations ({COLUMN_NAMES}, feature, checksum) VALUES ({_MARKS})"  # noqa: S608


class SqliteStore(SqliteTransactions):
    """See :class:`reid_edge.gallery.store.base.Store`.

    If the file is removed or replaced while it is open, the call that notices fails, and the next one opens what is
    there then.

    Args:
        path: Path of the file.
        create: Make it if there is none.
        memory_bytes: Memory for features that searches of everything may keep from one to the next.
        beside: Keep a journal of erasures and a mark of commits beside the file; a backup needs none.

    Raises:
        StoreError: There is no gallery, or it cannot be opened.
    """

    def __init__(self, path: Path, *, create: bool, memory_bytes: int = MEMORY_BYTES, beside: bool = True) -> None:
        self._blocks = FeatureBlocks(memory_bytes)
        self.damaged = DamagedRows(f"sqlite:{path}")
        self._journal_pruned = False
        self._looking = RollingLook(path.absolute(), self._record, self.damaged)
        self._forget_features()
        super().__init__(path, create=create, beside=beside)

    def add(self, records: Sequence[Record], gaps: Sequence[StoredGap] = ()) -> Added:
        """Store the records and gaps that are not stored yet."""
        with self._writing() as db:
            numbers = self._model_numbers(db, records)
            fresh = not_erased(records, self.erasures_of(db))
            rows = [_row(record, numbers[record.entry.model_hash]) for record in fresh]
            stored = db.executemany(_INSERT, rows).rowcount if rows else 0
            new_gaps, elsewhere = self._add_gaps(db, gaps)
        return Added(stored, len(fresh) - stored, len(records) - len(fresh), new_gaps, elsewhere)

    def search(self, feature: Feature, *, model_hash: str, selection: Selection, top: int) -> list[Match]:
        """Return the observations nearest to a feature."""
        with self._reading() as db:
            model = db.execute("SELECT number FROM models WHERE hash = ?", (model_hash,)).fetchone()
            if model is None:
                return []
            by_time_alone = selection == Selection(since_us=selection.since_us)
            scored = self._scores_of_all if by_time_alone else self._scores_of_some
            numbers, scores = scored(db, model[0], feature, selection)
            chosen = best(scores, top)
            records = [self._numbered(db, int(number), model_hash) for number in numbers[chosen]]
        return [
            Match(record.entry, min(1.0, float(score)), record.feature)
            for record, score in zip(records, scores[chosen], strict=True)
            if record is not None
        ]

    def find(self, camera: str, incarnation_start: str, seq: int) -> list[Record]:
        """Return the records of a camera and number whose incarnation begins so."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {COLUMN_NAMES}, observations.number, feature, checksum, hash FROM observations "  # noqa: S608
                "JOIN models ON models.number = model WHERE observations.number IN ("  # in an index
                "SELECT number FROM observations WHERE camera = ? AND seq = ? AND substr(epoch, 1, ?) = ?) "
                "ORDER BY epoch",
                (camera, seq, len(incarnation_start), incarnation_start),
            ).fetchall()
        return [record for record in map(self._record, rows) if record is not None]

    def erase(self, selection: Selection, *, now_us: int, boot: str = "") -> Erased:
        """Delete the selected observations and keep them out."""
        erasure = new_erasure(selection, now_us=now_us, boot=boot)
        with self._writing() as db:
            rows = self._delete(db, deleted_now(selection, erasure))
            erasure = covering(erasure, max((row[3] for row in rows), default=None))
            self._put_erasure(db, erasure)
            self._write_journal([erasure])
        return Erased(tuple(sorted(row[:3] for row in rows)), self._forget(), erasure)

    def apply_erasures(self, erasures: Sequence[Erasure]) -> Erased:
        """Put erasures in force that were made elsewhere, and delete what they cover."""
        keys = set()
        with self._writing() as db:
            for erasure in erasures:
                keys |= {row[:3] for row in self._delete(db, erasure.selection)}
                self._put_erasure(db, erasure)
            self._write_journal(erasures)
        return Erased(tuple(sorted(keys)), self._forget())

    def _write_journal(self, erasures: Sequence[Erasure]) -> None:
        """Write erasures into the journal, before they are committed."""
        if self._journal is not None:
            self._journal.append(erasures)

    def expire(self, before_us: int, note: AuditEntry | None = None) -> int:
        """Delete observations and gaps from before a time."""
        count = self._delete_before(self._writing, before_us, note)
        if self._journal is not None and not self._journal_pruned:
            with self._writing():
                self._journal.keep(lambda erasure: erasure.until_us >= spent_us(before_us))
            self._journal_pruned = True
        if count:
            self._forget()
        return count

    def _forget_features(self) -> None:
        """Forget what is kept of the file in memory."""
        self._blocks.clear()
        self._damaged_numbers: set[int] = set()
        self._listed: tuple[tuple[int | None, ...], Numbers] = ((), numbers_of(()))

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

    def structure(self) -> list[str]:
        """Have SQLite check the file, indexes included."""
        with (
            store_errors(self._path),
            contextlib.closing(connect_again(self._path)) as db,
        ):
            found = [str(row[0]) for row in db.execute("PRAGMA integrity_check(5)").fetchall()]
        return [] if found == ["ok"] else found

    def look(self) -> None:
        """Look at a part of the file; if what is newest cannot be read, nothing more is written to be lost with it."""
        with self._lock, store_errors(self._path):
            self._ready()
        with store_errors(self._path):
            self._lost = self._looking.look(LOOK_S)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read all that it holds at one moment, on a connection of its own: nobody has to wait."""
        with (
            store_errors(self._path),
            contextlib.closing(connect_again(self._path)) as db,
        ):
            db.execute("BEGIN")
            rows = db.execute(
                f"SELECT {COLUMN_NAMES}, observations.number, feature, checksum, hash FROM observations "  # noqa: S608
                "LEFT JOIN models ON models.number = model ORDER BY observations.number"
            )
            yield SqlSnapshot(db, iter(lambda: rows.fetchmany(RECORDS), []), self._record, self.last_event)

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

    def _scores_of_all(
        self, db: sqlite3.Connection, model: int, feature: Feature, selection: Selection
    ) -> tuple[Numbers, Feature]:
        """Return the numbers and scores of all rows of a model but those that were last seen too early."""

        def load(start: int, stop: int) -> Block:
            rows = db.execute(
                "SELECT number, feature, checksum FROM observations WHERE number >= ? AND number < ? AND +model = ?",
                (start, stop, model),
            ).fetchall()
            return numbers_of(row[0] for row in rows), self._intact_features(rows, feature.size)

        live = self._live(db, model)
        scores = self._blocks.scores(model, live, feature, load)
        early = db.execute("SELECT number FROM observations WHERE last_us < ?", (selection.since_us or 0,)).fetchall()
        left_out = [number for (number,) in early] + [*self._damaged_numbers]
        shown = np.isin(live, numbers_of(left_out), invert=True)
        return live[shown], scores[shown]

    def _intact_features(self, rows: Sequence[tuple[int, bytes, int]], dim: int) -> npt.NDArray[np.float32]:
        """Return the features of rows; of a damaged one, of which note is taken, zeros."""
        nothing = bytes(dim * STORED.itemsize)
        blobs = []
        for number, blob, checksum in rows:
            good = intact(blob, checksum, dim)
            blobs.append(blob if good else nothing)
            if not good:
                self._note_damage(number)
        return features_of(blobs, dim)

    def _numbered(self, db: sqlite3.Connection, number: int, model_hash: str) -> Record | None:
        """Return the record of a row; None if it is damaged, of which note is taken."""
        row = db.execute(
            f"SELECT {COLUMN_NAMES}, number, feature, checksum FROM observations WHERE number = ?",  # noqa: S608
            (number,),
        ).fetchone()
        return self._record((*row, model_hash))

    def _record(self, row: Sequence[Any]) -> Record | None:
        """Return the record of a row that ends with number, feature, checksum and hash of the model."""
        *columns, number, blob, checksum, model_hash = row
        entry = intact_entry(dict(zip(COLUMNS, columns, strict=True)), model_hash, blob, checksum)
        if entry is None:
            self._note_damage(number)
            return None
        return Record(entry, features_of([blob])[0])

    def _note_damage(self, number: int) -> None:
        self._damaged_numbers.add(number)
        self.damaged.note(number)

    def _live(self, db: sqlite3.Connection, model: int) -> Numbers:
        """Return the numbers of all rows of a model, listed again if rows have come or gone since.

        A number is never given twice, so as many rows up to the same highest number are the same rows.
        """
        state = (model, *db.execute(
            "SELECT count(*), max(number) FROM observations WHERE model = ?", (model,)
        ).fetchone())  # fmt: skip
        if self._listed[0] != state:
            rows = db.execute("SELECT number FROM observations WHERE model = ? ORDER BY number", (model,))
            self._listed = (state, numbers_of(itertools.chain.from_iterable(rows)))
        return self._listed[1]

    def _scores_of_some(
        self, db: sqlite3.Connection, model: int, feature: Feature, selection: Selection
    ) -> tuple[Numbers, Feature]:
        where, values = condition(selection, "?")
        rows = db.execute(
            f"SELECT number, feature, checksum FROM observations WHERE +model = ? AND {where}",  # noqa: S608
            (model, *values),
        )
        numbers, scores = [numbers_of(())], [np.empty(0, np.float32)]
        while some := rows.fetchmany(ROWS_AT_A_TIME):
            numbers.append(numbers_of(row[0] for row in some))
            scores.append(products(self._intact_features(some, feature.size), feature))
        found, of_all = np.concatenate(numbers), np.concatenate(scores)
        shown = np.isin(found, numbers_of(self._damaged_numbers), invert=True)
        return found[shown], of_all[shown]


def _row(record: Record, model: int) -> tuple[object, ...]:
    """Return a record as a row of observations."""
    feature = _blob(record.feature)
    return (*row_of(record.entry, model).values(), feature, checksum_of(record.entry, feature))


def _blob(feature: Feature) -> bytes:
    return feature.astype(STORED).tobytes()
