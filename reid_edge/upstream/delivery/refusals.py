"""Rows that the receiving end has refused: it may take them later, e.g. once it has accepted their model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MOST_PATIENCE = 16
MOST_REASONS = 16
_OTHER = "several reasons"


@dataclass
class _Group:
    """Rows of one reason, the longest untried first."""

    due_s: float
    wait_s: float
    seqs: dict[int, None] = field(default_factory=dict)
    accepted: bool = False


class Refusals:
    """Which refused rows to try again.

    Of the rows of one reason, one batch is tried every ``retry_s``, then every ``2 * retry_s`` and so on up to 16
    times.  Once one of them is taken, the others follow without waiting.

    Args:
        retry_s: How long to wait.
    """

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._groups: dict[str, _Group] = {}
        self._tried: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._tried) + self.waiting

    @property
    def waiting(self) -> int:
        """How many are not under way."""
        return sum(len(group.seqs) for group in self._groups.values())

    def add(self, seqs: Iterable[int], reason: str, now_s: float) -> None:
        """Rows were refused, for the first time or again."""
        if reason not in self._groups and len(self._groups) >= MOST_REASONS:
            reason = _OTHER
        group = self._groups.setdefault(reason, _Group(now_s + self._retry_s, self._retry_s))
        for seq in seqs:
            self._tried.pop(seq, None)
            group.seqs[seq] = None
        group.accepted = False

    def taken(self, seqs: Sequence[int]) -> None:
        """Rows were acknowledged."""
        if self._tried:
            for seq in self._tried.keys() & set(seqs):
                group = self._groups.get(self._tried.pop(seq))
                if group is not None:
                    group.accepted = True
                    group.wait_s = self._retry_s
        if self._groups:
            self.forget(seqs)

    def forget(self, seqs: Iterable[int]) -> None:
        """Rows that are gone."""
        for seq in seqs:
            self._tried.pop(seq, None)
            for group in self._groups.values():
                group.seqs.pop(seq, None)

    def forget_before(self, oldest_seq: int) -> None:
        """All rows below one are gone."""
        self.forget([seq for group in self._groups.values() for seq in group.seqs if seq < oldest_seq])
        self.forget([seq for seq in self._tried if seq < oldest_seq])

    def due(self, now_s: float, limit: int) -> tuple[int, ...]:
        """Rows to try now; they are under way then."""
        for reason, group in list(self._groups.items()):
            if not group.seqs:
                if now_s >= group.due_s:
                    self._groups.pop(reason)
                continue
            if group.accepted or now_s >= group.due_s:
                return self._try(reason, group, now_s, limit)
        return ()

    def next_due_s(self, now_s: float) -> float:
        """When :meth:`due` will have something; infinity for never."""
        waiting = [group for group in self._groups.values() if group.seqs]
        return min((now_s if group.accepted else group.due_s for group in waiting), default=float("inf"))

    def _try(self, reason: str, group: _Group, now_s: float, limit: int) -> tuple[int, ...]:
        seqs = tuple(seq for seq, _ in zip(group.seqs, range(limit), strict=False))
        for seq in seqs:
            del group.seqs[seq]
            self._tried[seq] = reason
        if not group.accepted:
            group.wait_s = min(2 * group.wait_s, MOST_PATIENCE * self._retry_s)
        group.due_s = now_s + group.wait_s
        return seqs
