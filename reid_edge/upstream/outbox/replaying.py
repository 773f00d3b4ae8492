"""Acknowledged rows that wait again, since a restored gallery asks for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from reid_edge.upstream.clocks import is_plausible
from reid_edge.upstream.message import last_seen_us
from reid_edge.upstream.observation import Replay
from reid_edge.upstream.outbox import tables
from reid_edge.upstream.outbox.destined_file import DestinedFile
from reid_edge.upstream.outbox.file import SetAsideError
from reid_edge.upstream.outbox.notes import Asked, Notes
from reid_edge.upstream.outbox.records import State, StoredRow, is_intact
from reid_edge.upstream.outbox.waiting_rows import WaitingRows

#: Rows that are read, and made to wait again, in one commit.
_ROWS = 500


def replay_kept(destined: DestinedFile, waiting: WaitingRows, replay: Replay) -> int | None:
    """Make the kept rows of a file wait again that a restored gallery asks for; each request is served once.

    Args:
        destined: The file.
        waiting: Its rows that wait.
        replay: What the gallery asks for.

    Returns:
        The number of rows that wait again; None if the request was served before.

    Raises:
        OutboxError: The file cannot be written; the request is served from its beginning when it comes again.
    """
    file = destined.file
    with file.lock, suppress(SetAsideError):
        destined.ready()
        if replay.id in Notes.read(file.state.replay).served:
            return None
        if file.state.kept:
            first = waiting.first()
            before_seq = first[0][0] if first else file.state.next_seq
            asked = Asked(replay.id, file.clock.now_us(), before_seq)
            _note(destined, lambda notes: notes.with_asked(asked))
        waiting.look_at_all()
        count, after_seq = 0, 0
        while rows := file.read(partial(tables.kept_after, seq=after_seq, limit=_ROWS), list[StoredRow]()):
            after_seq = rows[-1][0]
            state = file.state
            intact = [row for row in rows if is_intact(row, state.incarnation, state.checked_from)]
            wanted = [row for row in intact if _is_asked_for(row, replay)]
            destined.write("writing", partial(_waiting_again, rows=wanted))
            count += len(wanted)
        _note(destined, lambda notes: notes.with_served(replay.id))
        return count
    return None


def _note(destined: DestinedFile, change: Callable[[Notes], Notes]) -> None:
    def work(_db: sqlite3.Connection, state: State) -> tuple[State, None]:
        return replace(state, replay=str(change(Notes.read(state.replay)))), None

    destined.write("writing", work)


def _is_asked_for(row: StoredRow, replay: Replay) -> bool:
    """Return whether a restored gallery asks for a row; it may have been stamped before the clock was set."""
    seen_us = last_seen_us(row[3])
    return seen_us >= replay.since_us or not is_plausible(seen_us)


def _waiting_again(db: sqlite3.Connection, state: State, rows: Sequence[StoredRow]) -> tuple[State, None]:
    return tables.wait_again(db, state, rows), None
