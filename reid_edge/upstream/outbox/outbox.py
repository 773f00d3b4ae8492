"""Observations on disk until the gallery has them: bounded, with every dropped one declared.

:class:`Outbox` is the queue.  ``destined_file`` keeps rows of other destinations out of its file, ``file`` keeps the
file in use and replaces a damaged one, ``tables`` has all SQL of the rows, ``database`` makes and opens the SQLite
file, and ``folder`` locks, renames and deletes files.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import accumulate, takewhile
from pathlib import Path
from typing import Literal

from reid_edge.errors import OutboxError, OutboxInUseError
from reid_edge.upstream.clocks import Reading, read_clocks
from reid_edge.upstream.message import Encoding, encode_observation
from reid_edge.upstream.observation import Ack, Gap, GapReason, Observation, Replay
from reid_edge.upstream.outbox import folder, tables
from reid_edge.upstream.outbox.database import Synchronous
from reid_edge.upstream.outbox.destination import files_beside
from reid_edge.upstream.outbox.destined_file import DestinedFile
from reid_edge.upstream.outbox.file import OutboxFile, SetAsideError
from reid_edge.upstream.outbox.notes import Notes
from reid_edge.upstream.outbox.records import Row, State
from reid_edge.upstream.outbox.replaying import replay_kept
from reid_edge.upstream.outbox.waiting_rows import WaitingRows

_LOG = logging.getLogger(__name__)
#: What is dropped when the outbox is full: the oldest rows, or what would be put.
WhenFull = Literal["drop-oldest", "refuse-newest"]
#: Seconds between two looks at the files of other destinations.
BESIDE_S = 3600.0
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
        destination: Camera and gallery of the rows, as :class:`~reid_edge.upstream.outbox.Destination` puts it.  A file
            in which rows or gaps of another one wait is kept beside it, and another is started; it is taken up again
            with its own destination.  "": the one that the file has.
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
        self._keep_us = int(min(keep_acknowledged_s, retention_s) * 1e6)
        self._look_beside_s = float("-inf")
        self._listeners: list[Callable[[], None]] = []
        self._file = OutboxFile(
            Path(path), synchronous=synchronous, read_clocks=read_clocks, wait_for_disk=wait_for_disk
        )
        self._destined = DestinedFile(self._file, destination)
        self._waiting = WaitingRows(self._destined)
        try:
            self._destined.bind()
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
        """Camera and gallery of the rows; "" if that is not known."""
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
        return self._destined.dropped.within(within_s)

    def oldest_age_s(self) -> float | None:
        """Return for how many seconds a row has been waiting at most; None without rows.

        Rows that a restored gallery asked for wait since it did.

        Raises:
            OutboxError: The file cannot be read.
        """
        return self._waiting.oldest_age_s()

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
        return [(seq, payload) for seq, _, _, payload, _ in self._waiting.after(after_seq, limit)]

    def fetch(self, seqs: Sequence[int]) -> list[Row]:
        """Return those of up to 500 rows that are still here, ascending.

        Raises:
            OutboxError: The file cannot be read.
        """
        return [(seq, payload) for seq, _, _, payload, _ in self._waiting.numbered(seqs)]

    def rewrite(self, rows: Sequence[Row]) -> None:
        """Replace the bytes of rows that wait, in one commit; those that do not wait any more stay as they are.

        Raises:
            OutboxError: The file cannot be written; the rows are as they were.
        """
        with self._file.lock, suppress(SetAsideError):
            self._destined.write("writing", lambda db, state: (tables.rewrite_rows(db, state, rows), None))

    def gaps(self) -> list[Gap]:
        """Return the gaps to declare: the same ones until they are acknowledged, though more may have come since.

        Raises:
            OutboxError: The file cannot be written.
        """
        if not self.gap_count:
            return []
        try:
            return self._destined.write("writing", lambda db, state: (state, tables.seal_gaps(db, state.incarnation)))
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
                self._destined.write("deleting", work, synchronous="NORMAL")

    def replay(self, replay: Replay) -> int | None:
        """Make kept rows wait again that a restored gallery asks for; each request is served once.

        Returns:
            The number of rows that wait again; None if the request was served before.

        Raises:
            OutboxError: The file cannot be written; the request is served from its beginning when it comes again.
        """
        return replay_kept(self._destined, self._waiting, replay)

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

        self._destined.write("writing", work)

    def give_up(self, last_seq: int) -> int:
        """Drop the rows that wait, up to one, and declare them as lost; returns how many there were.

        Raises:
            OutboxError: The file cannot be written.
        """
        before = self.depth
        self._destined.write("deleting", lambda db, state: (self._drop(db, state, 0, last_seq, "lost"), None))
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
            self._destined.ready()
            self._file.clock.settle()
            if last := self._last_older_than(self._retention_us):
                self._destined.write("deleting", lambda db, state: (self._drop(db, state, 0, last, "expired"), None))
            if self.kept and (last_kept := self._last_older_than(self._keep_us) if self._keep_us else self.last_seq):
                self._destined.write("deleting", lambda db, state: (_without_kept(db, state, last_kept), None))
            self._declare()
            if self._file.dirty or self.depth:
                self._destined.write("writing", lambda _, state: (state, None))
                self._file.read(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), [])
                self._file.dirty = False
            folder.remove_aside(self._file.path, older_than_s=self._retention_us / 1e6)
        self._expire_beside()

    def _last_older_than(self, age_us: int) -> int:
        return self._file.read(lambda db: tables.last_older_than(db, self._file.clock.now_us() - age_us), 0)

    def _expire_beside(self) -> None:
        """Drop rows that are too old from the files of other destinations, once an hour."""
        if not self._destined.destination or time.monotonic() < self._look_beside_s + BESIDE_S:
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

    def close(self) -> None:
        """Close the file; its rows are there when it is opened again."""
        with self._file.lock:
            if self._file.is_open:
                with suppress(OutboxError, SetAsideError):
                    self._file.check_place(closing=True)
                    self._declare()
            self._file.close()

    def _insert(self, payloads: Sequence[bytes]) -> None:
        def work(db: sqlite3.Connection, state: State) -> tuple[State, None]:
            kept = payloads[: self._room_for(payloads, state)] if self._when_full == "refuse-newest" else payloads
            state = tables.insert_rows(db, state, self._file.clock.now_us(), kept)
            state = tables.note_loss(db, state, len(payloads) - len(kept), "full")
            return self._bounded(db, state), None

        self._destined.write("writing", work)

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
            self._destined.write("writing", lambda _, state: (state, None))

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


def _without_kept(db: sqlite3.Connection, state: State, last_seq: int) -> State:
    return state.without_kept(tables.delete_rows(db, 0, last_seq, "kept"))
