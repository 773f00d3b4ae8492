"""The lines of a gallery's audit in Milvus, where others may add theirs at the same moment."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict

from reid_edge.errors import StoreError
from reid_edge.gallery.store.base import AuditEntry
from reid_edge.gallery.store.chain import START, chained, line_of
from reid_edge.gallery.store.milvus_client import Row
from reid_edge.gallery.store.milvus_meta import Meta, entry_row

#: Most attempts to add a line while others add theirs.
APPENDS = 20


class AuditLines:
    """The lines of an audit, each an entry whose number is the line's.

    Args:
        meta: Holds the entries.
        name: Name of the gallery, for messages.
    """

    def __init__(self, meta: Meta, name: str) -> None:
        self._meta = meta
        self._name = name
        self.forget()

    def forget(self) -> None:
        """Look for the last line from the first one on: the server may have been restored."""
        self._last = (0, START)

    def append(self, entry: AuditEntry) -> AuditEntry:
        """Add a line; of several that are added at the same moment each gives way and tries again.

        Raises:
            StoreError: Others were always there.
        """
        for _ in range(APPENDS):
            last = self._last_line()
            line = chained(last, entry)
            name = f"{line.number:012}-{uuid.uuid4().hex}"
            self._meta.put("line", name, asdict(line), at_us=line.number)
            near = self._meta.bodies("line", from_us=last[0]).values()
            hashes = sorted((body["number"], body["hash"]) for body in near)
            if hashes == [*([last] if last[0] else []), (line.number, line.hash)]:
                self._last = (line.number, line.hash)
                return line
            self._meta.remove("line", name)
            time.sleep(random.uniform(0, 0.1))  # noqa: S311 - not a secret
        raise StoreError(f"the audit of {self._name} could not be added to: others kept adding to it. Try again.")

    def entries(self, last: int) -> list[AuditEntry]:
        """Return the last lines, oldest first."""
        bodies = [body for _, body in sorted(self._meta.bodies("line").items())]
        return [line_of(body) for body in bodies[-last:]]

    def restore(self, lines: Sequence[AuditEntry]) -> None:
        """Take over the lines of another store's audit, with their numbers and hashes.

        Raises:
            StoreError: There are lines already.
        """
        if self._last_line()[0]:
            raise StoreError("an audit that already has lines cannot receive those of another.")
        for line in lines:
            self._meta.put("line", _name(line), asdict(line), at_us=line.number)

    def _last_line(self) -> tuple[int, str]:
        """Return number and hash of the last line."""
        for body in self._meta.bodies("line", from_us=self._last[0] + 1).values():
            self._last = max(self._last, (body["number"], body["hash"]))
        return self._last


def line_row(line: AuditEntry) -> Row:
    """Return a line as a row of the collection."""
    return entry_row("line", _name(line), asdict(line), line.number)


def _name(line: AuditEntry) -> str:
    return f"{line.number:012}"
