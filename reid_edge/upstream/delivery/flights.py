"""Rows that were sent and wait for their acknowledgement."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass

MOST_PATIENCE = 16


@dataclass(frozen=True)
class _Flight:
    sent_s: float
    seqs: tuple[int, ...]


class Flights:
    """Which rows are under way, and which of them to send again.

    While acknowledgements come, every row is due ``resend_s`` after it was sent.  Once none has come for that long, the
    receiving end is taken to be down, and the rows to lie in a broker's queue: one batch is sent again as a probe,
    then another after twice the time, and so on up to 16 times.  The first acknowledgement begins the waiting anew for
    all, so that what the queue holds is not sent twice.

    Args:
        resend_s: How long to wait for an acknowledgement.
    """

    def __init__(self, resend_s: float) -> None:
        self._resend_s = resend_s
        self._unacked: set[int] = set()
        self._flights: deque[_Flight] = deque()
        self._again: deque[tuple[int, ...]] = deque()
        self._departures: dict[int, float] = {}
        self._last_ack_s = float("-inf")
        self._resumed_s = float("-inf")
        self._patience = 1
        self._next_probe_s = float("-inf")

    def __len__(self) -> int:
        return len(self._unacked)

    def add(self, seqs: tuple[int, ...], now_s: float) -> None:
        """Rows are being sent."""
        self._unacked.update(seqs)
        self._flights.append(_Flight(now_s, seqs))
        self._departures[seqs[0]] = now_s

    def failed(self, seqs: tuple[int, ...]) -> None:
        """Rows were not sent after all: they are due at once."""
        if self._flights and self._flights[-1].seqs == seqs:
            self._flights.pop()
            self._departures.pop(seqs[0], None)
        self._unacked.update(seqs)
        self._again.append(seqs)

    def lost(self) -> None:
        """What is under way may never arrive: it is due at once, unless no acknowledgements came when it was sent.

        Then the receiving end is down, and each of a flapping connection's losses would send all once more.
        """
        if self._flights and self._flights[-1].sent_s - self._last_ack_s <= self._resend_s:
            self._again.extend(flight.seqs for flight in self._flights)
            self._flights.clear()
            self._departures.clear()

    def forget(self, seqs: Collection[int]) -> int:
        """Rows that need not be sent again; returns how many of them were under way."""
        before = len(self._unacked)
        self._unacked.difference_update(seqs)
        return before - len(self._unacked)

    def acknowledged(self, seqs: Sequence[int], now_s: float) -> list[float]:
        """Note an acknowledgement; returns seconds since the departure of the batches whose first row it names."""
        if self._patience > 1:
            self._resumed_s = now_s
        self._patience, self._next_probe_s, self._last_ack_s = 1, float("-inf"), now_s
        self.forget(seqs)
        departed = [self._departures.pop(seq) for seq in self._departures.keys() & set(seqs)]
        return [now_s - departure for departure in departed]

    def due(self, now_s: float, limit: int) -> tuple[int, ...]:
        """Rows to send again now, at most ``limit``; they count as not sent until they are added again."""
        while self._again:
            seqs = self._still_unacked(self._again.popleft())
            if seqs:
                return seqs
        if self.next_due_s(now_s) > now_s:
            return ()
        if now_s - self._last_ack_s > self._resend_s:
            self._next_probe_s = now_s + self._resend_s * self._patience
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        return self._oldest(now_s, limit)

    def next_due_s(self, now_s: float) -> float:
        """When :meth:`due` will have something; infinity for never."""
        if self._again:
            return now_s
        while self._flights and self._unacked.isdisjoint(self._flights[0].seqs):
            self._departures.pop(self._flights.popleft().seqs[0], None)
        if not self._flights:
            return float("inf")
        due_s = self._due_s(self._flights[0])
        return max(due_s, self._next_probe_s) if now_s - self._last_ack_s > self._resend_s else due_s

    def _oldest(self, now_s: float, limit: int) -> tuple[int, ...]:
        gathered: list[int] = []
        while self._flights and self._due_s(self._flights[0]) <= now_s:
            seqs = self._still_unacked(self._flights[0].seqs)
            if gathered and len(gathered) + len(seqs) > limit:
                break
            gathered.extend(seqs)
            self._departures.pop(self._flights.popleft().seqs[0], None)
        return tuple(gathered)

    def _due_s(self, flight: _Flight) -> float:
        return max(flight.sent_s, self._resumed_s) + self._resend_s

    def _still_unacked(self, seqs: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(seq for seq in seqs if seq in self._unacked)
