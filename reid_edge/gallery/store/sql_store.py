"""What SQLite and PostgreSQL do with the same statements: all but features."""

from __future__ import annotations

import abc
import contextlib
import json
from typing import Any, Protocol

from reid_edge.gallery.records import AcceptedModel, AuditEntry, CameraSummary, Selection, Span
from reid_edge.gallery.store.base import DEFAULT_RETENTION_HOURS
from reid_edge.gallery.store.erasures import outlived_us
from reid_edge.gallery.store.sql import condition

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
    """A connection, of either engine, within a transaction."""

    def execute(self, sql: str, values: Any = ..., /) -> Any:
        """Run one statement; returns its cursor."""


class SqlStore(abc.ABC):
    """The half of a store that needs no features.

    Attributes:
        mark: The engine's placeholder.
    """

    mark: str

    @abc.abstractmethod
    def _reading(self) -> contextlib.AbstractContextManager[Database]:
        """A transaction that only reads."""

    @abc.abstractmethod
    def _writing(self) -> contextlib.AbstractContextManager[Database]:
        """A transaction that writes, durable when it ends."""

    def models(self) -> list[AcceptedModel]:
        """Accepted models."""
        with self._reading() as db:
            rows = db.execute("SELECT hash, dim, accepted_us FROM models ORDER BY number").fetchall()
        return [AcceptedModel(*row) for row in rows]

    def retention_hours(self) -> float:
        """How long observations are kept."""
        with self._reading() as db:
            row = db.execute("SELECT value FROM settings WHERE name = 'retention_hours'").fetchone()
        return float(row[0]) if row else DEFAULT_RETENTION_HOURS

    def set_retention_hours(self, hours: float) -> None:
        """Change how long observations are kept."""
        with self._writing() as db:
            db.execute(
                f"INSERT INTO settings VALUES ('retention_hours', {self.mark}) "  # noqa: S608 - a placeholder
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (repr(hours),),
            )

    def audit_append(self, entry: AuditEntry) -> None:
        """Add to the audit."""
        marks = ", ".join([self.mark] * 5)
        with self._writing() as db:
            db.execute(
                f'INSERT INTO audit (at_us, "user", action, purpose, detail) VALUES ({marks})',  # noqa: S608 - likewise
                (entry.at_us, entry.user, entry.action, entry.purpose, json.dumps(entry.detail)),
            )

    def audit_entries(self, last: int) -> list[AuditEntry]:
        """The last entries, oldest first."""
        with self._reading() as db:
            rows = db.execute(
                'SELECT number, at_us, "user", action, purpose, detail FROM audit '  # noqa: S608 - likewise
                f"ORDER BY number DESC LIMIT {self.mark}",
                (last,),
            ).fetchall()
        names = ("number", "at_us", "user", "action", "purpose")
        return [AuditEntry(**dict(zip(names, row, strict=False)), detail=json.loads(row[-1])) for row in reversed(rows)]

    def span(self, selection: Selection) -> Span:
        """How many observations are meant, and of what time."""
        where, values = condition(selection, self.mark)
        with self._reading() as db:
            row = db.execute(
                f"SELECT count(*), min(first_us), max(last_us) FROM observations WHERE {where}",  # noqa: S608 - likewise
                values,
            ).fetchone()
        return Span(*row)

    def cameras(self) -> list[CameraSummary]:
        """What is held of each camera."""
        with self._reading() as db:
            rows = db.execute(_CAMERAS).fetchall()
        names = ("camera", "observations", "tracklets", "first_us", "last_us", "gaps", "lost")
        return [CameraSummary(**dict(zip(names, row, strict=True))) for row in rows]

    def _delete_before(self, db: Database, before_us: int) -> int:
        """Delete what was last seen before, and the gaps and erasures that it outlives."""
        count: int = db.execute(f"DELETE FROM observations WHERE last_us < {self.mark}", (before_us,)).rowcount  # noqa: S608
        db.execute(f"DELETE FROM gaps WHERE received_us < {self.mark}", (before_us,))  # noqa: S608
        db.execute(f"DELETE FROM erasures WHERE until_us < {self.mark}", (outlived_us(before_us),))  # noqa: S608
        return count
