"""A gallery in PostgreSQL with pgvector: half-precision features, compared exactly after the filter.

No vector index: it loses half of the answers of a search that is narrowed to some cameras and hours, and such a search
takes a millisecond without (shared measurement in ``docs/gallery.md``).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from reid_edge.errors import MissingExtraError, ModelMismatchError, StoreError
from reid_edge.gallery.entries import Match, Record, Selection
from reid_edge.gallery.store.base import (
    Added,
    Erased,
    StoredGap,
    json_selection,
    lasting_erasure,
    not_erased,
    selection_json,
)
from reid_edge.gallery.store.columns import COLUMNS, Kind, row_of
from reid_edge.gallery.store.sql import COLUMN_NAMES, SqlStore, column_definitions, condition, sql_entry
from reid_edge.redaction import hidden, without_passwords
from reid_edge.types import Feature

try:
    import psycopg
    from pgvector import HalfVector
    from pgvector.psycopg import register_vector
except ImportError as error:
    raise MissingExtraError(error.name or "psycopg", "postgresql", "a gallery in PostgreSQL") from error

Connection = psycopg.Connection[tuple[Any, ...]]

CONNECT_S = 10
SCHEMA_VERSION = 1
#: Held while the tables are made, so that two processes do not make them at once.
LOCK = 0x72656964

_TYPES: dict[Kind, str] = {
    "name": 'text COLLATE "C" NOT NULL',
    "integer": "bigint NOT NULL",
    "real": "double precision NOT NULL",
    "flag": "boolean NOT NULL",
    "model": "integer NOT NULL REFERENCES reid_edge.models",
}
_COPY_TYPES: dict[Kind, str] = {"name": "text", "integer": "int8", "real": "float8", "flag": "bool", "model": "int4"}
_TABLES = f"""
CREATE SCHEMA reid_edge;
CREATE TABLE reid_edge.settings (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE reid_edge.models (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, hash text NOT NULL UNIQUE, dim integer,
    accepted_us bigint NOT NULL);
CREATE TABLE reid_edge.observations (
    {column_definitions(_TYPES)},
    feature halfvec NOT NULL, PRIMARY KEY (camera, epoch, seq));
CREATE INDEX observations_by_camera ON reid_edge.observations (camera, last_us, first_us);
CREATE INDEX observations_by_tracklet ON reid_edge.observations (camera, epoch, track);
CREATE INDEX observations_by_time ON reid_edge.observations (last_us, first_us);
CREATE TABLE reid_edge.gaps (
    camera text COLLATE "C" NOT NULL, epoch text COLLATE "C" NOT NULL, first_seq bigint NOT NULL,
    last_seq bigint NOT NULL, count bigint NOT NULL, reason text NOT NULL, received_us bigint NOT NULL,
    PRIMARY KEY (camera, epoch, first_seq, last_seq));
CREATE TABLE reid_edge.erasures (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, until_us bigint NOT NULL, selection text NOT NULL);
CREATE TABLE reid_edge.audit (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at_us bigint NOT NULL, "user" text NOT NULL,
    action text NOT NULL, purpose text NOT NULL, detail text NOT NULL);
CREATE FUNCTION reid_edge.audit_keeps_everything() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit can only be added to'; END $$;
CREATE TRIGGER audit_keeps_everything BEFORE UPDATE OR DELETE OR TRUNCATE ON reid_edge.audit
    FOR EACH STATEMENT EXECUTE FUNCTION reid_edge.audit_keeps_everything();
"""
LEFTOVERS = (
    "PostgreSQL may keep the bytes of deleted rows in free space of its files and in its write-ahead log until it "
    "uses them again, and in backups"
)


class PostgresqlStore(SqlStore):
    """See :class:`reid_edge.gallery.store.base.Store`.

    A connection that breaks is opened again by the next call.

    Args:
        uri: URI as libpq takes it; the password is better kept in ``~/.pgpass`` or ``PGPASSWORD``.
        create: Make the tables if there are none.

    Raises:
        StoreError: There is no gallery, no pgvector, or no connection.
    """

    mark = "%s"

    def __init__(self, uri: str, *, create: bool) -> None:
        self.name = without_passwords(uri)
        self._uri = uri
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
            erasures = db.execute("SELECT selection FROM erasures").fetchall()
            fresh = not_erased(records, [json_selection(text) for (text,) in erasures])
            stored = self._insert(db, fresh) if fresh else 0
            new_gaps = sum(
                db.execute(
                    "INSERT INTO gaps VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                    tuple(vars(gap).values()),
                ).rowcount
                for gap in gaps
            )
        return Added(stored, len(fresh) - stored, len(records) - len(fresh), new_gaps)

    def search(self, feature: Feature, *, model_hash: str, selection: Selection, top: int) -> list[Match]:
        """Return the observations nearest to a feature."""
        where, values = condition(selection, "%s")
        query = HalfVector(feature.astype(np.float16))
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {COLUMN_NAMES}, -(feature <#> %s) AS cosine FROM observations "  # noqa: S608
                f"WHERE model = (SELECT number FROM models WHERE hash = %s) AND {where} "
                "ORDER BY cosine DESC LIMIT %s",
                (query, model_hash, *values, top),
            ).fetchall()
        return [Match(sql_entry(row, model_hash), min(1.0, row[-1])) for row in rows]

    def find(self, camera: str, incarnation_start: str, seq: int) -> list[Record]:
        """Return the records of a camera and number whose incarnation begins so."""
        with self._transaction() as db:
            rows = db.execute(
                f"SELECT {COLUMN_NAMES}, feature, hash FROM observations JOIN models ON models.number = model "  # noqa: S608
                "WHERE camera = %s AND seq = %s AND starts_with(epoch, %s) ORDER BY epoch",
                (camera, seq, incarnation_start),
            ).fetchall()
        return [Record(sql_entry(row, row[-1]), row[-2].to_numpy().astype(np.float32)) for row in rows]

    def erase(self, selection: Selection, *, now_us: int) -> Erased:
        """Delete the selected observations and keep them out."""
        where, values = condition(selection, "%s")
        with self._transaction() as db:
            db.execute("LOCK TABLE erasures IN ROW EXCLUSIVE MODE")
            rows = db.execute(
                f"DELETE FROM observations WHERE {where} RETURNING camera, epoch, seq, first_us",  # noqa: S608
                values,
            ).fetchall()
            rule = lasting_erasure(selection, max((row[3] for row in rows), default=None), now_us)
            db.execute(
                "INSERT INTO erasures (until_us, selection) VALUES (%s, %s)", (rule.until_us, selection_json(rule))
            )
        with self._errors(), self._lock:
            self._open_connection().execute("VACUUM observations")
        return Erased(tuple(sorted(row[:3] for row in rows)), LEFTOVERS)

    def expire(self, before_us: int) -> int:
        """Delete observations and gaps from before a time."""
        with self._transaction() as db:
            return self._delete_before(db, before_us)

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

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    @staticmethod
    def _insert(db: Connection, records: Sequence[Record]) -> int:
        numbers: dict[str, int] = dict(db.execute("SELECT hash, number FROM models").fetchall())
        if unknown := {record.entry.model_hash for record in records} - set(numbers):
            raise ModelMismatchError(f"the gallery has not accepted the model {min(unknown)}.")
        db.execute("CREATE TEMPORARY TABLE IF NOT EXISTS incoming (LIKE reid_edge.observations) ON COMMIT DELETE ROWS")
        with db.cursor() as cursor:
            with cursor.copy(f"COPY incoming ({COLUMN_NAMES}, feature) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types([*(_COPY_TYPES[kind] for kind in COLUMNS.values()), "halfvec"])
                for record in records:
                    row = row_of(record.entry, numbers[record.entry.model_hash]).values()
                    copy.write_row((*row, HalfVector(record.feature.astype(np.float16))))
            # In order: two collectors that store the same rows would else wait for one another.
            cursor.execute(
                "INSERT INTO reid_edge.observations SELECT * FROM incoming ORDER BY camera, epoch, seq "
                "ON CONFLICT DO NOTHING"
            )
            return cursor.rowcount

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._lock, self._errors():
            db = self._open_connection()
            with db.transaction():
                yield db

    def _reading(self) -> contextlib.AbstractContextManager[Any]:
        return self._transaction()

    _writing = _reading

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
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
        db: Connection = psycopg.connect(self._uri, autocommit=True, connect_timeout=CONNECT_S)
        try:
            self._check_version(db)
            register_vector(db)
            # pgvector's types and operators may be in any schema of the path.
            db.execute("SELECT set_config('search_path', 'reid_edge, ' || current_setting('search_path'), false)")
            db.execute("SET synchronous_commit = on")
        except BaseException:
            db.close()
            raise
        return db

    def _check_version(self, db: Connection) -> None:
        if not _tables_exist(db):
            raise StoreError(
                f"there is no gallery in {self.name}; 'reid-edge gallery serve {self.name}' makes one and fills it."
            )
        row = db.execute("SELECT value FROM reid_edge.settings WHERE name = 'schema_version'").fetchone()
        if row is None or int(row[0]) > SCHEMA_VERSION:
            raise StoreError(
                f"{self.name} holds a gallery of format {row[0] if row else '?'}; this release reads up to "
                f"{SCHEMA_VERSION}. Upgrade reid-edge on this machine: pip install --upgrade reid-edge"
            )

    def _make_tables(self) -> None:
        with psycopg.connect(self._uri, connect_timeout=CONNECT_S) as db:
            db.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            if _tables_exist(db):
                return
            try:
                db.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except psycopg.Error as error:
                raise StoreError(
                    f"{self.name} needs the extension pgvector 0.7 or later: install it on the server and run, as its "
                    f"administrator, CREATE EXTENSION vector ({self._text(error)})."
                ) from error
            db.execute(_TABLES)
            db.execute("INSERT INTO reid_edge.settings VALUES ('schema_version', %s)", (str(SCHEMA_VERSION),))


def _tables_exist(db: Connection) -> bool:
    row = db.execute("SELECT to_regclass('reid_edge.settings') IS NOT NULL").fetchone()
    return bool(row and row[0])
