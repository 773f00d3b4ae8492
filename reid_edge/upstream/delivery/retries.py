"""Rows to send again: those in flight that nobody acknowledged, and those that the gallery refused.

Times are seconds of one monotonic clock, which the caller reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

#: The longest wait, as a multiple of the first.
LONGEST_WAIT = 16
#: Refused rows are kept apart by reason, up to so many reasons.
MOST_REASONS = 16
_OTHER = "several reasons"


@dataclass(frozen=True)
class _SentBatch:
    sent_s: float
    seqs: tuple[int, ...]
    number: int


class InFlight:
    """Rows sent to a gallery and not acknowledged by it, and which of them to send again.

    While acknowledgements come, every row is due ``resend_s`` after it was sent.  Once none has come for that long, the
    gallery is taken to be down, and the rows to lie in a broker's queue: one batch is sent again as a probe, then
    another after twice the time, and so on up to 16 times.  The first acknowledgement begins the waiting anew for all,
    so that rows in the queue are not sent twice.

    Args:
        resend_s: How long to wait for an acknowledgement.
    """

    def __init__(self, resend_s: float) -> None:
        self._resend_s = resend_s
        self._unacked: dict[int, int] = {}  # with the number of the last batch that held the row
        self._number = 0
        self._batches: deque[_SentBatch] = deque()
        self._due_now: deque[_SentBatch] = deque()
        self._sent_s: dict[int, float] = {}  # by the first row of a batch
        self._last_ack_s = float("-inf")
        self._resumed_s = float("-inf")
        self._probe_wait = 1
        self._next_probe_s = float("-inf")

    def __len__(self) -> int:
        return len(self._unacked)

    def __contains__(self, seq: int) -> bool:
        return seq in self._unacked

    def add(self, seqs: tuple[int, ...], now_s: float) -> None:
        """Note that rows are being sent, in one batch; earlier batches with the same rows no longer count."""
        self._batches.append(self._batch(seqs, now_s))
        self._sent_s[seqs[0]] = now_s

    def failed(self, seqs: tuple[int, ...]) -> None:
        """Note that rows could not be sent after all: they are due at once."""
        if self._batches and self._batches[-1].seqs == seqs:
            self._batches.pop()
            self._sent_s.pop(seqs[0], None)
        self._due_now.append(self._batch(seqs, 0.0))

    def _batch(self, seqs: tuple[int, ...], sent_s: float) -> _SentBatch:
        self._number += 1
        self._unacked.update(dict.fromkeys(seqs, self._number))
        return _SentBatch(sent_s, seqs, self._number)

    def lost(self) -> None:
        """Note that rows in flight may never arrive: they are due at once.

        They are not if no acknowledgements came when they were sent: then the gallery is down, and each loss of a
        flapping connection would send all of them once more.
        """
        if self._batches and self._batches[-1].sent_s - self._last_ack_s <= self._resend_s:
            self._due_now.extend(self._batches)
            self._batches.clear()
            self._sent_s.clear()

    def forget(self, seqs: Iterable[int]) -> None:
        """Drop rows that need not be sent again."""
        for seq in seqs:
            self._unacked.pop(seq, None)

    def forget_before(self, oldest_seq: int) -> None:
        """Drop all rows below the oldest one that is still in the outbox."""
        self.forget([seq for seq in self._unacked if seq < oldest_seq])

    def acknowledged(self, seqs: Sequence[int], now_s: float) -> list[float]:
        """Note an acknowledgement; returns seconds since the sending of the batches whose first row it names."""
        if self._probe_wait > 1:
            self._resumed_s = now_s
        self._probe_wait, self._next_probe_s, self._last_ack_s = 1, float("-inf"), now_s
        self.forget(seqs)
        sent_s = [self._sent_s.pop(seq) for seq in self._sent_s.keys() & set(seqs)]
        return [now_s - each for each in sent_s]

    def due(self, now_s: float, limit: int) -> tuple[int, ...]:
        """Take rows to send again now, at most ``limit``; they count as not sent until they are added again."""
        while self._due_now:
            seqs = self._still_unacked(self._due_now.popleft())
            if seqs:
                return seqs
        if self.next_due_s(now_s) > now_s:
            return ()
        if now_s - self._last_ack_s > self._resend_s:
            self._next_probe_s = now_s + self._resend_s * self._probe_wait
            self._probe_wait = min(2 * self._probe_wait, LONGEST_WAIT)
        return self._oldest(now_s, limit)

    def next_due_s(self, now_s: float) -> float:
        """Return the time at which :meth:`due` will have rows; infinity for never."""
        if self._due_now:
            return now_s
        while self._batches and not self._still_unacked(self._batches[0]):
            self._sent_s.pop(self._batches.popleft().seqs[0], None)
        if not self._batches:
            return float("inf")
        due_s = self._due_s(self._batches[0])
        return max(due_s, self._next_probe_s) if now_s - self._last_ack_s > self._resend_s else due_s

    def _oldest(self, now_s: float, limit: int) -> tuple[int, ...]:
        gathered: list[int] = []
        while self._batches and self._due_s(self._batches[0]) <= now_s:
            seqs = self._still_unacked(self._batches[0])
            if gathered and len(gathered) + len(seqs) > limit:
                break
            gathered.extend(seqs)
            self._sent_s.pop(self._batches.popleft().seqs[0], None)
        return tuple(gathered)

    def _due_s(self, batch: _SentBatch) -> float:
        return max(batch.sent_s, self._resumed_s) + self._resend_s

    def _still_unacked(self, batch: _SentBatch) -> tuple[int, ...]:
        return tuple(seq for seq in batch.seqs if self._unacked.get(seq) == batch.number)


@dataclass
class _Group:
    """Rows refused for one reason, the longest untried first."""

    due_s: float
    wait_s: float
    seqs: dict[int, None] = field(default_factory=dict)
    accepted: bool = False


class Refusals:
    """Rows that the gallery refused, and which of them to try again.

    The gallery may take them later, e.g. once it has accepted their model.  Of the rows refused for one reason, one
    batch is tried after ``retry_s``, then after twice the time, and so on up to 16 times.  Once one of them is taken,
    the others follow without waiting.

    Args:
        retry_s: How long to wait before the first try.
    """

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._groups: dict[str, _Group] = {}
        self._waiting: dict[int, str] = {}
        self._tried: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._tried) + len(self._waiting)

    def __contains__(self, seq: int) -> bool:
        return seq in self._tried or seq in self._waiting

    @property
    def waiting(self) -> Collection[int]:
        """Refused rows that are not in flight again."""
        return self._waiting.keys()

    def add(self, seqs: Collection[int], reason: str, now_s: float) -> None:
        """Note that rows were refused, for the first time or again."""
        if reason not in self._groups and len(self._groups) >= MOST_REASONS:
            reason = _OTHER
        group = self._groups.setdefault(reason, _Group(now_s + self._retry_s, self._retry_s))
        self.forget(seqs)
        self._waiting.update(dict.fromkeys(seqs, reason))
        group.seqs.update(dict.fromkeys(seqs))
        group.accepted = False

    def acknowledged(self, seqs: Sequence[int]) -> None:
        """Note that rows were taken, which may have been refused before."""
        for seq in self._tried.keys() & set(seqs) if self._tried else ():
            group = self._groups.get(self._tried[seq])
            if group is not None:
                group.accepted = True
                group.wait_s = self._retry_s
        self.forget(seqs)

    def forget(self, seqs: Iterable[int]) -> None:
        """Drop rows that are no longer in the outbox."""
        for seq in seqs if self else ():
            self._tried.pop(seq, None)
            if (reason := self._waiting.pop(seq, None)) is not None:
                del self._groups[reason].seqs[seq]

    def forget_before(self, oldest_seq: int) -> None:
        """Drop all rows below the oldest one that is still in the outbox."""
        self.forget([seq for seq in (*self._waiting, *self._tried) if seq < oldest_seq])

    def due(self, now_s: float, limit: int) -> tuple[int, ...]:
        """Take rows to try now, at most ``limit``; they are in flight then."""
        for reason, group in list(self._groups.items()):
            if not group.seqs:
                if now_s >= group.due_s:
                    self._groups.pop(reason)
                continue
            if group.accepted or now_s >= group.due_s:
                return self._try(reason, group, now_s, limit)
        return ()

    def next_due_s(self, now_s: float) -> float:
        """Return the time at which :meth:`due` will have rows; infinity for never."""
        waiting = [group for group in self._groups.values() if group.seqs]
        return min((now_s if group.accepted else group.due_s for group in waiting), default=float("inf"))

    def _try(self, reason: str, group: _Group, now_s: float, limit: int) -> tuple[int, ...]:
        seqs = tuple(seq for seq, _ in zip(group.seqs, range(limit), strict=False))
        for seq in seqs:
            del group.seqs[seq], self._waiting[seq]
            self._tried[seq] = reason
        if not group.accepted:
            group.wait_s = min(2 * group.wait_s, LONGEST_WAIT * self._retry_s)
        group.due_s = now_s + group.wait_s
        return seqs
