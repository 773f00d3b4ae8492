"""The rows of an outbox that wait: found in their order, and none that has changed on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from reid_edge.upstream.outbox import tables
from reid_edge.upstream.outbox.destined_file import DestinedFile
from reid_edge.upstream.outbox.file import SetAsideError
from reid_edge.upstream.outbox.notes import Notes
from reid_edge.upstream.outbox.records import StoredRow, is_intact

#: So many damaged files after one another are too many for one reading.
_MOST_DAMAGED_FILES = 3


class WaitingRows:
    """Reads the rows that wait in a file.

    A row whose bytes have changed is not returned.  Then the whole file is read, and what is damaged is dropped and
    declared; if the disk does not take that now, it is tried again at the next reading.

    Args:
        destined: The file.
    """

    def __init__(self, destined: DestinedFile) -> None:
        self._destined = destined
        self._file = destined.file
        self._none_up_to = ("", 0)  # of this incarnation, no row waits up to this number

    def after(self, seq: int, limit: int) -> list[StoredRow]:
        """Return the oldest rows with a higher number than ``seq``, ascending.

        Raises:
            OutboxError: The file cannot be read.
        """
        with self._file.lock:
            last_seq: int | None = seq
            looked_at_all = not self._none_up_to[1]
            intact: list[StoredRow] = []
            while last_seq is not None and not intact:
                last_seq, intact = self._verified(partial(self._rows_after, seq=last_seq, limit=limit))
            if not intact and not seq and (self._file.state.rows or self._file.state.crc_sum):
                if looked_at_all:
                    self._file.found_damaged("rows are missing")
                self.look_at_all()
        return intact

    def numbered(self, seqs: Sequence[int]) -> list[StoredRow]:
        """Return those of some rows that still wait, ascending.

        Raises:
            OutboxError: The file cannot be read.
        """
        return self._verified(lambda db: tables.rows_numbered(db, seqs))[1]

    def first(self) -> list[StoredRow]:
        """Return the oldest row, or none.

        Raises:
            OutboxError: The file cannot be read.
        """
        return self._verified(partial(self._rows_after, seq=0, limit=1))[1]

    def look_at_all(self) -> None:
        """Begin at the first row again, since rows that did not wait do so now."""
        self._none_up_to = "", 0

    def oldest_age_s(self) -> float | None:
        """Return for how many seconds a row has been waiting at most; None without rows.

        Raises:
            OutboxError: The file cannot be read.
        """
        with self._file.lock:
            first = self.first()
            notes = Notes.read(self._file.state.replay)
            if not first or not notes.asked:
                return self._age_s(first, notes)
            not_asked_for = self.numbered([one.before_seq for one in notes.asked])
            return self._age_s([*first, *not_asked_for], notes)

    def _age_s(self, rows: Sequence[StoredRow], notes: Notes) -> float | None:
        now_us = self._file.clock.now_us()
        since_us = [notes.waits_since_us(seq, put_us, now_us) for seq, put_us, *_ in rows]
        return max(0, now_us - min(since_us)) / 1e6 if since_us else None

    def _rows_after(self, db: sqlite3.Connection, seq: int, limit: int) -> list[StoredRow]:
        """Find rows that wait; from the first of them on, since thousands of kept ones may lie before it."""
        incarnation = self._file.state.incarnation
        none_up_to = self._none_up_to[1] if self._none_up_to[0] == incarnation else 0
        rows = tables.rows_after(db, max(seq, none_up_to), limit)
        if seq <= none_up_to:
            self._none_up_to = incarnation, rows[0][0] - 1 if rows else self._file.state.next_seq - 1
        return rows

    def _verified(self, find: Callable[[sqlite3.Connection], list[StoredRow]]) -> tuple[int | None, list[StoredRow]]:
        """Return the last number that ``find`` found, None if it found none, and the rows that are as they were put.

        If others are found, the whole file is read and what is damaged is dropped; if the disk does not take that now,
        they are left out.
        """
        with self._file.lock:
            for _ in range(_MOST_DAMAGED_FILES):
                with suppress(SetAsideError):
                    self._destined.ready()
                    found = self._file.read(find, list[StoredRow]())
                    state = self._file.state
                    intact = {row[0]: row for row in found if is_intact(row, state.incarnation, state.checked_from)}
                    if len(intact) == len(found) or not self._file.recheck():
                        return (found[-1][0] if found else None), [intact[seq] for seq in sorted(intact)]
            return None, []
