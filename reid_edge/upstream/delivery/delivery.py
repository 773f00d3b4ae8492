"""Delivery from an outbox to a gallery: rows are sent until they are acknowledged, and deleted only then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from reid_edge.backoff import exponential_pause_s
from reid_edge.errors import BatchTooLargeError, MessageError, OutboxError, TransportError
from reid_edge.upstream.batch_limit import MOST_BATCH_BYTES
from reid_edge.upstream.delivery.batching import divided
from reid_edge.upstream.delivery.log import DeliveryLog, DeliveryStats, shown
from reid_edge.upstream.delivery.positions import Position, Positions
from reid_edge.upstream.message import decode_ack, encode_batch
from reid_edge.upstream.observation import DEFAULT_GALLERY, Ack, Gap, Replay
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.transport import Transport

EXPIRE_S = 60.0
REOPEN_S = 1.0
LOOK_S = 0.5
REPLAY_AGAIN_S = 600.0
ACK_WAIT_S = 0.5
FIRST_BACKOFF_S = 0.5
AFTER_A_BUG_S = 5.0
#: The last moment that can be shown: the year 9999.
_LAST_US = 253_402_300_799_000_000
_Row = tuple[int, bytes]
_LOG = logging.getLogger(__name__)


class Delivery:
    """Two threads: one sends the rows of an outbox, the other deletes those that are acknowledged.

    A row is deleted once every gallery in ``galleries`` has acknowledged it; acknowledgements of others are ignored and
    counted.  At most ``window_rows`` rows wait for the first acknowledgement.  Rows that are not acknowledged within
    ``resend_s`` are sent again, and then less and less often until an acknowledgement of anything comes; they are sent
    again at once if the transport's ``losses`` say that they may be gone.  Rows that the gallery refuses stay in the
    outbox without delaying others, and are tried again, a batch after ``retry_refused_s`` and then less and less often.
    Nor do rows delay others that some galleries have and others have not.  While the transport does not accept,
    attempts become rarer, up to one a minute.  No batch is larger than the transport's ``max_batch_bytes``; a row that
    is waits as if it had been refused.

    Args:
        outbox: Holds the rows; :meth:`stop` leaves it open.
        transport: Carries them; :meth:`stop` leaves it open.
        camera: Name on the wire: the camera's, or its pseudonym.
        galleries: Names of the galleries that are to have every row, at most 8; none: whichever gallery answers.
        amend: Takes the incarnation and rows that are about to be sent, and returns them as they are to be sent.
        window_rows: Most rows sent and not acknowledged.
        batch_rows: Most rows of a batch, up to 500.
        resend_s: Seconds to wait for an acknowledgement.
        retry_refused_s: Seconds to wait before refused rows are tried again.
        most_backoff_s: Longest wait while the transport does not accept.

    Attributes:
        stats: Counts since the start.

    Raises:
        MessageError: A name cannot be sent.
    """

    def __init__(
        self,
        outbox: Outbox,
        transport: Transport,
        *,
        camera: str,
        galleries: Sequence[str] = (DEFAULT_GALLERY,),
        amend: Callable[[str, list[_Row]], list[_Row]] = lambda _incarnation, rows: rows,
        window_rows: int = 8000,
        batch_rows: int = 64,
        resend_s: float = 30.0,
        retry_refused_s: float = 60.0,
        most_backoff_s: float = 60.0,
    ) -> None:
        encode_batch(camera, "check", [], galleries=galleries)  # raises now if a name cannot be sent
        self.stats = DeliveryStats()
        self._outbox = outbox
        self._transport = transport
        self._camera = camera
        self._amend = amend
        self._galleries = tuple(dict.fromkeys(galleries))
        self._window_rows = window_rows
        self._batch_rows = min(batch_rows, window_rows, 500)
        self._resend_s = resend_s
        self._retry_refused_s = retry_refused_s
        self._most_backoff_s = most_backoff_s
        self._failures = 0
        self._expire_due_s = 0.0
        self._look_due_s = 0.0
        self._delete_due_s = 0.0
        self._replay_due_s = 0.0
        self._log = DeliveryLog(_LOG, self.stats)
        self._losses = 0
        self._changed = threading.Condition()  # guards what follows
        self._news = True
        self._stopping = False
        self._begin(outbox.incarnation)
        self._threads = [
            threading.Thread(target=self._run, args=(step,), name=name, daemon=True)
            for step, name in ((self._send_step, "delivery-send"), (self._ack_step, "delivery-acks"))
        ]
        outbox.listen(self._wake)

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, drain_s: float = 0.0) -> bool:
        """End once everything is delivered or ``drain_s`` have passed; the rest stays in the outbox.

        Returns:
            True if nothing is left but rows that were refused.
        """
        deadline = time.monotonic() + drain_s
        with self._changed:
            while not self._drained() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, 0.2))
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(ACK_WAIT_S + 2.0)
        return self._drained()

    def _begin(self, incarnation: str) -> None:
        """Begin with an outbox file of which nothing was sent, or which may hold rows again that had been."""
        self._incarnation = incarnation
        self._openings = self._outbox.openings
        self._after_seq = 0
        self._highest_sent = 0
        self._gaps_due_s = 0.0
        self._was_resent = False
        self._from_the_start = False
        self._positions = Positions(self._galleries, self._resend_s, self._retry_refused_s)
        self._done_seqs: list[int] = []
        self._done_gaps: list[tuple[int, int]] = []

    def _run(self, step: Callable[[], None]) -> None:
        while not self._stopping:
            try:
                step()
            except OutboxError as error:
                self._log.problem(error)
                self._sleep(1.0)
            except Exception as error:  # the thread's last resort: better late than dead
                self._log.bug(error, AFTER_A_BUG_S)
                self._sleep(AFTER_A_BUG_S)

    def _send_step(self) -> None:
        """Send one batch, or wait until there may be one."""
        self._expire()
        self._resend_losses()
        with self._changed:
            self._news = False
            if (self._outbox.incarnation, self._outbox.openings) != (self._incarnation, self._openings):
                self._begin(self._outbox.incarnation)
        incarnation = self._incarnation
        rows = self._amend(incarnation, self._rows())
        gaps = self._gaps()
        if not rows and not gaps:
            self._wait()
        elif incarnation == self._outbox.incarnation:  # else the rows may be of a file that was set aside meanwhile
            self._send_fitting(rows, gaps)

    def _send_fitting(self, rows: Sequence[_Row], gaps: Sequence[Gap]) -> None:
        """Send rows and gaps in as many batches as the transport's limit makes necessary, until one is not taken."""
        most_bytes = self._most_batch_bytes()
        empty = encode_batch(self._camera, self._incarnation, [], galleries=self._galleries)
        parts, too_large = divided(rows, gaps, most_bytes - len(empty))
        if gaps:
            with self._changed:
                self._positions.sending_gaps((gap.first_seq, gap.last_seq) for gap in gaps)
        if too_large:
            self._hold_back(too_large, most_bytes)
        for index, part in enumerate(parts):
            if not self._send(part.rows, part.gaps):
                left = tuple(seq for other in parts[index + 1 :] for seq, _ in other.rows)
                with self._changed:
                    self._positions.sending(left, time.monotonic())
                    self._positions.failed(left)
                break

    def _most_batch_bytes(self) -> int:
        return getattr(self._transport, "max_batch_bytes", MOST_BATCH_BYTES)  # missing in transports of one's own

    def _hold_back(self, rows: Sequence[_Row], most_bytes: int) -> None:
        """Keep rows that fit into no batch as if they had been refused: they hold up no others."""
        reason = (
            f"{self._transport.name} takes batches of at most {most_bytes} bytes, and an observation does not fit: "
            "raise that limit, or choose a smaller upstream.encoding for new ones"
        )
        with self._changed:
            self._positions.hold_back([seq for seq, _ in rows], reason, time.monotonic())
            self.stats.refused += len(rows)
            self.stats.last_refusal = reason
            self.stats.refused_waiting = self._positions.refused
        self._log.refusals([reason], self.stats.refused_waiting)

    def _rows(self) -> list[_Row]:
        """Return the rows of the next batch: those to send again, in turns with new ones if there are two galleries.

        So what one gallery lacks does not delay what both lack.
        """
        if self._was_resent and (fresh := self._fresh()):
            self._was_resent = False
            return fresh
        again = self._resendable()
        self._was_resent = bool(again) and len(self._galleries) > 1
        return again or self._fresh()

    def _resendable(self) -> list[_Row]:
        """Return rows to send again; those that have left the outbox are taken off the lists."""
        while True:
            with self._changed:
                room = self._positions.in_flight < self._window_rows
                seqs = self._positions.due(time.monotonic(), self._batch_rows, room=room)
            if not seqs:
                return []
            try:
                rows = self._outbox.fetch(seqs)
            except OutboxError:
                with self._changed:
                    self._positions.failed(seqs)
                raise
            with self._changed:
                self._positions.forget(set(seqs).difference(seq for seq, _ in rows))
            if rows:
                return rows

    def _fresh(self) -> list[_Row]:
        """Return rows that were not sent yet, or that wait again."""
        if self._from_the_start:
            self._from_the_start, self._after_seq = False, 0
        while (room := self._window_rows - self._positions.in_flight) > 0:
            rows = self._outbox.pending(self._after_seq, min(room, self._batch_rows))
            if not rows:
                break
            self._after_seq = rows[-1][0]
            with self._changed:
                fresh = [row for row in rows if row[0] not in self._positions]
            if fresh:
                return fresh
        return []

    def _gaps(self) -> list[Gap]:
        if not self._outbox.gap_count or time.monotonic() < self._gaps_due_s:
            return []
        try:
            return self._outbox.gaps()
        except OutboxError as error:  # rows can still be sent
            self._log.problem(error)
            self._gaps_due_s = time.monotonic() + self._resend_s
            return []

    def _send(self, rows: Sequence[_Row], gaps: Sequence[Gap]) -> bool:
        """Send one batch; return whether the transport took it."""
        seqs = tuple(seq for seq, _ in rows)
        with self._changed:  # before sending: the acknowledgement may be quicker than the return
            self._positions.sending(seqs, time.monotonic())
            if gaps:
                self._gaps_due_s = time.monotonic() + self._resend_s
        batch = encode_batch(self._camera, self._incarnation, rows, gaps, galleries=self._galleries)
        try:
            self._transport.send(batch)
        except Exception as error:  # a transport may be anybody's, and raise anything
            self._failed(seqs, error, smaller=self._most_batch_bytes() < len(batch))
            return False
        self._failures = 0
        stats = self.stats
        stats.connected, stats.last_error, stats.batches = True, "", stats.batches + 1
        again = sum(seq <= self._highest_sent for seq in seqs) if seqs and seqs[0] <= self._highest_sent else 0
        stats.sent, stats.resent = stats.sent + len(seqs) - again, stats.resent + again
        self._highest_sent = max(self._highest_sent, seqs[-1] if seqs else 0)
        return True

    def _failed(self, seqs: tuple[int, ...], error: Exception, *, smaller: bool) -> None:
        """Note that the transport did not take a batch, and wait longer each time, but not before ``smaller`` ones."""
        with self._changed:
            self._positions.failed(seqs)
            self._gaps_due_s = 0.0
        if smaller and isinstance(error, BatchTooLargeError):
            return
        self.stats.transport_errors += 1
        self.stats.connected = False
        pause_s = exponential_pause_s(self._failures, FIRST_BACKOFF_S, self._most_backoff_s)
        if isinstance(error, TransportError):
            self._log.problem(error)
        else:
            self._log.bug(error, pause_s)
        self._failures += 1
        self._sleep(pause_s)

    def _ack_step(self) -> None:
        """Delete the rows acknowledged since the last step, in one commit."""
        try:
            payloads = self._transport.acks(ACK_WAIT_S)
        except TransportError as error:
            self._log.problem(error)
            self._sleep(1.0)
            payloads = []
        self._resend_losses()
        incarnation = self._incarnation
        for payload in payloads:
            ack = self._decoded(payload) if payload else None
            if ack is not None and ack.incarnation == incarnation:
                self._take(ack)
        self._delete(incarnation)
        self._look()

    def _take(self, ack: Ack) -> None:
        """Note what an acknowledgement says of rows and gaps that were sent."""
        position = self._positions.of(ack.gallery)
        if position is None:
            self._log.foreign(ack.gallery, self._galleries)
            return
        if ack.seqs and max(ack.seqs) > (last_seq := self._outbox.last_seq):
            self._log.unsent(sum(seq > last_seq for seq in ack.seqs))
        reasons = [shown(refusal.reason) for refusal in ack.refused]
        with self._changed:
            if self._incarnation != ack.incarnation:
                return
            self._note(position, ack, reasons)
            self._news = True
            self._changed.notify_all()
        self._log.refusals(reasons, self.stats.refused_waiting)
        if ack.replay is not None and time.monotonic() >= self._replay_due_s:
            self._replay(ack.replay, ack.gallery)

    def _replay(self, replay: Replay, gallery: str) -> None:
        """Send acknowledged rows again that a restored gallery asks for; one request in ten minutes at most."""
        count = self._outbox.replay(replay)
        if count is None:  # served before
            return
        self._replay_due_s = time.monotonic() + REPLAY_AGAIN_S
        self.stats.replayed += count
        since = datetime.fromtimestamp(min(replay.since_us, _LAST_US) // 1_000_000, timezone.utc)
        _LOG.info(
            "gallery '%s' was restored, and asks for what was seen since %s: %d observations that it had acknowledged "
            "are sent again",
            shown(gallery) or self._transport.name,
            since.isoformat(sep=" "),
            count,
        )
        self._from_the_start = True
        self._wake()

    def _note(self, position: Position, ack: Ack, reasons: Sequence[str]) -> None:
        """Take acknowledged rows and gaps off the lists, and put refused ones on theirs."""
        stats, positions, now_s = self.stats, self._positions, time.monotonic()
        done, latencies_s = positions.acknowledged(position, ack.seqs, now_s)
        gaps = positions.gaps_acknowledged(position, ack.gaps)
        self._done_seqs += done
        self._done_gaps += gaps
        stats.latencies_s.extend(latencies_s)
        for refusal, reason in zip(ack.refused, reasons, strict=True):
            if count := positions.refuse(position, refusal.seqs, reason, now_s):
                stats.refused += count
                stats.last_refusal = f"{position.gallery}: {reason}" if len(self._galleries) > 1 else reason
        stats.refused_waiting = positions.refused
        stats.last_ack_us = time.time_ns() // 1000

    def _delete(self, incarnation: str) -> None:
        """Delete what every gallery has; while the outbox cannot be written it is remembered, and not sent again."""
        with self._changed:
            seqs, gaps = self._done_seqs, self._done_gaps
            if not (seqs or gaps) or time.monotonic() < self._delete_due_s:
                return
            self._done_seqs, self._done_gaps = [], []
        try:
            self._outbox.acknowledge(Ack(self._camera, incarnation, tuple(seqs), tuple(gaps)))
        except OutboxError as error:
            self._log.problem(error)
            self._delete_due_s = time.monotonic() + 1.0
            with self._changed:
                if self._incarnation == incarnation:
                    self._done_seqs, self._done_gaps = seqs + self._done_seqs, gaps + self._done_gaps
            return
        self.stats.acknowledged += len(seqs)
        self.stats.gaps_acknowledged += len(gaps)
        with self._changed:
            if gaps:  # others may have waited until these were delivered
                self._gaps_due_s = 0.0
            self._news = True
            self._changed.notify_all()

    def _look(self) -> None:
        """Note the age of the oldest row, twice a second."""
        now_s = time.monotonic()
        if now_s < self._look_due_s:
            return
        self._look_due_s = now_s + LOOK_S
        age_s = self._outbox.oldest_age_s()
        self.stats.oldest_put_s = None if age_s is None else now_s - age_s
        with self._changed:
            self.stats.lacking = self._positions.lacking

    def _resend_losses(self) -> None:
        """Make rows due at once that the transport may have lost, e.g. with its connection."""
        losses = self._transport.losses
        with self._changed:
            if losses == self._losses:
                return
            self._losses = losses
            self._positions.lost()
            self._news = True
            self._changed.notify_all()

    def _decoded(self, payload: bytes) -> Ack | None:
        try:
            ack = decode_ack(payload)
            if ack.camera != self._camera:
                raise MessageError(f"expected an acknowledgement for {self._camera}, got one for {ack.camera}.")
        except MessageError as error:
            self.stats.bad_acks += 1
            self._log.problem(error)
            return None
        return ack

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
        with self._changed:
            self._positions.forget_before(oldest[0][0] if oldest else self._outbox.last_seq + 1)
            self.stats.refused_waiting = self._positions.refused

    def _drained(self) -> bool:
        return self._outbox.depth <= self._positions.held_back and not self._outbox.gap_count

    def _wait(self) -> None:
        """Wait until something is put, acknowledged or due."""
        with self._changed:
            now_s = time.monotonic()
            room = self._positions.in_flight < self._window_rows
            due_s = min(self._positions.next_due_s(now_s, room=room), self._expire_due_s)
            if self._outbox.gap_count:
                due_s = min(due_s, self._gaps_due_s)
            if not self._news and not self._stopping and due_s > now_s:
                self._changed.wait(due_s - now_s)

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)

    def _wake(self) -> None:
        with self._changed:
            self._news = True
            self._changed.notify_all()
