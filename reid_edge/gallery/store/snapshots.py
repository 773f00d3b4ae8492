"""Snapshots: all that a store holds at one moment, as a backup takes it and a check reads it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from reid_edge.errors import StoreError
from reid_edge.gallery.entries import Record
from reid_edge.gallery.store.base import DAMAGE, AcceptedModel, AuditEntry, Erasure, Store, StoredGap
from reid_edge.gallery.store.chain import check_chain
from reid_edge.gallery.store.people import AllPeople
from reid_edge.gallery.store.sql import (
    AUDIT_NAMES,
    GAP_NAMES,
    OWN_SETTINGS,
    SqlStore,
    accepted_model,
    audit_line,
)
from reid_edge.gallery.store.sql_people import Database, all_people

#: Records of one piece.
RECORDS = 1000


class Snapshot(Protocol):
    """What a store holds; where it may change meanwhile, the records are to be read first and the rest after them.

    Attributes:
        damaged: Number of observations that were left out, being damaged, so far.
    """

    damaged: int

    def records(self) -> Iterator[list[Record]]:
        """Yield all intact observations in pieces."""

    def models(self) -> list[AcceptedModel]:
        """Return the accepted models, in the order of acceptance."""

    def settings(self) -> dict[str, str]:
        """Return the settings that another store may be given."""

    def gaps(self) -> list[StoredGap]:
        """Return the gaps."""

    def erasures(self) -> list[Erasure]:
        """Return the erasures in force."""

    def people(self) -> AllPeople:
        """Return whose each tracklet is, what operators decided, and the events."""

    def audit(self) -> list[AuditEntry]:
        """Return all lines of the audit, oldest first."""


class SqlSnapshot:
    """A snapshot of an SQL store, within one transaction that sees one state of it.

    Args:
        db: The transaction.
        rows: Yields pieces of the observations' rows.
        record: Returns the record of a row, or None if it is damaged.
        last_event: Query for the largest number that an event was given.
    """

    def __init__(
        self,
        db: Database,
        rows: Iterator[Sequence[Any]],
        record: Callable[[Sequence[Any]], Record | None],
        last_event: str,
    ) -> None:
        self._db = db
        self._rows = rows
        self._record = record
        self._last_event = last_event
        self.damaged = 0

    def records(self) -> Iterator[list[Record]]:
        """Yield all intact observations in pieces."""
        for piece in self._rows:
            records = [self._record(row) for row in piece]
            self.damaged += records.count(None)
            yield [record for record in records if record is not None]

    def models(self) -> list[AcceptedModel]:
        """Return the accepted models, in the order of acceptance."""
        rows = self._db.execute("SELECT hash, dim, accepted_us FROM models ORDER BY number").fetchall()
        return [accepted_model(*row) for row in rows]

    def settings(self) -> dict[str, str]:
        """Return the settings that another store may be given."""
        rows = self._db.execute("SELECT name, value FROM settings").fetchall()
        return {name: value for name, value in rows if name not in OWN_SETTINGS}

    def gaps(self) -> list[StoredGap]:
        """Return the gaps."""
        rows = self._db.execute("SELECT * FROM gaps").fetchall()
        return [StoredGap(**dict(zip(GAP_NAMES, row, strict=True))) for row in rows]

    def erasures(self) -> list[Erasure]:
        """Return the erasures in force."""
        return SqlStore.erasures_of(self._db)

    def people(self) -> AllPeople:
        """Return whose each tracklet is, what operators decided, and the events."""
        return all_people(self._db, self._last_event)

    def audit(self) -> list[AuditEntry]:
        """Return all lines of the audit, oldest first."""
        rows = self._db.execute(f"SELECT {AUDIT_NAMES} FROM audit ORDER BY number").fetchall()  # noqa: S608 - constant
        return [audit_line(row) for row in rows]


def check(store: Store) -> str:
    """Read all that a store holds; return what is damaged, in words, or an empty text, which the store also keeps.

    Raises:
        StoreError: The store fails.
    """
    found = store.structure()
    if found:  # already now: what follows may fail of it
        store.damaged.note_structure("; ".join(found))
    with store.snapshot() as held:
        for _ in held.records():
            pass
        report = check_chain(held.audit())
        held.gaps(), held.erasures(), held.people()
    faults = [*found, *(f"audit: {fault}" for fault in report.faults[:5])]
    store.damaged.note_structure("; ".join(faults))
    with contextlib.suppress(StoreError):  # a role that may only read
        store.change_settings({DAMAGE: store.damaged.trouble or None})
    return store.damaged.trouble
