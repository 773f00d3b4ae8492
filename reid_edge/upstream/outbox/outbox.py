"""Observations on disk until the gallery has them: bounded, with every dropped one declared.

:class:`Outbox` is the queue.  ``file`` keeps its file in use and replaces a damaged one, ``tables`` has all SQL
of the rows, and ``database`` makes, opens, locks and sets aside files.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Literal

from reid_edge.errors import OutboxError, OutboxInUseError
from reid_edge.upstream.clocks import PLAUSIBLE_US, Reading, read_clocks
from reid_edge.upstream.message import Encoding, encode_observation, last_seen_us
from reid_edge.upstream.observation import Ack, Gap, GapReason, Observation, Replay
from reid_edge.upstream.outbox import folder, tables
from reid_edge.upstream.outbox.database import Synchronous
from reid_edge.upstream.outbox.destination import beside, files_beside
from reid_edge.upstream.outbox.file import OutboxFile, Result, SetAsideError
from reid_edge.upstream.outbox.notes import Asked, Notes
from reid_edge.upstream.outbox.records import Row, State, StoredRow, is_intact
from reid_edge.upstream.recent_counts import RecentCounts

_LOG = logging.getLogger(__name__)
#: What is dropped when the outbox is full: the oldest rows, or what would be put.
WhenFull = Literal["drop-oldest", "refuse-newest"]
#: So many damaged files after one another are too many for one reading.
_MOST_DAMAGED_FILES = 3
#: Seconds between two looks at the files of other destinations.
BESIDE_S = 3600.0
#: Rows of a replay that are read, and made to wait again, in one commit.
_REPLAYED = 500
MOST_RETENTION_S = 10 * 365 * 86400


class Outbox:
    """A queue of encoded observations in one SQLite file.

    Once :meth:`put` has returned, the observations survive the end of the process and, with ``synchronous="FULL"``, a
    power cut.  A row leaves when it is acknowledged, or when it is dropped: the oldest, or instead the newest, are
    dropped when there are too many, and those that are too old.  Dropped observations are counted, and declared by
    :meth:`gaps` until the gaps are acknowledged too.

    Every row, every gap and the file's own state have checksums, and nothing is believed without them.  A row that has
    changed is dropped.  A file that is damaged beyond that is set aside as ``NAME.corrupt-TIME``, logged and listed in
    ``set_aside``; what is intact of it goes on in another file, under the same incarnation if that can be told.  What
    is missing is declared as lost: also what the end of SQLite's log lacks, since a mark beside the file
    (``NAME.mark``) tells how far it had come.  Sequence numbers grow, and leap at each opening, so that none is given
    twice.

    A file that was removed or replaced is noticed at the next :meth:`put`, :meth:`expire` or :meth:`close`: its
    observations are declared as lost, a file in its place is set aside, and a new file is started.

    With ``wait_for_disk``, an outbox whose disk is full, read-only or failing begins without a file: ``is_open`` is
    False, ``depth`` is 0, :meth:`put` raises OutboxError, and all else does nothing.  Each :meth:`put` and each
    :meth:`expire` tries to open the file again; ``incarnation`` and ``last_seq`` are others then, and ``last_seq`` is
    above all that were told before.  If another file has to be started later on and cannot be, every method that needs
    it tries again, and raises OutboxError.

    All methods may be called from any thread.

    Args:
        path: The file; missing folders are made, for this user alone.
        max_rows: Most rows kept.
        max_bytes: Most bytes of encoded observations kept.  The file takes about a tenth more, its log up to 16 MB.
        retention_s: Rows older than this are dropped by :meth:`expire`; at most ten years.
        when_full: ``drop-oldest``: the oldest rows make room for new ones.  ``refuse-newest``: new observations are not
            kept while there is no room.  Either are declared as a gap.
        synchronous: ``FULL``: each put waits for the disk.  ``NORMAL``: the last puts may be lost in a power cut, and
            no gap declares them, unless the mark has reached the disk before them.
        destination: Whose the rows are, as :class:`~reid_edge.upstream.outbox.Destination` puts it.  A file in which
            rows or gaps of another one wait is kept beside it, and another is started; it is taken up again with its
            own destination.  "": whatever the file has.
        keep_acknowledged_s: Acknowledged rows are kept until they are so old, as far as there is room, for
            :meth:`replay`.
        wait_for_disk: Begin without a file if the disk is full, read-only or failing; else that is an OutboxError.
        read_clocks: Reads the machine's clocks.

    Raises:
        OutboxError: Another process has it, it cannot be written, or a bound is not positive or too large.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        max_rows: int = 100_000,
        max_bytes: int = 256_000_000,
        retention_s: float = 72 * 3600,
        when_full: WhenFull = "drop-oldest",
        synchronous: Synchronous = "FULL",
        destination: str = "",
        keep_acknowledged_s: float = 0.0,
        wait_for_disk: bool = False,
        read_clocks: Callable[[], Reading] = read_clocks,
    ) -> None:
        if max_rows < 1 or max_bytes < 1 or not retention_s > 0:
            raise OutboxError(
                f"max_rows, max_bytes and retention_s must be positive; got {max_rows}, {max_bytes}, {retention_s}."
            )
        if retention_s > MOST_RETENTION_S:
            raise OutboxError(f"retention_s must be at most {MOST_RETENTION_S} (ten years); got {retention_s:g}.")
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._retention_us = int(retention_s * 1e6)
        self._when_full = when_full
        self._destination = destination
        self._keep_us = int(min(keep_acknowledged_s, retention_s) * 1e6)
        self._look_beside_s = float("-inf")
        self._none_up_to = ("", 0)  # of this incarnation, no row waits up to this number
        self._listeners: list[Callable[[], None]] = []
        self._recently = RecentCounts()
        self._file = OutboxFile(
            Path(path), synchronous=synchronous, read_clocks=read_clocks, wait_for_disk=wait_for_disk
        )
        try:
            self._bind()
        except OutboxError as error:
            if not wait_for_disk or isinstance(error, OutboxInUseError):
                self._file.close()
                raise
            _LOG.error("observations wait in memory: %s", error)
        except BaseException:
            self._file.close()
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def is_open(self) -> bool:
        """Whether there is a file; if not, :meth:`put` and :meth:`expire` try to open it."""
        return self._file.is_open

    @property
    def openings(self) -> int:
        """Number of times that a file has been opened: once it has grown, rows that were deleted may be there again."""
        return self._file.openings

    @property
    def set_aside(self) -> list[Path]:
        """Files that were damaged or in the way since this outbox was opened, under their new names."""
        return self._file.set_aside

    @property
    def incarnation(self) -> str:
        """Name of this file: 16 hexadecimal digits; called ``epoch`` on the wire and in the file."""
        return self._file.state.incarnation

    @property
    def depth(self) -> int:
        """Number of rows."""
        return self._file.state.rows

    @property
    def payload_bytes(self) -> int:
        """Bytes of the encoded observations of all rows."""
        return self._file.state.payload_bytes

    @property
    def gap_count(self) -> int:
        """Number of gaps that are not acknowledged."""
        return self._file.state.gaps

    @property
    def last_seq(self) -> int:
        """Highest sequence number given so far."""
        return self._file.state.next_seq - 1

    @property
    def dropped(self) -> dict[GapReason, int]:
        """Observations dropped since the file was made, by reason."""
        return dict(self._file.state.dropped)

    @property
    def destination(self) -> str:
        """Whose the rows are; "" if that is not known."""
        return self._file.state.destination

    @property
    def missing(self) -> int:
        """Number of observations that the gaps count."""
        return self._file.state.in_gaps

    @property
    def kept(self) -> int:
        """Number of rows that are acknowledged and kept."""
        return self._file.state.kept

    def dropped_recently(self, within_s: float = 300.0) -> dict[str, int]:
        """Return the observations dropped in the last ``within_s`` seconds, at most 15 minutes, by reason."""
        return self._recently.within(within_s)

    def oldest_age_s(self) -> float | None:
        """Return for how many seconds a row has been waiting at most; None without rows.

        Rows that a restored gallery asked for wait since it did.

        Raises:
            OutboxError: The file cannot be read.
        """
        with self._file.lock:
            first = self._first_waiting()
            notes = Notes.read(self._file.state.replay)
            if not first or not notes.asked:
                return self._age_s(first, notes)
            seqs = [one.before_seq for one in notes.asked]
            _, not_asked_for = self._verified(lambda db: tables.rows_numbered(db, seqs))
            return self._age_s([*first, *not_asked_for], notes)

    def _first_waiting(self) -> list[StoredRow]:
        return self._verified(partial(self._rows_after, seq=0, limit=1))[1]

    def _age_s(self, rows: Sequence[StoredRow], notes: Notes) -> float | None:
        now_us = self._file.clock.now_us()
        since_us = [notes.waits_since_us(seq, put_us, now_us) for seq, put_us, *_ in rows]
        return max(0, now_us - min(since_us)) / 1e6 if since_us else None

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after each put, in the thread that put."""
        self._listeners.append(listener)

    def put(self, observations: Sequence[Observation], encoding: Encoding = "fp16") -> None:
        """Keep observations, all or none, in one commit; if there is no room, ``when_full`` says what is dropped.

        Raises:
            MessageError: One of them cannot be encoded.
            OutboxError: They are not kept, e.g. because the disk is full, and the outbox is as it was before.  Try
                again, or give them up with :meth:`lose`.
        """
        self.put_encoded([encode_observation(observation, encoding) for observation in observations])

    def put_encoded(self, payloads: Sequence[bytes]) -> None:
        """Keep observations that are encoded already, as :meth:`put` does.

        Raises:
            OutboxError: As for :meth:`put`.
        """
        if not payloads:
            return
        with self._file.lock:
            self._file.check_place()
            try:
                self._insert(payloads)
            except SetAsideError:
                self._insert(payloads)
        for listener in self._listeners:
            listener()

    def lose(self, count: int) -> None:
        """Declare ``count`` observations that could not be put.

        The gap is written once the disk takes it.  Until then the count is kept in the outbox's mark, which takes no
        room, if the outbox was open before.
        """
        with self._file.lock:
            self._file.lose(count)

    def pending(self, after_seq: int, limit: int) -> list[Row]:
        """Return the oldest rows with a higher sequence number, ascending.

        Rows whose bytes have changed on disk are dropped as ``lost``.

        Raises:
            OutboxError: The file cannot be read.
        """
        with self._file.lock:
            last_seq: int | None = after_seq
            looked_at_all = not self._none_up_to[1]
            intact: list[StoredRow] = []
            while last_seq is not None and not intact:
                last_seq, intact = self._verified(partial(self._rows_after, seq=last_seq, limit=limit))
            if not intact and not after_seq and (self.depth or self._file.state.crc_sum):
                if looked_at_all:
                    self._file.found_damaged("rows are missing")
                self._none_up_to = "", 0
        return [(seq, payload) for seq, _, _, payload, _ in intact]

    def _rows_after(self, db: sqlite3.Connection, seq: int, limit: int) -> list[StoredRow]:
        """Find rows that wait; from the first of them on, since thousands of kept ones may lie before it."""
        incarnation = self._file.state.incarnation
        none_up_to = self._none_up_to[1] if self._none_up_to[0] == incarnation else 0
        rows = tables.rows_after(db, max(seq, none_up_to), limit)
        if seq <= none_up_to:
            self._none_up_to = incarnation, rows[0][0] - 1 if rows else self.last_seq
        return rows

    def fetch(self, seqs: Sequence[int]) -> list[Row]:
        """Return those of up to 500 rows that are still here, ascending.

        Raises:
            OutboxError: The file cannot be read.
        """
        _, intact = self._verified(lambda db: tables.rows_numbered(db, seqs))
        return [(seq, payload) for seq, _, _, payload, _ in intact]

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Replace the bytes of rows that wait, in one commit; those that do not wait any more stay as they are.

        Raises:
            OutboxError: The file cannot be written; the rows are as they were.
        """
        with self._file.lock, suppress(SetAsideError):
            self._write("writing", lambda db, state: (tables.rewrite_rows(db, state, rows), None))

    def gaps(self) -> list[Gap]:
        """Return the gaps to declare: the same ones until they are acknowledged, though more may have come since.

        Raises:
            OutboxError: The file cannot be written.
        """
        if not self.gap_count:
            return []
        try:
            return self._write("writing", lambda db, state: (state, tables.seal_gaps(db, state.incarnation)))
        except SetAsideError:
            return []

    def acknowledge(self, ack: Ack) -> None:
        """Delete rows and gaps that the gallery has, or keep the rows for a while, as ``keep_acknowledged_s`` says.

        An acknowledgement for another incarnation is ignored.

        Raises:
            OutboxError: The file cannot be written; the rows stay, and may be sent again.
        """

        def work(db: sqlite3.Connection, state: State) -> tuple[State, None]:
            for first_seq, last_seq in tables.consecutive_runs(ack.seqs):
                if self._keep_us:
                    state = tables.keep_rows(db, state, first_seq, last_seq, self._file.clock.now_us())
                else:
                    state = state.without(tables.delete_rows(db, first_seq, last_seq, "waiting"))
            if ack.gaps:
                tables.delete_gaps(db, ack.gaps)
                state = tables.with_gaps(db, state)
            return state, None

        with self._file.lock, suppress(SetAsideError):
            if ack.incarnation == self.incarnation and (ack.seqs or ack.gaps):
                # A deletion that is lost in a power cut only means that the rows are sent again.
                self._write("deleting", work, synchronous="NORMAL")

    def replay(self, replay: Replay) -> int | None:
        """Make kept rows wait again that a restored gallery asks for; each request is served once.

        Returns:
            The number of rows that wait again; None if the request was served before.

        Raises:
            OutboxError: The file cannot be written; the request is served from its beginning when it comes again.
        """
        with self._file.lock, suppress(SetAsideError):
            self._ready()
            if replay.id in Notes.read(self._file.state.replay).served:
                return None
            if self.kept:
                first = self._first_waiting()
                before_seq = first[0][0] if first else self.last_seq + 1
                asked = Asked(replay.id, self._file.clock.now_us(), before_seq)
                self._note(lambda notes: notes.with_asked(asked))
            self._none_up_to = "", 0
            count, after_seq = 0, 0
            while rows := self._kept_after(after_seq):
                after_seq = rows[-1][0]
                state = self._file.state
                intact = [row for row in rows if is_intact(row, state.incarnation, state.checked_from)]
                wanted = [row for row in intact if _is_asked_for(row, replay)]
                self._write("writing", partial(_waiting_again, rows=wanted))
                count += len(wanted)
            self._note(lambda notes: notes.with_served(replay.id))
            return count
        return None

    def _note(self, change: Callable[[Notes], Notes]) -> None:
        def work(_db: sqlite3.Connection, state: State) -> tuple[State, None]:
            return replace(state, replay=str(change(Notes.read(state.replay)))), None

        self._write("writing", work)

    def _kept_after(self, seq: int) -> list[StoredRow]:
        return self._file.read(partial(tables.kept_after, seq=seq, limit=_REPLAYED), list[StoredRow]())

    def taken_from(self, incarnation: str) -> int:
        """Return the last row of another outbox that :meth:`take` has put here; 0 for none."""
        return Notes.read(self._file.state.replay).taken_from(incarnation)

    def take(self, payloads: Sequence[bytes], incarnation: str, last_seq: int) -> None:
        """Put rows of another outbox, and note up to which it was, in one commit.

        Raises:
            OutboxError: They are not kept.
        """

        def work(db: sqlite3.Connection, state: State) -> tuple[State, None]:
            state = tables.insert_rows(db, state, self._file.clock.now_us(), payloads)
            return replace(state, replay=str(Notes.read(state.replay).with_taken(incarnation, last_seq))), None

        self._write("writing", work)

    def give_up(self, last_seq: int) -> int:
        """Drop the rows that wait, up to one, and declare them as lost; returns how many there were.

        Raises:
            OutboxError: The file cannot be written.
        """
        before = self.depth
        self._write("deleting", lambda db, state: (self._drop(db, state, 0, last_seq, "lost"), None))
        return before - self.depth

    def expire(self) -> None:
        """Drop rows that are too old, and overwrite deleted ones in the file and its log; to be called every minute.

        If there is no file yet, it is opened if the disk takes it now.

        Raises:
            OutboxError: The file cannot be written.
        """
        with self._file.lock, suppress(SetAsideError):
            self._file.check_place()
            if not self._file.reopen():
                return
            self._ready()
            self._file.clock.settle()
            if last := self._last_older_than(self._retention_us):
                self._write("deleting", lambda db, state: (self._drop(db, state, 0, last, "expired"), None))
            if self.kept and (last_kept := self._last_older_than(self._keep_us) if self._keep_us else self.last_seq):
                self._write("deleting", lambda db, state: (_without_kept(db, state, last_kept), None))
            self._declare()
            if self._file.dirty or self.depth:
                self._write("writing", lambda _, state: (state, None))
                self._file.read(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), [])
                self._file.dirty = False
            folder.remove_aside(self._file.path, older_than_s=self._retention_us / 1e6)
        self._expire_beside()

    def _last_older_than(self, age_us: int) -> int:
        return self._file.read(lambda db: tables.last_older_than(db, self._file.clock.now_us() - age_us), 0)

    def _expire_beside(self) -> None:
        """Drop rows that are too old from the files of other destinations, once an hour."""
        if not self._destination or time.monotonic() < self._look_beside_s + BESIDE_S:
            return
        self._look_beside_s = time.monotonic()
        for path in files_beside(self.path):
            try:
                other = Outbox(path, retention_s=self._retention_us / 1e6)
            except OutboxError as error:
                _LOG.warning("an outbox of another gallery cannot be opened to drop what is too old: %s", error)
                continue
            with closing(other), suppress(OutboxError):
                other.expire()

    def _ready(self) -> None:
        """Open the file if it is not, and make sure that it is this destination's.

        Raises:
            OutboxError: It cannot be.
        """
        if self._file.is_open or self._file.reopen():
            self._bind()

    def _bind(self) -> None:
        """Take the file if nothing of another destination waits in it; else keep it beside, and go on with another."""
        with self._file.lock, suppress(SetAsideError):
            state, wanted = self._file.state, self._destination
            if not self._file.is_open or not wanted or state.destination == wanted:
                return
            theirs = state.undelivered + state.kept
            if state.destination and theirs:
                self._keep_beside(state)
            elif not theirs and (taken := beside(self.path, wanted)).exists():
                self._file.exchange(None, taken)
            if self._file.state.destination != wanted:
                self._file.write("writing", lambda _, state: (replace(state, destination=wanted), None))

    def _keep_beside(self, state: State) -> None:
        kept = beside(self.path, state.destination)
        if kept.exists():
            kept = kept.with_name(f"{kept.stem}-{secrets.token_hex(2)}{kept.suffix}")
        self._file.exchange(kept, beside(self.path, self._destination))
        _LOG.warning(
            "in the outbox %s, %d observations of %s wait, and this is %s: they are kept in %s. To see, move or "
            "discard them: reid-edge outbox list %s",
            self.path,
            state.rows,
            state.destination,
            self._destination,
            kept.name,
            self.path.parent,
        )

    def close(self) -> None:
        """Close the file; its rows are there when it is opened again."""
        with self._file.lock:
            if self._file.is_open:
                with suppress(OutboxError, SetAsideError):
                    self._file.check_place(closing=True)
                    self._declare()
            self._file.close()

    def _write(
        self,
        doing: str,
        work: Callable[[sqlite3.Connection, State], tuple[State, Result]],
        *,
        synchronous: Synchronous | None = None,
    ) -> Result:
        """Run ``work`` in a transaction, and count what it has dropped."""
        before: dict[GapReason, int] = {}

        def run(db: sqlite3.Connection, state: State) -> tuple[State, Result]:
            before.update(self._file.state.dropped)  # here, since the file may have been opened for this
            return work(db, state)

        with self._file.lock:
            self._ready()
            result = self._file.write(doing, run, synchronous=synchronous)
            for reason, count in self._file.state.dropped.items():
                if count > before[reason]:
                    self._recently.add(reason, count - before[reason])
            return result

    def _insert(self, payloads: Sequence[bytes]) -> None:
        def work(db: sqlite3.Connection, state: State) -> tuple[State, None]:
            kept = payloads[: self._room_for(payloads, state)] if self._when_full == "refuse-newest" else payloads
            state = tables.insert_rows(db, state, self._file.clock.now_us(), kept)
            state = tables.note_loss(db, state, len(payloads) - len(kept), "full")
            return self._bounded(db, state), None

        self._write("writing", work)

    def _bounded(self, db: sqlite3.Connection, state: State) -> State:
        """Drop what there is no room for: kept rows first, and then the oldest that wait."""
        rows, size = state.rows - self._max_rows, state.payload_bytes - self._max_bytes
        if state.kept and (last := tables.last_to_drop(db, rows + state.kept, size + state.kept_bytes, "kept")):
            state = _without_kept(db, state, last)
        if last := tables.last_to_drop(db, rows, size, "waiting"):
            state = self._drop(db, state, 0, last, "full")
        return state

    def _declare(self) -> None:
        """Write the gap of observations that could not be put."""
        if self._file.undeclared:
            self._write("writing", lambda _, state: (state, None))

    def _room_for(self, payloads: Sequence[bytes], state: State) -> int:
        """Return how many of the observations, from the first on, there is room for."""
        rows, size = max(0, self._max_rows - state.rows), self._max_bytes - state.payload_bytes
        sizes = accumulate(map(len, payloads))
        return min(rows, sum(1 for _ in takewhile(lambda total: total <= size, sizes)))

    def _drop(self, db: sqlite3.Connection, state: State, first_seq: int, last_seq: int, reason: GapReason) -> State:
        """Delete rows that wait, and note the gap."""
        gone = tables.delete_rows(db, first_seq, last_seq, "waiting")
        if not gone.rows:
            return state
        return tables.with_gap(db, state.without(gone), Gap(gone.first_seq, gone.last_seq, gone.rows, reason))

    def _verified(self, find: Callable[[sqlite3.Connection], list[StoredRow]]) -> tuple[int | None, list[StoredRow]]:
        """Return the last number that ``find`` found, None if it found none, and the rows that are as they were put.

        If others are found, the whole file is read and what is damaged is dropped; if the disk does not take that now,
        they are left out.
        """
        with self._file.lock:
            for _ in range(_MOST_DAMAGED_FILES):
                with suppress(SetAsideError):
                    self._ready()
                    found = self._file.read(find, list[StoredRow]())
                    state = self._file.state
                    intact = {row[0]: row for row in found if is_intact(row, state.incarnation, state.checked_from)}
                    if len(intact) == len(found) or not self._file.recheck():
                        return (found[-1][0] if found else None), [intact[seq] for seq in sorted(intact)]
            return None, []


def _without_kept(db: sqlite3.Connection, state: State, last_seq: int) -> State:
    return state.without_kept(tables.delete_rows(db, 0, last_seq, "kept"))


def _is_asked_for(row: StoredRow, replay: Replay) -> bool:
    """Return whether a restored gallery asks for a row; it may have been stamped before the clock was set."""
    seen_us = last_seen_us(row[3])
    return seen_us >= replay.since_us or seen_us < PLAUSIBLE_US


def _waiting_again(db: sqlite3.Connection, state: State, rows: Sequence[StoredRow]) -> tuple[State, None]:
    return tables.wait_again(db, state, rows), None
