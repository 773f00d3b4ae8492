"""Delivery from an outbox to a gallery: rows are sent until they are acknowledged, and deleted only then."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from reid_edge.backoff import exponential_pause_s
from reid_edge.errors import MessageError, OutboxError, TransportError
from reid_edge.upstream.message import decode_ack, encode_batch
from reid_edge.upstream.observation import Ack, Gap
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.retries import InFlight, RefusalLog, Refusals
from reid_edge.upstream.transport import Transport

EXPIRE_S = 60.0
ACK_WAIT_S = 0.5
FIRST_BACKOFF_S = 0.5
AFTER_A_BUG_S = 5.0
_Row = tuple[int, bytes]
_LOG = logging.getLogger(__name__)


@dataclass
class DeliveryStats:
    """Counts since the start; they may be read from any thread.

    Attributes:
        batches: Batches handed to the transport.
        sent: Rows handed to the transport for the first time since the start.
        resent: Rows handed to the transport again.
        acknowledged: Rows acknowledged and deleted.
        refused: Rows refused by the gallery, counted each time.
        refused_waiting: Rows that were refused and wait to be tried again.
        last_refusal: The gallery's reason for the last refusal.
        gaps_acknowledged: Gaps that the gallery has stored.
        bad_acks: Acknowledgements that could not be read, or were for another camera.
        transport_errors: Batches that the transport did not take.
        connected: The transport took the last batch.
        last_error: For a person; "" if the transport took the last batch and the outbox works.
        last_ack_us: Time of the last acknowledgement, microseconds since 1970 UTC.
        latencies_s: Seconds from sending a batch to its acknowledgement, of the last thousand.
    """

    batches: int = 0
    sent: int = 0
    resent: int = 0
    acknowledged: int = 0
    refused: int = 0
    refused_waiting: int = 0
    last_refusal: str = ""
    gaps_acknowledged: int = 0
    bad_acks: int = 0
    transport_errors: int = 0
    connected: bool = False
    last_error: str = ""
    last_ack_us: int | None = None
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=1000))


class Delivery:
    """Two threads: one sends the rows of an outbox, the other deletes those that are acknowledged.

    At most ``window_rows`` rows wait for an acknowledgement.  Rows that are not acknowledged within ``resend_s`` are
    sent again, and then less and less often until an acknowledgement of anything comes; they are sent again at once if
    the transport's ``losses`` say that they may be gone.  Rows that the gallery refuses stay in the outbox without
    delaying others, and are tried again, a batch after ``retry_refused_s`` and then less and less often.  While the
    transport does not accept, attempts become rarer, up to one a minute.

    Args:
        outbox: Holds the rows; :meth:`stop` leaves it open.
        transport: Carries them; :meth:`stop` leaves it open.
        camera: Name on the wire: the camera's, or its pseudonym.
        window_rows: Most rows sent and not acknowledged.
        batch_rows: Most rows of a batch, up to 500.
        resend_s: Seconds to wait for an acknowledgement.
        retry_refused_s: Seconds to wait before refused rows are tried again.
        most_backoff_s: Longest wait while the transport does not accept.

    Attributes:
        stats: Counts since the start.

    Raises:
        MessageError: The camera's name cannot be sent.
    """

    def __init__(
        self,
        outbox: Outbox,
        transport: Transport,
        *,
        camera: str,
        window_rows: int = 8000,
        batch_rows: int = 64,
        resend_s: float = 30.0,
        retry_refused_s: float = 60.0,
        most_backoff_s: float = 60.0,
    ) -> None:
        encode_batch(camera, outbox.incarnation, [])  # raises now if the name cannot be sent
        self.stats = DeliveryStats()
        self._outbox = outbox
        self._transport = transport
        self._camera = camera
        self._window_rows = window_rows
        self._batch_rows = min(batch_rows, window_rows, 500)
        self._resend_s = resend_s
        self._retry_refused_s = retry_refused_s
        self._most_backoff_s = most_backoff_s
        self._failures = 0
        self._expire_due_s = 0.0
        self._refusal_log = RefusalLog(_LOG)
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
        """Begin with an outbox file of which nothing was sent."""
        self._incarnation = incarnation
        self._after_seq = 0
        self._highest_sent = 0
        self._gaps_due_s = 0.0
        self._in_flight = InFlight(self._resend_s)
        self._refusals = Refusals(self._retry_refused_s)

    def _run(self, step: Callable[[], None]) -> None:
        while not self._stopping:
            try:
                step()
            except OutboxError as error:
                self._report(error)
                self._sleep(1.0)
            except Exception:  # the thread's last resort: better late than dead
                _LOG.exception("unexpected error in delivery; it goes on in %.0f s", AFTER_A_BUG_S)
                self.stats.last_error = "unexpected error, see the log"
                self._sleep(AFTER_A_BUG_S)

    def _send_step(self) -> None:
        """Send one batch, or wait until there may be one."""
        self._expire()
        self._resend_losses()
        with self._changed:
            self._news = False
            if self._outbox.incarnation != self._incarnation:
                self._begin(self._outbox.incarnation)
        incarnation = self._incarnation
        rows = self._resendable() or self._fresh()
        gaps = self._gaps()
        if not rows and not gaps:
            self._wait()
        elif incarnation == self._outbox.incarnation:  # else the rows may be of a file that was set aside meanwhile
            self._send(rows, gaps)

    def _resendable(self) -> list[_Row]:
        """Return rows to send again; those that have left the outbox are taken off the lists."""
        now_s = time.monotonic()
        with self._changed:
            seqs = self._in_flight.due(now_s, self._batch_rows)
            if not seqs and len(self._in_flight) < self._window_rows:
                seqs = self._refusals.due(now_s, self._batch_rows)
        if not seqs:
            return []
        try:
            rows = self._outbox.fetch(seqs)
        except OutboxError:
            with self._changed:
                self._in_flight.failed(seqs)
            raise
        gone = set(seqs).difference(seq for seq, _ in rows)
        with self._changed:
            self._in_flight.forget(gone)
            self._refusals.forget(gone)
        return rows or self._resendable()

    def _fresh(self) -> list[_Row]:
        room = self._window_rows - len(self._in_flight)
        if room <= 0:
            return []
        rows = self._outbox.pending(self._after_seq, min(room, self._batch_rows))
        if rows:
            self._after_seq = rows[-1][0]
        return rows

    def _gaps(self) -> list[Gap]:
        if not self._outbox.gap_count or time.monotonic() < self._gaps_due_s:
            return []
        try:
            return self._outbox.gaps()
        except OutboxError as error:  # rows can still be sent
            self._report(error)
            self._gaps_due_s = time.monotonic() + self._resend_s
            return []

    def _send(self, rows: Sequence[_Row], gaps: Sequence[Gap]) -> None:
        seqs = tuple(seq for seq, _ in rows)
        with self._changed:
            if seqs:  # before sending: the acknowledgement may be quicker than the return
                self._in_flight.add(seqs, time.monotonic())
            if gaps:
                self._gaps_due_s = time.monotonic() + self._resend_s
        try:
            self._transport.send(encode_batch(self._camera, self._incarnation, rows, gaps))
        except TransportError as error:
            self._failed(seqs, error)
            return
        self._failures = 0
        stats = self.stats
        stats.connected, stats.last_error, stats.batches = True, "", stats.batches + 1
        again = sum(seq <= self._highest_sent for seq in seqs) if seqs and seqs[0] <= self._highest_sent else 0
        stats.sent, stats.resent = stats.sent + len(seqs) - again, stats.resent + again
        self._highest_sent = max(self._highest_sent, seqs[-1] if seqs else 0)

    def _failed(self, seqs: tuple[int, ...], error: TransportError) -> None:
        """Note that the transport did not take a batch, and wait longer each time."""
        with self._changed:
            if seqs:
                self._in_flight.failed(seqs)
            self._gaps_due_s = 0.0
        self.stats.transport_errors += 1
        self.stats.connected = False
        self._report(error)
        pause_s = exponential_pause_s(self._failures, FIRST_BACKOFF_S, self._most_backoff_s)
        self._failures += 1
        self._sleep(pause_s)

    def _ack_step(self) -> None:
        """Delete the rows acknowledged since the last step, in one commit."""
        try:
            payloads = self._transport.acks(ACK_WAIT_S)
        except TransportError as error:
            self._report(error)
            self._sleep(1.0)
            return
        self._resend_losses()
        incarnation = self._incarnation
        decoded = [self._decoded(payload) for payload in payloads if payload]
        acks = [ack for ack in decoded if ack is not None and ack.incarnation == incarnation]
        if acks:
            merged = Ack(
                self._camera,
                incarnation,
                tuple(chain.from_iterable(ack.seqs for ack in acks)),
                tuple(chain.from_iterable(ack.gaps for ack in acks)),
                tuple(chain.from_iterable(ack.refused for ack in acks)),
            )
            self._outbox.acknowledge(merged)
            self._note(merged)

    def _note(self, ack: Ack) -> None:
        """Take acknowledged rows and gaps off the lists, and put refused ones on theirs."""
        stats = self.stats
        with self._changed:
            if self._incarnation != ack.incarnation:
                return
            now_s, before = time.monotonic(), len(self._in_flight)
            stats.latencies_s.extend(self._in_flight.acknowledged(ack.seqs, now_s))
            stats.acknowledged += before - len(self._in_flight)
            self._refusals.acknowledged(ack.seqs)
            for refusal in ack.refused:
                self._in_flight.forget(refusal.seqs)
                self._refusals.add(refusal.seqs, refusal.reason, now_s)
                stats.refused += len(refusal.seqs)
                stats.last_refusal = refusal.reason
            stats.refused_waiting = len(self._refusals)
            stats.gaps_acknowledged += len(ack.gaps)
            stats.last_ack_us = time.time_ns() // 1000
            if ack.gaps:
                self._gaps_due_s = 0.0
            self._news = True
            self._changed.notify_all()
        self._refusal_log.note([refusal.reason for refusal in ack.refused], stats.refused_waiting)

    def _resend_losses(self) -> None:
        """Make rows due at once that the transport may have lost, e.g. with its connection."""
        losses = self._transport.losses
        with self._changed:
            if losses == self._losses:
                return
            self._losses = losses
            self._in_flight.lost()
            self._news = True
            self._changed.notify_all()

    def _decoded(self, payload: bytes) -> Ack | None:
        try:
            ack = decode_ack(payload)
            if ack.camera != self._camera:
                raise MessageError(f"expected an acknowledgement for {self._camera}, got one for {ack.camera}.")
        except MessageError as error:
            self.stats.bad_acks += 1
            self._report(error)
            return None
        return ack

    def _expire(self) -> None:
        now_s = time.monotonic()
        if now_s < self._expire_due_s:
            return
        self._expire_due_s = now_s + EXPIRE_S
        self._outbox.expire()
        oldest = self._outbox.pending(0, 1)
        with self._changed:
            self._refusals.forget_before(oldest[0][0] if oldest else self._outbox.last_seq + 1)
            self.stats.refused_waiting = len(self._refusals)

    def _drained(self) -> bool:
        return self._outbox.depth <= self._refusals.waiting and not self._outbox.gap_count

    def _wait(self) -> None:
        """Wait until something is put, acknowledged or due."""
        with self._changed:
            now_s = time.monotonic()
            due_s = min(self._in_flight.next_due_s(now_s), self._expire_due_s)
            if len(self._in_flight) < self._window_rows:
                due_s = min(due_s, self._refusals.next_due_s(now_s))
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

    def _report(self, error: Exception) -> None:
        """Log a failure, unless it is the one that was logged last and has not passed."""
        text = str(error)
        if text != self.stats.last_error:
            _LOG.warning("delivery: %s", text)
        self.stats.last_error = text
