"""The progress of a delivery, which its two threads share."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from reid_edge.upstream.delivery.log import DeliveryLog, DeliveryStats
from reid_edge.upstream.delivery.positions import Positions

_LOG = logging.getLogger(__name__)


class Progress:
    """What was sent and acknowledged of an outbox's file; hold ``changed`` to read or change it.

    Args:
        galleries: Names of the galleries that are to have every row; none: whichever answers.
        resend_s: Seconds to wait for an acknowledgement.
        retry_refused_s: Seconds to wait before refused rows are tried again.

    Attributes:
        stats: Counts since the start.
        log: Logs problems.
        changed: Is notified of every change that a thread may wait for.
        news: Something has changed since the sender last looked.
        stopping: Both threads are to end.
        incarnation: The file's.
        openings: Number of times that the outbox had been opened when this file was begun with.
        positions: Rows and gaps that were sent, by gallery.
        done_seqs: Rows that every gallery has, to be deleted.
        done_gaps: Gaps that every gallery has, likewise.
        gaps_due_s: Time of the monotonic clock at which gaps are to be sent again.
        from_the_start: Rows that had been sent wait again: the sender is to look from the first row on.
    """

    incarnation: str
    openings: int

    def __init__(self, galleries: Sequence[str], resend_s: float, retry_refused_s: float) -> None:
        self.stats = DeliveryStats()
        self.log = DeliveryLog(_LOG, self.stats)
        self.changed = threading.Condition()
        self.news = True
        self.stopping = False
        self._galleries = galleries
        self._resend_s = resend_s
        self._retry_refused_s = retry_refused_s
        self._losses = 0

    def begin(self, incarnation: str, openings: int) -> None:
        """Begin with a file of which nothing was sent, or which may hold rows again that had been."""
        self.incarnation = incarnation
        self.openings = openings
        self.positions = Positions(self._galleries, self._resend_s, self._retry_refused_s)
        self.done_seqs: list[int] = []
        self.done_gaps: list[tuple[int, int]] = []
        self.gaps_due_s = 0.0
        self.from_the_start = False

    def take_done(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Remove and return the rows and gaps that every gallery has."""
        with self.changed:
            done, self.done_seqs, self.done_gaps = (self.done_seqs, self.done_gaps), [], []
        return done

    def put_back(self, incarnation: str, seqs: list[int], gaps: list[tuple[int, int]]) -> None:
        """Remember rows and gaps that could not be deleted now, unless another file has been begun with meanwhile."""
        with self.changed:
            if self.incarnation == incarnation:
                self.done_seqs = seqs + self.done_seqs
                self.done_gaps = gaps + self.done_gaps

    def note_losses(self, losses: int) -> None:
        """Make rows due at once that the transport may have lost, e.g. with its connection.

        Args:
            losses: The transport's count.
        """
        with self.changed:
            if losses == self._losses:
                return
            self._losses = losses
            self.positions.lost()
            self.wake()

    def wake(self) -> None:
        """Have the sender look for something to send."""
        with self.changed:
            self.news = True
            self.changed.notify_all()

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until both threads are to end."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopping, seconds)
