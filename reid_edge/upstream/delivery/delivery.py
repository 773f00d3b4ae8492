"""From the outbox to the receiving end: sent until acknowledged, deleted only then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from itertools import chain

from reid_edge.backoff import exponential_pause_s
from reid_edge.errors import MessageError, OutboxError, TransportError
from reid_edge.upstream.delivery.flights import Flights
from reid_edge.upstream.delivery.refusal_log import RefusalLog
from reid_edge.upstream.delivery.refusals import Refusals
from reid_edge.upstream.delivery.stats import DeliveryStats
from reid_edge.upstream.message import decode_ack, encode_batch
from reid_edge.upstream.observation import Ack, Gap
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.transport import Transport

EXPIRE_S = 60.0
ACK_WAIT_S = 0.5
FIRST_BACKOFF_S = 0.5
AFTER_A_BUG_S = 5.0
_Row = tuple[int, bytes]
_LOG = logging.getLogger(__name__)


class Delivery:
    """Two threads: one sends what waits in an outbox, the other deletes what is acknowledged.

    At most ``window_rows`` rows wait for an acknowledgement.  What is not acknowledged within ``resend_s`` is sent
    again, and then less and less often until an acknowledgement of anything comes; at once if the transport tells by
    its ``losses`` that what it was given may be gone.  Rows that the receiving end refuses
    stay in the outbox and are tried again, a batch every ``retry_refused_s`` and rarer, in no row's way.  While the
    transport does not accept, attempts become rarer, up to one a minute.

    Args:
        outbox: Where rows wait; :meth:`stop` leaves it open.
        transport: Where they go; :meth:`stop` leaves it open.
        camera: Pseudonym.
        window_rows: Most rows sent and not acknowledged.
        batch_rows: Most rows of a batch, up to 500.
        resend_s: How long to wait for an acknowledgement.
        retry_refused_s: How long to wait with refused rows.
        most_backoff_s: Longest wait while the transport does not accept.
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
        encode_batch(camera, outbox.epoch, [])  # raises now if the name cannot be sent
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
        self._begin(outbox.epoch)
        self._threads = [
            threading.Thread(target=self._run, args=(step,), name=name, daemon=True)
            for step, name in ((self._send_step, "delivery-send"), (self._ack_step, "delivery-acks"))
        ]
        outbox.listen(self._wake)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, drain_s: float = 0.0) -> bool:
        """End, once all is delivered or ``drain_s`` have passed; what is left stays in the outbox.

        Returns:
            Whether nothing is left but rows that were refused.
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

    def _begin(self, epoch: str) -> None:
        """Begin with an outbox file of which nothing was sent."""
        self._epoch = epoch
        self._after_seq = 0
        self._highest_sent = 0
        self._gaps_due_s = 0.0
        self._flights = Flights(self._resend_s)
        self._refusals = Refusals(self._retry_refused_s)

    def _run(self, step: Callable[[], None]) -> None:
        while not self._stopping:
            try:
                step()
            except OutboxError as error:
                self._report(error)
                self._sleep(1.0)
            except Exception:  # the thread's last resort: better late than dead
                _LOG.exception("delivery goes on after an error that should not have been")
                self.stats.last_error = "an internal error, see the log"
                self._sleep(AFTER_A_BUG_S)

    def _send_step(self) -> None:
        """Send one batch, or wait until there may be one."""
        self._expire()
        self._heed_losses()
        with self._changed:
            self._news = False
            if self._outbox.epoch != self._epoch:
                self._begin(self._outbox.epoch)
        epoch = self._epoch
        rows = self._resendable() or self._fresh()
        gaps = self._gaps()
        if not rows and not gaps:
            self._wait()
        elif epoch == self._outbox.epoch:  # else they may be of a file that was set aside meanwhile
            self._send(rows, gaps)

    def _resendable(self) -> list[_Row]:
        """Rows that are due again, with their numbers taken off the lists where they have gone."""
        now_s = time.monotonic()
        with self._changed:
            seqs = self._flights.due(now_s, self._batch_rows)
            if not seqs and len(self._flights) < self._window_rows:
                seqs = self._refusals.due(now_s, self._batch_rows)
        if not seqs:
            return []
        try:
            rows = self._outbox.fetch(seqs)
        except OutboxError:
            with self._changed:
                self._flights.failed(seqs)
            raise
        gone = set(seqs).difference(seq for seq, _ in rows)
        with self._changed:
            self._flights.forget(gone)
            self._refusals.forget(gone)
        return rows or self._resendable()

    def _fresh(self) -> list[_Row]:
        room = self._window_rows - len(self._flights)
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
        except OutboxError as error:  # rows can be sent all the same
            self._report(error)
            self._gaps_due_s = time.monotonic() + self._resend_s
            return []

    def _send(self, rows: Sequence[_Row], gaps: Sequence[Gap]) -> None:
        seqs = tuple(seq for seq, _ in rows)
        with self._changed:
            if seqs:  # before sending: the acknowledgement may be quicker than the return
                self._flights.add(seqs, time.monotonic())
            if gaps:
                self._gaps_due_s = time.monotonic() + self._resend_s
        try:
            self._transport.send(encode_batch(self._camera, self._epoch, rows, gaps))
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
                self._flights.failed(seqs)
            self._gaps_due_s = 0.0
        self.stats.transport_errors += 1
        self.stats.connected = False
        self._report(error)
        pause_s = exponential_pause_s(self._failures, FIRST_BACKOFF_S, self._most_backoff_s)
        self._failures += 1
        self._sleep(pause_s)

    def _ack_step(self) -> None:
        """Delete what has been acknowledged since the last time, in one commit."""
        try:
            payloads = self._transport.acks(ACK_WAIT_S)
        except TransportError as error:
            self._report(error)
            self._sleep(1.0)
            return
        self._heed_losses()
        epoch = self._epoch
        decoded = [self._decoded(payload) for payload in payloads if payload]
        acks = [ack for ack in decoded if ack is not None and ack.epoch == epoch]
        if not acks:
            return
        seqs = tuple(chain.from_iterable(ack.seqs for ack in acks))
        gaps = tuple(chain.from_iterable(ack.gaps for ack in acks))
        refused = [refusal for ack in acks for refusal in ack.refused]
        self._outbox.acknowledge(Ack(self._camera, epoch, seqs, gaps))
        now_s, stats = time.monotonic(), self.stats
        with self._changed:
            if self._epoch != epoch:
                return
            before = len(self._flights)
            stats.latencies_s.extend(self._flights.acknowledged(seqs, now_s))
            stats.acknowledged += before - len(self._flights)
            self._refusals.taken(seqs)
            for refusal in refused:
                self._flights.forget(refusal.seqs)
                self._refusals.add(refusal.seqs, refusal.reason, now_s)
                stats.refused += len(refusal.seqs)
                stats.last_refusal = refusal.reason
            stats.refused_waiting = len(self._refusals)
            stats.gaps_acknowledged += len(gaps)
            stats.last_ack_us = time.time_ns() // 1000
            if gaps:
                self._gaps_due_s = 0.0
            self._news = True
            self._changed.notify_all()
        self._refusal_log.note([refusal.reason for refusal in refused], stats.refused_waiting)

    def _heed_losses(self) -> None:
        """Send again at once what the transport may have lost, e.g. with its connection."""
        losses: int = getattr(self._transport, "losses", 0)
        with self._changed:
            if losses == self._losses:
                return
            self._losses = losses
            self._flights.lost()
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
        """Until something is put or acknowledged, or due."""
        with self._changed:
            now_s = time.monotonic()
            due_s = min(self._flights.next_due_s(now_s), self._expire_due_s)
            if len(self._flights) < self._window_rows:
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
        """Log a failure once, until another comes or it has passed."""
        text = str(error)
        if text != self.stats.last_error:
            _LOG.warning("delivery: %s", text)
        self.stats.last_error = text
