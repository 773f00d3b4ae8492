"""The statements that SQLite and PostgreSQL share: all that need no features."""

from __future__ import annotations

import abc
import contextlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from reid_edge.errors import ModelMismatchError, StoreError
from reid_edge.gallery.entries import Record, Selection
from reid_edge.gallery.store.base import (
    ELSEWHERE,
    AcceptedModel,
    AuditEntry,
    CameraSummary,
    Span,
    StoredGap,
    TrackletSpan,
    grown,
)
from reid_edge.gallery.store.chain import chained, counted, line_of
from reid_edge.gallery.store.columns import COLUMNS, Kind
from reid_edge.gallery.store.erasures import Erasure, json_selection, selection_json, spent_us
from reid_edge.gallery.store.retention import PREFIX, retention_of, retention_settings
from reid_edge.gallery.store.sql_people import Database, SqlPeople

#: Most observations that one transaction of a deletion on time deletes: commits wait for it, a second or so.
MOST_DELETED = 20_000
#: Time between two such transactions, in which others get their turn.
_PAUSE_S = 0.05
#: Names of the columns of ``observations``, as statements list them.
COLUMN_NAMES = ", ".join(COLUMNS)

AUDIT_FIELDS = ("number", "at_us", "user", "action", "purpose", "detail", "hash")
AUDIT_NAMES = ", ".join(f'"{name}"' for name in AUDIT_FIELDS)
_HASH = re.compile("[0-9a-f]{64}")
#: Settings by which a store knows itself; no other store may be given them.
OWN_SETTINGS = frozenset({"schema_version", "gallery", "commits"})
#: Fields of a gap, in the order of the columns of its table.
GAP_NAMES = tuple(field.name for field in fields(StoredGap))

_CAMERAS = """
    SELECT camera, max(observations), max(tracklets), min(first_us), max(last_us), max(gaps), max(lost), max(elsewhere)
    FROM (
        SELECT camera, count(*) AS observations, count(DISTINCT epoch || '/' || track) AS tracklets,
            min(first_us) AS first_us, max(last_us) AS last_us, 0 AS gaps, 0 AS lost, 0 AS elsewhere
        FROM observations WHERE last_us >= {since} GROUP BY camera
        UNION ALL
        SELECT camera, 0, 0, NULL, NULL, count(*), CAST(sum(count) AS BIGINT), 0
        FROM gaps WHERE received_us >= {since} AND reason <> '{elsewhere}' GROUP BY camera
        UNION ALL
        SELECT camera, 0, 0, NULL, NULL, 0, 0, CAST(sum(count) AS BIGINT)
        FROM gaps WHERE received_us >= {since} AND reason = '{elsewhere}' GROUP BY camera
    ) AS held GROUP BY camera ORDER BY camera
"""


Transaction = contextlib.AbstractContextManager[Database]


