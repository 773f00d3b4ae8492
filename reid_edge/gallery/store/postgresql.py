"""A gallery in PostgreSQL with pgvector: half-precision features, compared exactly after the filter.

No vector index: it loses half of the answers of a search that is narrowed to some cameras and hours, and such a search
takes a millisecond without one (measured in ``docs/gallery.md``).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from reid_edge.errors import UPGRADE, MissingExtraError, StoreError
from reid_edge.gallery.entries import Match, Record, Selection
from reid_edge.gallery.store.base import Added, AuditEntry, Erased, Erasure, StoredGap, no_gallery
from reid_edge.gallery.store.columns import COLUMNS, checksum_of, intact_entry, row_of
from reid_edge.gallery.store.damage import DamagedRows, damage_errors
from reid_edge.gallery.store.erasures import covering, deleted_now, new_erasure, not_erased
from reid_edge.gallery.store.postgresql_connection import CALL_S, EXPIRY_S, LONG_S, Connection, connect, limited
from reid_edge.gallery.store.snapshots import RECORDS, Snapshot, SqlSnapshot
from reid_edge.gallery.store.sql import COLUMN_NAMES, SqlStore, condition
from reid_edge.gallery.store.sql_people import Database
from reid_edge.redaction import hidden, without_passwords
from reid_edge.types import Feature

try:
    import psycopg
    import psycopg.sql
    from pgvector import HalfVector
    from pgvector.psycopg import register_vector

    from reid_edge.gallery.store.postgresql_tables import (
        AUDIT_LOCK,
        COPY_TYPES,
        LOCK,
        PEOPLE_LOCK,
        SCHEMA_VERSION,
        make_tables,
        migrate,
        schema_version,
    )
except ImportError as error:
    raise MissingExtraError(error.name or "psycopg", "postgresql", "a gallery in PostgreSQL") from error

#: Longest wait of a close for another thread's call.
CLOSE_S = 2.0
#: Longest change of an earlier format to the present one.
MIGRATION_S = 6 * 3600.0
#: Form of a feature whose checksum is stored.
STORED = np.dtype("<f2")
LEFTOVERS = (
    "PostgreSQL may keep the bytes of deleted rows in free space of its files and in its write-ahead log until it "
    "uses them again, and in backups"
)


class PostgresqlStore(SqlStore):
    """See :class:`reid_edge.gallery.store.base.Store`.

    A connection that breaks, or on which the server has not answered in time, is opened again by the next call.

    Args:
        uri: URI as libpq takes it; the password is better kept in ``~/.pgpass`` or ``PGPASSWORD``.
        create: Make the tables if there are none.
        patience_s: Longest call of those that a collector waits for.

    Raises:
        StoreError: There is no gallery, no pgvector, or no connection.
    """

    mark = "%s"
    own_numbers = "OVERRIDING SYSTEM VALUE"
    last_event = (
        "SELECT max(last_value) FROM pg_sequences "
        "WHERE schemaname = 'reid_edge' AND sequencename = 'person_events_number_seq'"
    )
    piece = "ctid = ANY (ARRAY(SELECT ctid FROM observations WHERE {}))"

    def __init__(self, uri: str, *, create: bool, patience_s: float = CALL_S) -> None:
        self.name = without_passwords(uri)
        self._uri = uri
        self.damaged = DamagedRows(self.name)
        self._patience_s = patience_s
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        with self._errors():
            if create:
                self._make_tables()
            self._connection = self._connect()

    def add(self, records: Sequence[Record], gaps: Sequence[StoredGap] = ()) -> Added:
        """Store the records and gaps that are not stored yet."""
        with self._transaction() as db:
            # Erasing waits until this is committed, and the next commit waits until the erasure is.
            db.execute("LOCK TABLE erasures IN SHARE MODE")
            fresh = not_erased(records, self.erasures_of(db))
            stored = self._insert(db, fresh) if fresh else 0
            new_gaps, elsewhere = self._add_gaps(db, gaps)
        return Added(stored, len(fresh) - stored, len(records) - len(fresh), new_gaps, elsewhere)

    def search(self, feature: Feature, *, model_hash: str, selection: Selection, top: int) -> list[Match]:
        """Return the observations nearest to a feature."""
        where, values = condition(selection, "%s")
        query = HalfVector(feature.astype(np.float16))
        with self._transaction(LONG_S) as db:
            rows = db.execute(
                f"SELECT {COLUMN_NAMES}, feature, checksum, -(feature <#> %s) AS cosine FROM observations "  # noqa: S608
                f"WHERE model = (SELECT number FROM models WHERE hash = %s) AND {where} "
                "ORDER BY cosine DESC LIMIT %s",
                (query, model_hash, *values, top),
            ).fetchall()
        found = [(self._record((*row[:-1], model_hash)), row[-1]) for row in rows]
        return [Match(record.entry, min(1.0, cosine), record.feature) for record, cosine in found if record is not None]

    def find(self, camera: str, incarnation_start: str, seq: int) -> list[Record]:
        """Return the records of a camera and number whose incarnation begins so."""
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {COLUMN_NAMES}, feature, checksum, hash FROM observations "  # noqa: S608
                "JOIN models ON models.number = model WHERE camera = %s AND seq = %s AND starts_with(epoch, %s) "
                "ORDER BY epoch",
                (camera, seq, incarnation_start),
            ).fetchall()
        return [record for record in map(self._record, rows) if record is not None]

    def erase(self, selection: Selection, *, now_us: int, boot: str = "") -> Erased:
        """Delete the selected observations and keep them out."""
        erasure = new_erasure(selection, now_us=now_us, boot=boot)
        with self._changing_people() as db:
            db.execute("LOCK TABLE erasures IN ROW EXCLUSIVE MODE")
            rows = self._delete(db, deleted_now(selection, erasure))
            erasure = covering(erasure, max((row[3] for row in rows), default=None))
            self._put_erasure(db, erasure)
        self._vacuum()
        return Erased(tuple(sorted(row[:3] for row in rows)), LEFTOVERS, erasure)

    def apply_erasures(self, erasures: Sequence[Erasure]) -> Erased:
        """Put erasures in force that were made elsewhere, and delete what they cover."""
        keys = set()
        with self._changing_people() as db:
            db.execute("LOCK TABLE erasures IN ROW EXCLUSIVE MODE")
            for erasure in erasures:
                keys |= {row[:3] for row in self._delete(db, erasure.selection)}
                self._put_erasure(db, erasure)
        self._vacuum()
        return Erased(tuple(sorted(keys)), LEFTOVERS)

    def expire(self, before_us: int, note: AuditEntry | None = None) -> int:
        """Delete observations and gaps from before a time."""
        return self._delete_before(lambda: self._changing_people(EXPIRY_S), before_us, note)

    def accept_model(self, model_hash: str, dim: int | None, *, now_us: int, only_first: bool = False) -> bool:
        """Take features of this model from now on."""
        with self._transaction() as db:
            db.execute("LOCK TABLE models IN SHARE ROW EXCLUSIVE MODE")
            known = "EXISTS (SELECT 1 FROM models)" if only_first else "FALSE"
            db.execute(
                f"INSERT INTO models (hash, dim, accepted_us) SELECT %s, %s, %s WHERE NOT {known} "
                "ON CONFLICT DO NOTHING",
                (model_hash, dim, now_us),
            )
            db.execute("UPDATE models SET dim = %s WHERE hash = %s AND dim IS NULL", (dim, model_hash))
            row = db.execute("SELECT dim FROM models WHERE hash = %s", (model_hash,)).fetchone()
        return row is not None and dim in (None, row[0])

    @staticmethod
    def look() -> None:
        """Do nothing: the server checks its own files."""

    @staticmethod
    def structure() -> list[str]:
        """Return nothing: the server checks its own files."""
        return []

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read all that it holds at one moment, on a connection of its own: nobody has to wait."""
        with self._errors(), contextlib.closing(self._connect()) as db, limited(db, MIGRATION_S):
            db.isolation_level, db.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
            with db.transaction(), db.cursor(name="snapshot") as rows:
                rows.execute(
                    f"SELECT {COLUMN_NAMES}, feature, checksum, hash FROM observations "  # noqa: S608
                    "LEFT JOIN models ON models.number = model ORDER BY camera, epoch, seq"
                )
                yield SqlSnapshot(db, iter(lambda: rows.fetchmany(RECORDS), []), self._record, self.last_event)

    @contextlib.contextmanager
    def set_aside(self, name: str, *, drop: bool) -> Iterator[str]:
        """Give the schema another name, and make an empty gallery; if the block fails, all is as before.

        Args:
            name: Name that the schema with all of the gallery gets.
            drop: Drop it at the end: it holds nothing.
        """
        quoted = psycopg.sql.Identifier(name)
        rename = psycopg.sql.SQL("ALTER SCHEMA reid_edge RENAME TO {}").format(quoted)
        with self._alone(LONG_S) as db, db.transaction():
            db.execute(rename)
            make_tables(db)
        try:
            yield name
        except BaseException:
            with self._alone(LONG_S) as db, db.transaction():
                db.execute("DROP SCHEMA reid_edge CASCADE")
                db.execute(psycopg.sql.SQL("ALTER SCHEMA {} RENAME TO reid_edge").format(quoted))
            raise
        if drop:
            with self._alone(LONG_S) as db:
                db.execute(psycopg.sql.SQL("DROP SCHEMA {} CASCADE").format(quoted))

    def close(self) -> None:
        """Close the connection."""
        if self._lock.acquire(timeout=CLOSE_S):  # else a call of another thread ends with the process
            if self._connection is not None:
                self._connection.close()
            self._lock.release()

    def _record(self, row: Sequence[Any]) -> Record | None:
        """Return the record of a row that ends with feature, checksum and hash of the model; None if it is damaged."""
        *columns, vector, checksum, model_hash = row
        named = dict(zip(COLUMNS, columns, strict=True))
        feature = vector.to_numpy().astype(STORED)
        entry = intact_entry(named, model_hash, feature.tobytes(), checksum)
        if entry is None:
            self.damaged.note(f"{named['camera']}/{named['epoch']}/{named['seq']}")
            return None
        return Record(entry, feature.astype(np.float32))

    @staticmethod
    def _delete(db: Connection, selection: Selection) -> list[tuple[Any, ...]]:
        """Delete the selected observations; return camera, incarnation, number and first sight of each."""
        where, values = condition(selection, "%s")
        return db.execute(
            f"DELETE FROM observations WHERE {where} RETURNING camera, epoch, seq, first_us",  # noqa: S608
            values,
        ).fetchall()

    def _vacuum(self) -> None:
        with self._alone(LONG_S) as db:
            db.execute("VACUUM observations")

    def _begin_events_after(self, db: Database, number: int) -> None:
        sequence = "pg_get_serial_sequence('reid_edge.person_events', 'number')"
        db.execute(f"SELECT setval({sequence}, greatest(%s, 1), %s)", (number, number > 0))

    def _lock_audit(self, db: Database) -> None:
        db.execute("SELECT pg_advisory_xact_lock(%s)", (AUDIT_LOCK,))

    def _insert(self, db: Connection, records: Sequence[Record]) -> int:
        numbers = self._model_numbers(db, records)
        db.execute("CREATE TEMPORARY TABLE IF NOT EXISTS incoming (LIKE reid_edge.observations) ON COMMIT DELETE ROWS")
        with db.cursor() as cursor:
            with cursor.copy(f"COPY incoming ({COLUMN_NAMES}, feature, checksum) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types([*(COPY_TYPES[kind] for kind in COLUMNS.values()), "halfvec", "int8"])
                for record in records:
                    row = row_of(record.entry, numbers[record.entry.model_hash]).values()
                    half = record.feature.astype(STORED)
                    checksum = checksum_of(record.entry, half.tobytes())
                    copy.write_row((*row, HalfVector(half.astype(np.float16)), checksum))
            # In order: two collectors that store the same rows would else wait for one another.
            cursor.execute(
                f"INSERT INTO reid_edge.observations ({COLUMN_NAMES}, feature, checksum) "  # noqa: S608
                f"SELECT {COLUMN_NAMES}, feature, checksum FROM incoming ORDER BY camera, epoch, seq "
                "ON CONFLICT DO NOTHING"
            )
            return cursor.rowcount

    @contextlib.contextmanager
    def _transaction(self, most_s: float | None = None) -> Iterator[Connection]:
        with self._alone(most_s or self._patience_s) as db, db.transaction():
            yield db

    @contextlib.contextmanager
    def _alone(self, most_s: float) -> Iterator[Connection]:
        """Have the connection to oneself; whatever is done with it ends within ``most_s``."""
        if not self._lock.acquire(timeout=most_s):
            raise StoreError(f"the gallery in {self.name} has been busy with another call for {most_s:g} s.")
        try:
            with self._errors():
                db = self._open_connection()
                with limited(db, most_s):
                    yield db
        finally:
            self._lock.release()

    def _reading(self) -> contextlib.AbstractContextManager[Any]:
        return self._transaction()

    _writing = _reading

    @contextlib.contextmanager
    def _changing_people(self, most_s: float = LONG_S) -> Iterator[Connection]:
        """Begin a transaction while nobody else changes people, or deletes tracklets, whose people go with them."""
        with self._transaction(most_s) as db:
            db.execute("SELECT pg_advisory_xact_lock(%s)", (PEOPLE_LOCK,))
            yield db

    def _many(self, db: Connection, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        with db.cursor() as cursor:
            cursor.executemany(sql, rows)

    def _counting(self) -> contextlib.AbstractContextManager[Any]:
        return self._transaction(LONG_S)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with damage_errors(self.name):
                yield
        except psycopg.Error as error:
            raise StoreError(f"the gallery in {self.name} cannot be used: {self._text(error)}") from error

    def _text(self, error: psycopg.Error) -> str:
        return hidden(str(error).strip(), self._uri)

    def _open_connection(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> Connection:
        db = connect(self._uri)
        try:
            with limited(db, self._patience_s):
                version = self._check_version(db)
                register_vector(db)
            if version < SCHEMA_VERSION:
                with limited(db, MIGRATION_S):
                    migrate(db, self.name)
            with limited(db, self._patience_s):
                # pgvector's types and operators may be in any schema of the path.
                db.execute("SELECT set_config('search_path', 'reid_edge, ' || current_setting('search_path'), false)")
        except BaseException:
            db.close()
            raise
        return db

    def _check_version(self, db: Connection) -> int:
        """Return the format of the tables, which this release reads."""
        version = schema_version(db)
        if version is None:
            raise no_gallery(self.name)
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.name} holds a gallery of format {version}; this release reads up to {SCHEMA_VERSION}. {UPGRADE}"
            )
        return version

    def _make_tables(self) -> None:
        with connect(self._uri) as db, limited(db, LONG_S), db.transaction():
            db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            if schema_version(db) is not None:
                return
            try:
                db.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except psycopg.Error as error:
                raise StoreError(
                    f"{self.name} needs the extension pgvector 0.7 or later: install it on the server and run, as its "
                    f"administrator, CREATE EXTENSION vector ({self._text(error)})."
                ) from error
            make_tables(db)
