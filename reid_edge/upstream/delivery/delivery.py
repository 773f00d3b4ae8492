"""Delivery from an outbox to a gallery: rows are sent until they are acknowledged, and deleted only then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from reid_edge.errors import OutboxError
from reid_edge.upstream.delivery.progress import Progress
from reid_edge.upstream.delivery.receiver import ACK_WAIT_S, Receiver
from reid_edge.upstream.delivery.sender import Row, Sender
from reid_edge.upstream.message import encode_batch
from reid_edge.upstream.observation import DEFAULT_GALLERY
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.transport import Transport

AFTER_A_BUG_S = 5.0


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
        amend: Callable[[str, list[Row]], list[Row]] = lambda _incarnation, rows: rows,
        window_rows: int = 8000,
        batch_rows: int = 64,
        resend_s: float = 30.0,
        retry_refused_s: float = 60.0,
        most_backoff_s: float = 60.0,
    ) -> None:
        encode_batch(camera, "check", [], galleries=galleries)  # raises now if a name cannot be sent
        galleries = tuple(dict.fromkeys(galleries))
        self._outbox = outbox
        self._progress = Progress(galleries, resend_s, retry_refused_s)
        self.stats = self._progress.stats
        sender = Sender(
            outbox,
            transport,
            self._progress,
            camera=camera,
            galleries=galleries,
            amend=amend,
            window_rows=window_rows,
            batch_rows=min(batch_rows, window_rows, 500),
            resend_s=resend_s,
            most_backoff_s=most_backoff_s,
        )
        receiver = Receiver(outbox, transport, self._progress, camera=camera, galleries=galleries)
        self._threads = [
            threading.Thread(target=self._run, args=(step,), name=name, daemon=True)
            for step, name in ((sender.step, "delivery-send"), (receiver.step, "delivery-acks"))
        ]
        outbox.listen(self._progress.wake)

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
        with self._progress.changed:
            while not self._drained() and (left := deadline - time.monotonic()) > 0:
                self._progress.changed.wait(min(left, 0.2))
            self._progress.stopping = True
            self._progress.changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(ACK_WAIT_S + 2.0)
        return self._drained()

    def _run(self, step: Callable[[], None]) -> None:
        while not self._progress.stopping:
            try:
                step()
            except OutboxError as error:
                self._progress.log.problem(error)
                self._progress.sleep(1.0)
            except Exception as error:  # the thread's last resort: better late than dead
                self._progress.log.bug(error, AFTER_A_BUG_S)
                self._progress.sleep(AFTER_A_BUG_S)

    def _drained(self) -> bool:
        return self._outbox.depth <= self._progress.positions.held_back and not self._outbox.gap_count
