"""The sending half of a delivery: new rows, rows that are due again, and gaps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from reid_edge.backoff import exponential_pause_s
from reid_edge.errors import BatchTooLargeError, OutboxError, TransportError
from reid_edge.upstream.batch_limit import MOST_BATCH_BYTES
from reid_edge.upstream.delivery.batching import divided
from reid_edge.upstream.delivery.progress import Progress
from reid_edge.upstream.message import encode_batch
from reid_edge.upstream.observation import Gap
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.transport import Transport

#: Time between two looks for rows that are too old, and between two attempts to open an outbox that has no file.
EXPIRE_S, REOPEN_S = 60.0, 1.0
FIRST_BACKOFF_S = 0.5
Row = tuple[int, bytes]


class Sender:
    """Sends the rows of an outbox; :meth:`step` is called again and again, in one thread.

    Args:
        outbox: Holds the rows.
        transport: Carries them.
        progress: What was sent and acknowledged.
        camera: Name on the wire.
        galleries: Names of the galleries that are to have every row.
        amend: Takes the incarnation and rows that are about to be sent, and returns them as they are to be sent.
        window_rows: Most rows sent and not acknowledged.
        batch_rows: Most rows of a batch.
        resend_s: Seconds to wait before gaps are sent again.
        most_backoff_s: Longest wait while the transport does not accept.
    """

    def __init__(
        self,
        outbox: Outbox,
        transport: Transport,
        progress: Progress,
        *,
        camera: str,
        galleries: Sequence[str],
        amend: Callable[[str, list[Row]], list[Row]],
        window_rows: int,
        batch_rows: int,
        resend_s: float,
        most_backoff_s: float,
    ) -> None:
        self._outbox = outbox
        self._transport = transport
        self._progress = progress
        self._stats, self._log = progress.stats, progress.log
        self._camera = camera
        self._galleries = galleries
        self._amend = amend
        self._window_rows = window_rows
        self._batch_rows = batch_rows
        self._resend_s = resend_s
        self._most_backoff_s = most_backoff_s
        self._failures = 0
        self._expire_due_s = 0.0
        self._begin()

    def _begin(self) -> None:
        self._progress.begin(self._outbox.incarnation, self._outbox.openings)
        self._after_seq = 0
        self._highest_sent = 0
        self._was_resent = False

    def step(self) -> None:
        """Send one batch, or wait until there may be one."""
        self._expire()
        self._progress.note_losses(self._transport.losses)
        with self._progress.changed:
            self._progress.news = False
            if (self._outbox.incarnation, self._outbox.openings) != (
                self._progress.incarnation,
                self._progress.openings,
            ):
                self._begin()
        incarnation = self._progress.incarnation
        rows = self._amend(incarnation, self._rows())
        gaps = self._gaps()
        if not rows and not gaps:
            self._wait()
        elif incarnation == self._outbox.incarnation:  # else the rows may be of a file that was set aside meanwhile
            self._send_fitting(rows, gaps)

    def _send_fitting(self, rows: Sequence[Row], gaps: Sequence[Gap]) -> None:
        """Send rows and gaps in as many batches as the transport's limit makes necessary, until one is not taken."""
        most_bytes = self._most_batch_bytes()
        empty = encode_batch(self._camera, self._progress.incarnation, [], galleries=self._galleries)
        parts, too_large = divided(rows, gaps, most_bytes - len(empty))
        if gaps:
            with self._progress.changed:
                self._progress.positions.sending_gaps((gap.first_seq, gap.last_seq) for gap in gaps)
        if too_large:
            self._hold_back(too_large, most_bytes)
        for index, part in enumerate(parts):
            if not self._send(part.rows, part.gaps):
                left = tuple(seq for other in parts[index + 1 :] for seq, _ in other.rows)
                with self._progress.changed:
                    self._progress.positions.sending(left, time.monotonic())
                    self._progress.positions.failed(left)
                break

    def _most_batch_bytes(self) -> int:
        return getattr(self._transport, "max_batch_bytes", MOST_BATCH_BYTES)  # missing in transports of one's own

    def _hold_back(self, rows: Sequence[Row], most_bytes: int) -> None:
        """Keep rows that fit into no batch as if they had been refused: they hold up no others."""
        reason = (
            f"{self._transport.name} takes batches of at most {most_bytes} bytes, and an observation does not fit: "
            "raise that limit, or choose a smaller upstream.encoding for new ones"
        )
        with self._progress.changed:
            self._progress.positions.hold_back([seq for seq, _ in rows], reason, time.monotonic())
            self._stats.refused += len(rows)
            self._stats.last_refusal = reason
            self._stats.refused_waiting = self._progress.positions.refused
        self._log.refusals([reason], self._stats.refused_waiting)

    def _rows(self) -> list[Row]:
        """Return the rows of the next batch: those to send again, in turns with new ones if there are two galleries.

        So what one gallery lacks does not delay what both lack.
        """
        if self._was_resent and (fresh := self._fresh()):
            self._was_resent = False
            return fresh
        again = self._resendable()
        self._was_resent = bool(again) and len(self._galleries) > 1
        return again or self._fresh()

    def _resendable(self) -> list[Row]:
        """Return rows to send again; those that have left the outbox are taken off the lists."""
        while True:
            with self._progress.changed:
                room = self._progress.positions.in_flight < self._window_rows
                seqs = self._progress.positions.due(time.monotonic(), self._batch_rows, room=room)
            if not seqs:
                return []
            try:
                rows = self._outbox.fetch(seqs)
            except OutboxError:
                with self._progress.changed:
                    self._progress.positions.failed(seqs)
                raise
            with self._progress.changed:
                self._progress.positions.forget(set(seqs).difference(seq for seq, _ in rows))
            if rows:
                return rows

    def _fresh(self) -> list[Row]:
        """Return rows that were not sent yet, or that wait again."""
        if self._progress.from_the_start:
            self._progress.from_the_start, self._after_seq = False, 0
        while (room := self._window_rows - self._progress.positions.in_flight) > 0:
            rows = self._outbox.pending(self._after_seq, min(room, self._batch_rows))
            if not rows:
                break
            self._after_seq = rows[-1][0]
            with self._progress.changed:
                fresh = [row for row in rows if row[0] not in self._progress.positions]
            if fresh:
                return fresh
        return []

    def _gaps(self) -> list[Gap]:
        if not self._outbox.gap_count or time.monotonic() < self._progress.gaps_due_s:
            return []
        try:
            return self._outbox.gaps()
        except OutboxError as error:  # rows can still be sent
            self._log.problem(error)
            self._progress.gaps_due_s = time.monotonic() + self._resend_s
            return []

    def _send(self, rows: Sequence[Row], gaps: Sequence[Gap]) -> bool:
        """Send one batch; return whether the transport took it."""
        seqs = tuple(seq for seq, _ in rows)
        with self._progress.changed:  # before sending: the acknowledgement may be quicker than the return
            self._progress.positions.sending(seqs, time.monotonic())
            if gaps:
                self._progress.gaps_due_s = time.monotonic() + self._resend_s
        batch = encode_batch(self._camera, self._progress.incarnation, rows, gaps, galleries=self._galleries)
        try:
            self._transport.send(batch)
        except Exception as error:  # a transport may be anybody's, and raise anything
            self._failed(seqs, error, smaller=self._most_batch_bytes() < len(batch))
            return False
        self._failures = 0
        stats = self._stats
        stats.connected, stats.last_error, stats.batches = True, "", stats.batches + 1
        again = sum(seq <= self._highest_sent for seq in seqs) if seqs and seqs[0] <= self._highest_sent else 0
        stats.sent, stats.resent = stats.sent + len(seqs) - again, stats.resent + again
        self._highest_sent = max(self._highest_sent, seqs[-1] if seqs else 0)
        return True

    def _failed(self, seqs: tuple[int, ...], error: Exception, *, smaller: bool) -> None:
        """Note that the transport did not take a batch, and wait longer each time, but not before ``smaller`` ones."""
        with self._progress.changed:
            self._progress.positions.failed(seqs)
            self._progress.gaps_due_s = 0.0
        if smaller and isinstance(error, BatchTooLargeError):
            return
        self._stats.transport_errors += 1
        self._stats.connected = False
        pause_s = exponential_pause_s(self._failures, FIRST_BACKOFF_S, self._most_backoff_s)
        if isinstance(error, TransportError):
            self._log.problem(error)
        else:
            self._log.bug(error, pause_s)
        self._failures += 1
        self._progress.sleep(pause_s)

    def _expire(self) -> None:
        now_s = time.monotonic()
        if now_s < self._expire_due_s:
            return
        self._expire_due_s = now_s + EXPIRE_S
        self._outbox.expire()
        if not self._outbox.is_open:
            self._expire_due_s = now_s + REOPEN_S
            return
        oldest = self._outbox.pending(0, 1)
        with self._progress.changed:
            self._progress.positions.forget_before(oldest[0][0] if oldest else self._outbox.last_seq + 1)
            self._stats.refused_waiting = self._progress.positions.refused

    def _wait(self) -> None:
        """Wait until something is put, acknowledged or due."""
        with self._progress.changed:
            now_s = time.monotonic()
            room = self._progress.positions.in_flight < self._window_rows
            due_s = min(self._progress.positions.next_due_s(now_s, room=room), self._expire_due_s)
            if self._outbox.gap_count:
                due_s = min(due_s, self._progress.gaps_due_s)
            if not self._progress.news and not self._progress.stopping and due_s > now_s:
                self._progress.changed.wait(due_s - now_s)
