"""The statements that SQLite and PostgreSQL share: all that need no features."""

from __future__ import annotations

import abc
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from reid_edge.gallery.entries import Entry, Selection
from reid_edge.gallery.store.base import (
    DEFAULT_RETENTION_HOURS,
    AcceptedModel,
    AuditEntry,
    CameraSummary,
    Span,
    spent_erasures_us,
)
from reid_edge.gallery.store.columns import COLUMNS, Kind, entry_of

#: Names of the columns of ``observations``, as statements list them.
COLUMN_NAMES = ", ".join(COLUMNS)

_CAMERAS = """
    SELECT camera, max(observations), max(tracklets), min(first_us), max(last_us), max(gaps), max(lost) FROM (
        SELECT camera, count(*) AS observations, count(DISTINCT epoch || '/' || track) AS tracklets,
            min(first_us) AS first_us, max(last_us) AS last_us, 0 AS gaps, 0 AS lost
        FROM observations GROUP BY camera
        UNION ALL
        SELECT camera, 0, 0, NULL, NULL, count(*), CAST(sum(count) AS BIGINT) FROM gaps GROUP BY camera
    ) AS held GROUP BY camera ORDER BY camera
"""


class Database(Protocol):
    """A connection to either engine, within a transaction."""

    def execute(self, sql: str, values: Any = ..., /) -> Any:
        """Run one statement and return its cursor."""


class SqlStore(abc.ABC):
    """Base of the SQL stores; see :class:`reid_edge.gallery.store.base.Store` for the public methods.

    Attributes:
        mark: Placeholder of a value in the engine's statements.
    """

    mark: str

    @abc.abstractmethod
    def _reading(self) -> contextlib.AbstractContextManager[Database]:
        """Begin a transaction that only reads."""

    @abc.abstractmethod
    def _writing(self) -> contextlib.AbstractContextManager[Database]:
        """Begin a transaction that writes; it is durable when it ends."""

    def models(self) -> list[AcceptedModel]:
        """Return the accepted models."""
        with self._reading() as db:
            rows = db.execute("SELECT hash, dim, accepted_us FROM models ORDER BY number").fetchall()
        return [AcceptedModel(*row) for row in rows]

    def retention_hours(self) -> float:
        """Return the number of hours that observations are kept."""
        with self._reading() as db:
            row = db.execute("SELECT value FROM settings WHERE name = 'retention_hours'").fetchone()
        return float(row[0]) if row else DEFAULT_RETENTION_HOURS

    def set_retention_hours(self, hours: float) -> None:
        """Change the number of hours that observations are kept."""
        with self._writing() as db:
            db.execute(
                f"INSERT INTO settings VALUES ('retention_hours', {self.mark}) "  # noqa: S608 - a placeholder
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (repr(hours),),
            )

    def audit_append(self, entry: AuditEntry) -> None:
        """Add a line to the audit."""
        marks = ", ".join([self.mark] * 5)
        with self._writing() as db:
            db.execute(
                f'INSERT INTO audit (at_us, "user", action, purpose, detail) VALUES ({marks})',  # noqa: S608 - likewise
                (entry.at_us, entry.user, entry.action, entry.purpose, json.dumps(entry.detail)),
            )

    def audit_entries(self, last: int) -> list[AuditEntry]:
        """Return the last lines of the audit, oldest first."""
        with self._reading() as db:
            rows = db.execute(
                'SELECT number, at_us, "user", action, purpose, detail FROM audit '  # noqa: S608 - likewise
                f"ORDER BY number DESC LIMIT {self.mark}",
                (last,),
            ).fetchall()
        names = ("number", "at_us", "user", "action", "purpose")
        return [AuditEntry(**dict(zip(names, row, strict=False)), detail=json.loads(row[-1])) for row in reversed(rows)]

    def span(self, selection: Selection) -> Span:
        """Return the number of selected observations and their first and last time."""
        where, values = condition(selection, self.mark)
        with self._reading() as db:
            row = db.execute(
                f"SELECT count(*), min(first_us), max(last_us) FROM observations WHERE {where}",  # noqa: S608 - likewise
                values,
            ).fetchone()
        return Span(*row)

    def cameras(self) -> list[CameraSummary]:
        """Return the contents of each camera."""
        with self._reading() as db:
            rows = db.execute(_CAMERAS).fetchall()
        names = ("camera", "observations", "tracklets", "first_us", "last_us", "gaps", "lost")
        return [CameraSummary(**dict(zip(names, row, strict=True))) for row in rows]

    def _delete_before(self, db: Database, before_us: int) -> int:
        """Delete observations and gaps from before a time, and the erasures that then cover nothing any more."""
        count: int = db.execute(f"DELETE FROM observations WHERE last_us < {self.mark}", (before_us,)).rowcount  # noqa: S608
        db.execute(f"DELETE FROM gaps WHERE received_us < {self.mark}", (before_us,))  # noqa: S608
        db.execute(f"DELETE FROM erasures WHERE until_us < {self.mark}", (spent_erasures_us(before_us),))  # noqa: S608
        return count


def column_definitions(types: Mapping[Kind, str]) -> str:
    """Return the columns of ``observations`` as CREATE TABLE defines them, all but the feature's.

    Args:
        types: The engine's type and constraints of each kind of column.
    """
    return ", ".join(f"{name} {types[kind]}" for name, kind in COLUMNS.items())


def sql_entry(row: Sequence[Any], model_hash: str) -> Entry:
    """Return the entry of a row that begins with :data:`COLUMN_NAMES`."""
    return entry_of(dict(zip(COLUMNS, row, strict=False)), model_hash)


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
        ("last_us", ">=", selection.since_us),
        ("first_us", "<=", selection.until_us),
    ):
        if value is not None:
            parts.append(f"{column} {comparison} {mark}")
            values.append(value)
    return " AND ".join(parts) or "TRUE", values
