"""Snapshots of a gallery in Milvus, which may change while they are read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reid_edge.gallery.entries import Record
from reid_edge.gallery.store.base import AcceptedModel, AuditEntry, Erasure, StoredGap
from reid_edge.gallery.store.people import AllPeople
from reid_edge.gallery.store.snapshots import RECORDS

if TYPE_CHECKING:
    from reid_edge.gallery.store.milvus import MilvusStore


class MilvusSnapshot:
    """What a gallery in Milvus holds; it may change while it is read: read the records first.

    Args:
        store: Which gallery.
    """

    def __init__(self, store: MilvusStore) -> None:
        self._store = store
        self.damaged = 0

    def records(self) -> Iterator[list[Record]]:
        """Yield all intact observations in pieces."""
        rows = self._store.all_rows()
        while piece := list(itertools.islice(rows, RECORDS)):
            self.damaged += piece.count(None)
            yield [record for record in piece if record is not None]

    def models(self) -> list[AcceptedModel]:
        """Return the accepted models, in the order of acceptance."""
        return self._store.models()

    def settings(self) -> dict[str, str]:
        """Return the settings that another store may be given."""
        return self._store.settings()

    def gaps(self) -> list[StoredGap]:
        """Return the gaps."""
        return self._store.gaps()

    def erasures(self) -> list[Erasure]:
        """Return the erasures in force."""
        return self._store.erasures()

    def people(self) -> AllPeople:
        """Return whose each tracklet is, what operators decided, and the events."""
        store = self._store
        return AllPeople(
            state=store.people_state(),
            assignments=store.assignments(),
            decisions=store.decisions(),
            events=store.person_events(limit=2**31 - 1),
            last_event=store.last_event(),
        )

    def audit(self) -> list[AuditEntry]:
        """Return all lines of the audit, oldest first."""
        return self._store.audit_entries(2**31 - 1)
