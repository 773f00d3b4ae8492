"""Observations into the outbox, or held in memory while it cannot be written."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from reid_edge.errors import MessageError, OutboxError
from reid_edge.upstream.message import Encoding, encode_observation
from reid_edge.upstream.observation import Observation
from reid_edge.upstream.outbox import Outbox

log = logging.getLogger(__name__)

#: Observations held in memory; above it the oldest go, counted and declared upstream.
MAX_UNWRITTEN = 10_000


@dataclass
class PublisherStats:
    """Counts since the start.  Written by one thread, read by any.

    Attributes:
        published: Observations that the outbox has taken.
        unwritten: Observations that wait for the outbox to be writable again.
        lost: Observations that had to go while it was not, or that cannot be sent at all.
    """

    published: int = 0
    unwritten: int = 0
    lost: int = 0


class Publisher:
    """Writes to an outbox, in order.  Not for several threads.

    Args:
        outbox: Takes what is published.
        encoding: Of features.
    """

    def __init__(self, outbox: Outbox, encoding: Encoding) -> None:
        self._outbox = outbox
        self._encoding = encoding
        self._unwritten: deque[Observation] = deque()
        self.stats = PublisherStats()

    def publish(self, observations: Iterable[Observation]) -> None:
        """Write these, after what could not be written before."""
        self._unwritten.extend(observations)
        if not self._unwritten:
            return
        try:
            self._put()
        except OutboxError as error:
            if not self.stats.unwritten:
                log.error("observations wait in memory: %s", error)
            self._make_room()
        self.stats.unwritten = len(self._unwritten)

    def _put(self) -> None:
        try:
            self._outbox.put(tuple(self._unwritten), self._encoding)
        except MessageError:
            self._leave_out_unsound()
            self._outbox.put(tuple(self._unwritten), self._encoding)
        self.stats.published += len(self._unwritten)
        self._unwritten.clear()

    def _leave_out_unsound(self) -> None:
        """Drop what can never be sent, e.g. a feature that is not finite, so that it holds up nothing else."""
        sound: deque[Observation] = deque()
        for observation in self._unwritten:
            try:
                encode_observation(observation, self._encoding)
                sound.append(observation)
            except MessageError as error:
                log.error("an observation of track %d cannot be sent: %s", observation.track, error)
        self.stats.lost += len(self._unwritten) - len(sound)
        self._unwritten = sound

    def _make_room(self) -> None:
        too_many = max(0, len(self._unwritten) - MAX_UNWRITTEN)
        for _ in range(too_many):
            self._unwritten.popleft()
        self.stats.lost += too_many
        self._outbox.lose(too_many)