class SqlStore(SqlPeople):
    """Base of the SQL stores; see :class:`reid_edge.gallery.store.base.Store` for the public methods.

    Attributes:
        name: The URI without its secrets.
        mark: Placeholder of a value in the engine's statements.
        piece: Condition for some observations, with a place for which and how many; without a join, for which an engine
            may read them all.
    """

    name: str
    mark: str
    piece: str

    def _counting(self) -> contextlib.AbstractContextManager[Database]:
        """Begin a transaction that reads so much that it may take minutes."""
        return self._reading()

    def models(self) -> list[AcceptedModel]:
        """Return the accepted models."""
        with self._reading() as db:
            rows = db.execute("SELECT hash, dim, accepted_us FROM models ORDER BY number").fetchall()
            return [accepted_model(*row) for row in rows]

    def forget_model(self, model_hash: str) -> int:
        """Take no more features of a model, unless observations of it are held; return their number."""
        of_it = f"model = (SELECT number FROM models WHERE hash = {self.mark})"  # noqa: S608 - a placeholder
        with self._writing() as db:
            held: int = db.execute(f"SELECT count(*) FROM observations WHERE {of_it}", (model_hash,)).fetchone()[0]  # noqa: S608
            if not held:
                db.execute(f"DELETE FROM models WHERE hash = {self.mark}", (model_hash,))  # noqa: S608 - likewise
        return held

    @staticmethod
    def _model_numbers(db: Database, records: Sequence[Record]) -> dict[str, int]:
        """Return the number of each accepted model.

        Raises:
            ModelMismatchError: The model of a record is not accepted, or has features of another size.
        """
        rows = db.execute("SELECT hash, number, dim FROM models").fetchall()
        sizes = {model_hash: dim for model_hash, _, dim in rows}
        for model_hash, size in sorted({(record.entry.model_hash, record.feature.size) for record in records}):
            if model_hash not in sizes:
                raise ModelMismatchError(f"the gallery has not accepted the model {model_hash}.")
            if sizes[model_hash] not in (None, size):
                raise ModelMismatchError(
                    f"features of the model {model_hash} have {sizes[model_hash]} numbers; got {size}."
                )
        return {model_hash: number for model_hash, number, _ in rows}

    def settings(self, prefix: str = "") -> dict[str, str]:
        """Return the settings whose names begin so."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT name, value FROM settings WHERE substr(name, 1, {self.mark}) = {self.mark} ORDER BY name",  # noqa: S608
                (len(prefix), prefix),
            ).fetchall()
        return {name: value for name, value in rows if name not in OWN_SETTINGS}

    def change_settings(self, values: Mapping[str, str | None]) -> None:
        """Write settings, in one commit; None removes one."""
        with self._writing() as db:
            for name, value in values.items():
                self._change_setting(db, name, value)

    def retention_hours(self) -> float:
        """Return the number of hours that observations are kept."""
        with self._reading() as db:
            held = dict(db.execute(f"SELECT name, value FROM settings WHERE name LIKE '{PREFIX}%'").fetchall())  # noqa: S608
        return retention_of(held, self.name)

    def set_retention_hours(self, hours: float) -> None:
        """Change the number of hours that observations are kept."""
        self.change_settings(retention_settings(hours))

    def audit_append(self, entry: AuditEntry) -> AuditEntry:
        """Add a line to the audit."""
        with self._writing() as db:
            return self._append(db, entry)

    def audit_entries(self, last: int) -> list[AuditEntry]:
        """Return the last lines of the audit, oldest first."""
        with self._reading() as db:
            rows = db.execute(
                f"SELECT {AUDIT_NAMES} FROM audit ORDER BY number DESC LIMIT {self.mark}",  # noqa: S608 - likewise
                (last,),
            ).fetchall()
            return [audit_line(row) for row in reversed(rows)]

    def restore_audit(self, lines: Sequence[AuditEntry]) -> None:
        """Take over the lines of another store's audit, with their numbers and hashes."""
        with self._writing() as db:
            self._lock_audit(db)
            if db.execute("SELECT count(*) FROM audit").fetchone()[0]:
                raise StoreError("an audit that already has lines cannot receive those of another.")
            self._insert_audit(db, lines)

    def erasures(self) -> list[Erasure]:
        """Return the erasures that are in force, oldest first."""
        with self._reading() as db:
            return self.erasures_of(db)

    def span(self, selection: Selection, model_hash: str | None = None) -> Span:
        """Return the number of selected observations, of one model or of all, and their first and last time."""
        where, values = condition(selection, self.mark)
        if model_hash is not None:
            where += f" AND model = (SELECT number FROM models WHERE hash = {self.mark})"  # noqa: S608 - a placeholder
            values = [*values, model_hash]
        with self._counting() as db:
            row = db.execute(
                f"SELECT count(*), min(first_us), max(last_us) FROM observations WHERE {where}",  # noqa: S608 - likewise
                values,
            ).fetchone()
        return Span(*row)

    def tracklets(self, selection: Selection, *, limit: int, skip: int = 0) -> list[TrackletSpan]:
        """Return the tracklets of the selected observations, the last seen first."""
        where, values = condition(selection, self.mark)
        with self._counting() as db:
            rows = db.execute(
                "SELECT camera, epoch, track, max(seq), min(first_us), max(last_us), count(*) FROM observations "  # noqa: S608
                f"WHERE {where} GROUP BY camera, epoch, track ORDER BY 6 DESC, 1, 2, 3 "
                f"LIMIT {self.mark} OFFSET {self.mark}",
                (*values, limit, skip),
            ).fetchall()
        return [TrackletSpan(*row) for row in rows]

    def cameras(self, since_us: int = 0) -> list[CameraSummary]:
        """Return the contents of each camera."""
        with self._counting() as db:
            rows = db.execute(_CAMERAS.format(since=int(since_us), elsewhere=ELSEWHERE)).fetchall()
        names = ("camera", "observations", "tracklets", "first_us", "last_us", "gaps", "lost", "elsewhere")
        return [CameraSummary(**dict(zip(names, row, strict=True))) for row in rows]

    @abc.abstractmethod
    def _lock_audit(self, db: Database) -> None:
        """Let nobody else add a line to the audit until the transaction ends."""

    def _append(self, db: Database, entry: AuditEntry) -> AuditEntry:
        self._lock_audit(db)
        last = db.execute("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1").fetchone()
        line = chained(last, entry)
        self._insert_audit(db, [line])
        return line

    def _change_setting(self, db: Database, name: str, value: str | None) -> None:
        if value is None:
            db.execute(f"DELETE FROM settings WHERE name = {self.mark}", (name,))  # noqa: S608 - a placeholder
            return
        db.execute(
            f"INSERT INTO settings (name, value) VALUES ({self.mark}, {self.mark}) "  # noqa: S608 - placeholders
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            (name, value),
        )

    def _insert_audit(self, db: Database, lines: Sequence[AuditEntry]) -> None:
        for line in lines:
            db.execute(
                f"INSERT INTO audit ({AUDIT_NAMES}) VALUES ({', '.join([self.mark] * 7)})",  # noqa: S608 - placeholders
                (line.number, line.at_us, line.user, line.action, line.purpose, json.dumps(line.detail), line.hash),
            )

    @staticmethod
    def erasures_of(db: Database) -> list[Erasure]:
        """Return the erasures of a database within a transaction."""
        rows = db.execute("SELECT id, made_us, boot, selection FROM erasures ORDER BY number").fetchall()
        return [Erasure(id=row[0], made_us=row[1], boot=row[2], selection=json_selection(row[3])) for row in rows]

    def _put_erasure(self, db: Database, erasure: Erasure) -> None:
        """Store an erasure that may be there; of two with the same id the one that ends later stays."""
        selection = selection_json(erasure.selection)
        new = db.execute(
            "INSERT INTO erasures (id, made_us, boot, until_us, selection) "  # noqa: S608 - placeholders
            f"VALUES ({', '.join([self.mark] * 5)}) ON CONFLICT (id) DO NOTHING",
            (erasure.id, erasure.made_us, erasure.boot, erasure.until_us, selection),
        ).rowcount
        if not new:  # apart: who erases in PostgreSQL may add erasures and change none
            db.execute(
                f"UPDATE erasures SET until_us = {self.mark}, selection = {self.mark} "  # noqa: S608 - likewise
                f"WHERE id = {self.mark} AND until_us <= {self.mark}",
                (erasure.until_us, selection, erasure.id, erasure.until_us),
            )

    def _add_gaps(self, db: Database, gaps: Sequence[StoredGap]) -> tuple[int, int]:
        """Store gaps; return how many are new, and how many observations for other galleries are newly counted."""
        marks = ", ".join([self.mark] * len(GAP_NAMES))
        insert = f"INSERT INTO gaps VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 - placeholders
        new = elsewhere = 0
        for gap in gaps:
            if gap.reason != ELSEWHERE:
                new += db.execute(insert, tuple(vars(gap).values())).rowcount
                continue
            old = self._elsewhere(db, gap)
            now = gap if old is None else grown(old, gap)
            elsewhere += now.count - (0 if old is None else old.count)
            db.execute(
                f"DELETE FROM gaps WHERE camera = {self.mark} AND epoch = {self.mark} AND reason = {self.mark}",  # noqa: S608
                (gap.camera, gap.incarnation, ELSEWHERE),
            )
            # Declared gaps begin at 1 or later, so that none of them has the key of this one.
            db.execute(insert, tuple({**vars(now), "first_seq": 0}.values()))
        return new, elsewhere

    def _elsewhere(self, db: Database, gap: StoredGap) -> StoredGap | None:
        row = db.execute(
            f"SELECT * FROM gaps WHERE camera = {self.mark} AND epoch = {self.mark} AND reason = {self.mark}",  # noqa: S608
            (gap.camera, gap.incarnation, ELSEWHERE),
        ).fetchone()
        return None if row is None else StoredGap(**dict(zip(GAP_NAMES, row, strict=True)))

    def _delete_before(self, begin: Callable[[], Transaction], before_us: int, note: AuditEntry | None) -> int:
        """Delete observations and gaps from before a time, in pieces: what arrives meanwhile is stored between two.

        Args:
            begin: Begins a transaction.
            before_us: The time.
            note: Line for the audit of each piece.
        """
        deleted = 0
        while True:
            with begin() as db:
                piece = self._delete_piece(db, before_us, note)
            deleted += piece
            if piece < MOST_DELETED:
                return deleted
            time.sleep(_PAUSE_S)

    def _delete_piece(self, db: Database, before_us: int, note: AuditEntry | None) -> int:
        """Delete a piece of what is too old, and the erasures that then cover nothing any more."""
        piece = self.piece.format(f"last_us < {self.mark} LIMIT {MOST_DELETED}")
        count: int = db.execute(f"DELETE FROM observations WHERE {piece}", (before_us,)).rowcount  # noqa: S608
        gaps: int = db.execute(f"DELETE FROM gaps WHERE received_us < {self.mark}", (before_us,)).rowcount  # noqa: S608
        db.execute(f"DELETE FROM erasures WHERE until_us < {self.mark}", (spent_us(before_us),))  # noqa: S608
        if note is not None and (count or gaps):
            self._append(db, counted(note, count, gaps))
        return count


