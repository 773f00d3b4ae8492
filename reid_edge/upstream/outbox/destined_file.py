"""The file of an outbox for one destination: files in which rows of others wait are kept beside it."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from reid_edge.upstream.observation import GapReason
from reid_edge.upstream.outbox.database import Synchronous
from reid_edge.upstream.outbox.destination import beside
from reid_edge.upstream.outbox.file import OutboxFile, Result, SetAsideError
from reid_edge.upstream.outbox.records import State
from reid_edge.upstream.recent_counts import RecentCounts
from reid_edge.wording import counted

_LOG = logging.getLogger(__name__)


class DestinedFile:
    """An outbox's file that holds rows for one destination, and none for others.

    Args:
        file: The file; another takes its place if rows of another destination wait in it.
        destination: The destination, as :class:`~reid_edge.upstream.outbox.Destination` puts it; "" for the one that
            the file has.

    Attributes:
        file: The file.
        destination: The destination.
        dropped: Observations dropped lately, by reason.
    """

    def __init__(self, file: OutboxFile, destination: str) -> None:
        self.file = file
        self.destination = destination
        self.dropped = RecentCounts()

    def ready(self) -> None:
        """Open the file if it is not, and make sure that it is this destination's.

        Raises:
            OutboxError: It cannot be.
        """
        if self.file.is_open or self.file.reopen():
            self.bind()

    def bind(self) -> None:
        """Take the file if nothing of another destination waits in it; else keep it beside, and go on with another.

        Raises:
            OutboxError: It cannot be written or renamed.
        """
        with self.file.lock, suppress(SetAsideError):
            state, wanted = self.file.state, self.destination
            if not self.file.is_open or not wanted or state.destination == wanted:
                return
            theirs = state.undelivered + state.kept
            if state.destination and theirs:
                self._keep_beside(state)
            elif not theirs and (taken := beside(self.file.path, wanted)).exists():
                self.file.exchange(None, taken)
            if self.file.state.destination != wanted:
                self.file.write("writing", lambda _, state: (replace(state, destination=wanted), None))

    def _keep_beside(self, state: State) -> None:
        kept = beside(self.file.path, state.destination)
        if kept.exists():
            kept = kept.with_name(f"{kept.stem}-{secrets.token_hex(2)}{kept.suffix}")
        self.file.exchange(kept, beside(self.file.path, self.destination))
        _LOG.warning(
            "the outbox %s has %s of %s, and this is %s: kept in %s. To see, move or discard what waits there: "
            "reid-edge outbox list %s",
            self.file.path,
            counted(state.rows, "waiting observation"),
            state.destination,
            self.destination,
            kept.name,
            self.file.path.parent,
        )

    def write(
        self,
        doing: str,
        work: Callable[[sqlite3.Connection, State], tuple[State, Result]],
        *,
        synchronous: Synchronous | None = None,
    ) -> Result:
        """Run ``work`` in a transaction as :meth:`OutboxFile.write` does, and count what it has dropped.

        Raises:
            OutboxError: The file cannot be written; nothing has changed.
            SetAsideError: The file was damaged, and a new one has been started.
        """
        before: dict[GapReason, int] = {}

        def run(db: sqlite3.Connection, state: State) -> tuple[State, Result]:
            before.update(self.file.state.dropped)  # here, since the file may have been opened for this
            return work(db, state)

        with self.file.lock:
            self.ready()
            result = self.file.write(doing, run, synchronous=synchronous)
            for reason, count in self.file.state.dropped.items():
                if count > before[reason]:
                    self.dropped.add(reason, count - before[reason])
            return result
