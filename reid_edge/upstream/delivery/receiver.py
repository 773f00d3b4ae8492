"""The receiving half of a delivery: rows that every gallery has acknowledged are deleted from the outbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timezone

from reid_edge.errors import MessageError, OutboxError, TransportError
from reid_edge.upstream.delivery.log import shown
from reid_edge.upstream.delivery.positions import Position
from reid_edge.upstream.delivery.progress import Progress
from reid_edge.upstream.message import decode_ack
from reid_edge.upstream.observation import Ack, Replay
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.transport import Transport
from reid_edge.wording import counted

LOOK_S = 0.5
REPLAY_AGAIN_S = 600.0
ACK_WAIT_S = 0.5
#: The last moment that can be shown: the year 9999.
_LAST_US = 253_402_300_799_000_000
_LOG = logging.getLogger(__name__)


class Receiver:
    """Takes the acknowledgements of an outbox's rows; :meth:`step` is called again and again, in one thread.

    Args:
        outbox: Holds the rows.
        transport: Brings the acknowledgements.
        progress: What was sent and acknowledged.
        camera: Name on the wire.
        galleries: Names of the galleries that are to have every row.
    """

    def __init__(
        self, outbox: Outbox, transport: Transport, progress: Progress, *, camera: str, galleries: Sequence[str]
    ) -> None:
        self._outbox = outbox
        self._transport = transport
        self._progress = progress
        self._stats, self._log = progress.stats, progress.log
        self._camera = camera
        self._galleries = galleries
        self._look_due_s = 0.0
        self._delete_due_s = 0.0
        self._replay_due_s = 0.0

    def step(self) -> None:
        """Delete the rows acknowledged since the last step, in one commit."""
        try:
            payloads = self._transport.acks(ACK_WAIT_S)
        except TransportError as error:
            self._log.problem(error)
            self._progress.sleep(1.0)
            payloads = []
        self._progress.note_losses(self._transport.losses)
        incarnation = self._progress.incarnation
        for payload in payloads:
            ack = self._decoded(payload) if payload else None
            if ack is not None and ack.incarnation == incarnation:
                self._take(ack)
        self._delete(incarnation)
        self._look()

    def _take(self, ack: Ack) -> None:
        """Note what an acknowledgement says of rows and gaps that were sent."""
        position = self._progress.positions.of(ack.gallery)
        if position is None:
            self._log.foreign(ack.gallery, self._galleries)
            return
        if ack.seqs and max(ack.seqs) > (last_seq := self._outbox.last_seq):
            self._log.unsent(sum(seq > last_seq for seq in ack.seqs))
        reasons = [shown(refusal.reason) for refusal in ack.refused]
        with self._progress.changed:
            if self._progress.incarnation != ack.incarnation:
                return
            self._note(position, ack, reasons)
            self._progress.wake()
        self._log.refusals(reasons, self._stats.refused_waiting)
        if ack.replay is not None and time.monotonic() >= self._replay_due_s:
            self._replay(ack.replay, ack.gallery)

    def _replay(self, replay: Replay, gallery: str) -> None:
        """Send acknowledged rows again that a restored gallery asks for; one request in ten minutes at most."""
        count = self._outbox.replay(replay)
        if count is None:  # served before
            return
        self._replay_due_s = time.monotonic() + REPLAY_AGAIN_S
        self._stats.replayed += count
        since = datetime.fromtimestamp(min(replay.since_us, _LAST_US) // 1_000_000, timezone.utc)
        _LOG.info(
            "gallery '%s' was restored, and asks for what was seen since %s; sent again: %s that it had acknowledged",
            shown(gallery) or self._transport.name,
            since.isoformat(sep=" "),
            counted(count, "observation"),
        )
        self._progress.from_the_start = True
        self._progress.wake()

    def _note(self, position: Position, ack: Ack, reasons: Sequence[str]) -> None:
        """Take acknowledged rows and gaps off the lists, and put refused ones on theirs."""
        stats, positions, now_s = self._stats, self._progress.positions, time.monotonic()
        done, latencies_s = positions.acknowledged(position, ack.seqs, now_s)
        gaps = positions.gaps_acknowledged(position, ack.gaps)
        self._progress.done_seqs += done
        self._progress.done_gaps += gaps
        stats.latencies_s.extend(latencies_s)
        for refusal, reason in zip(ack.refused, reasons, strict=True):
            if count := positions.refuse(position, refusal.seqs, reason, now_s):
                stats.refused += count
                stats.last_refusal = f"{position.gallery}: {reason}" if len(self._galleries) > 1 else reason
        stats.refused_waiting = positions.refused
        stats.last_ack_us = time.time_ns() // 1000

    def _delete(self, incarnation: str) -> None:
        """Delete what every gallery has; while the outbox cannot be written it is remembered, and not sent again."""
        if time.monotonic() < self._delete_due_s:
            return
        seqs, gaps = self._progress.take_done()
        if not (seqs or gaps):
            return
        try:
            self._outbox.acknowledge(Ack(self._camera, incarnation, tuple(seqs), tuple(gaps)))
        except OutboxError as error:
            self._log.problem(error)
            self._delete_due_s = time.monotonic() + 1.0
            self._progress.put_back(incarnation, seqs, gaps)
            return
        self._stats.acknowledged += len(seqs)
        self._stats.newest_acknowledged = max(self._stats.newest_acknowledged, *seqs, 0)
        self._stats.gaps_acknowledged += len(gaps)
        with self._progress.changed:
            if gaps:  # others may have waited until these were delivered
                self._progress.gaps_due_s = 0.0
            self._progress.wake()

    def _look(self) -> None:
        """Note the age of the oldest row, twice a second."""
        now_s = time.monotonic()
        if now_s < self._look_due_s:
            return
        self._look_due_s = now_s + LOOK_S
        age_s = self._outbox.oldest_age_s()
        self._stats.oldest_put_s = None if age_s is None else now_s - age_s
        with self._progress.changed:
            self._stats.lacking = self._progress.positions.lacking

    def _decoded(self, payload: bytes) -> Ack | None:
        try:
            ack = decode_ack(payload)
            if ack.camera != self._camera:
                raise MessageError(f"expected an acknowledgement for {self._camera}, got one for {ack.camera}.")
        except MessageError as error:
            self._stats.bad_acks += 1
            self._log.problem(error)
            return None
        return ack