def accepted_model(model_hash: str, dim: int | None, accepted_us: int) -> AcceptedModel:
    """Return the model of a row.

    Raises:
        ValueError: It is none.
    """
    if not _HASH.fullmatch(model_hash) or not (dim is None or int(dim) > 0):
        raise ValueError(f"no model has the hash {model_hash!r} and {dim} numbers")
    return AcceptedModel(model_hash, dim, int(accepted_us))


def audit_line(row: Sequence[Any]) -> AuditEntry:
    """Return the line of a row of :data:`AUDIT_NAMES`."""
    return line_of(dict(zip(AUDIT_FIELDS, row, strict=True)))


def column_definitions(types: Mapping[Kind, str]) -> str:
    """Return the columns of ``observations`` as CREATE TABLE defines them, all but the feature's.

    Args:
        types: The engine's type and constraints of each kind of column.
    """
    return ", ".join(f"{name} {types[kind]}" for name, kind in COLUMNS.items())


def condition(selection: Selection, mark: str) -> tuple[str, list[Any]]:
    """Return a selection as an SQL condition, and its parameters; ``mark`` is the engine's placeholder."""
    parts: list[str] = []
    values: list[Any] = []
    for names, operator in ((selection.cameras, "IN"), (selection.not_cameras, "NOT IN")):
        if names:
            parts.append(f"camera {operator} ({','.join([mark] * len(names))})")
            values += names
    for column, comparison, value in (
        ("epoch", "=", selection.incarnation),
        ("track", "=", selection.track),
        # of one tracklet, the times of its few observations are no use to find them: "+" keeps engines from it
        ("last_us" if selection.track is None else "+last_us", ">=", selection.since_us),
        ("first_us", "<=", selection.until_us),
    ):
        if value is not None:
            parts.append(f"{column} {comparison} {mark}")
            values.append(value)
    return " AND ".join(parts) or "TRUE", values
