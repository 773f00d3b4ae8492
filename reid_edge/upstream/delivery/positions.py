"""What each gallery has answered: which rows it lacks, has or refuses, and which rows every gallery has.

Times are seconds of one monotonic clock, which the caller reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reid_edge.upstream.delivery.retries import InFlight, Refusals


class Position:
    """What one gallery has answered to the rows that were sent.

    Args:
        gallery: Name of the gallery; "" for whichever answers.
        resend_s: How long to wait for its acknowledgement.
        retry_refused_s: How long to wait before rows that it refused are tried again.

    Attributes:
        gallery: Its name.
        in_flight: Rows sent and not answered.
        refusals: Rows that it refused.
        had: Rows that it has, and another gallery has not.
    """

    def __init__(self, gallery: str, resend_s: float, retry_refused_s: float) -> None:
        self.gallery = gallery
        self.in_flight = InFlight(resend_s)
        self.refusals = Refusals(retry_refused_s)
        self.had: set[int] = set()

    def due(self, now_s: float, limit: int, *, room: bool) -> tuple[int, ...]:
        """Take rows to send to this gallery again now, at most ``limit``; refused ones if there is ``room``."""
        seqs = self.in_flight.due(now_s, limit)
        return seqs or (self.refusals.due(now_s, limit) if room else ())

    def forget(self, seqs: Iterable[int]) -> None:
        """Drop rows that are no longer in the outbox."""
        self.in_flight.forget(seqs)
        self.refusals.forget(seqs)
        self.had.difference_update(seqs)


class Positions:
    """The positions of all galleries that have to acknowledge a row before it is deleted.

    A row that one gallery has and another has not is sent again as that other one's, which delays no other row: it no
    longer counts as in flight.

    Args:
        galleries: Names of the galleries; none: whichever answers is the only one.
        resend_s: How long to wait for an acknowledgement.
        retry_refused_s: How long to wait before refused rows are tried again.
    """

    def __init__(self, galleries: Sequence[str], resend_s: float, retry_refused_s: float) -> None:
        self._all = [Position(gallery, resend_s, retry_refused_s) for gallery in dict.fromkeys(galleries or ("",))]
        self._gaps: dict[tuple[int, int], set[str]] = {}

    def __contains__(self, seq: int) -> bool:
        """Return whether the row was sent, and not every gallery has it."""
        return any(seq in each.in_flight or seq in each.had or seq in each.refusals for each in self._all)

    def of(self, gallery: str) -> Position | None:
        """Return the position of the gallery that calls itself so; None if it is not one of these.

        Galleries of earlier releases have no name: they can only be told apart if there is one.
        """
        if len(self._all) == 1 and (not gallery or not self._all[0].gallery):
            return self._all[0]
        return next((each for each in self._all if each.gallery == gallery), None)

    @property
    def in_flight(self) -> int:
        """Number of rows that were sent and that no gallery has answered, or a few more."""
        return min(len(each.in_flight) for each in self._all)

    @property
    def refused(self) -> int:
        """Number of rows that a gallery has refused and not taken since."""
        return sum(len(each.refusals) for each in self._all)

    @property
    def held_back(self) -> int:
        """Number of rows that a gallery has refused and that are not in flight again."""
        if len(self._all) == 1:
            return len(self._all[0].refusals.waiting)
        return len(set[int]().union(*(each.refusals.waiting for each in self._all)))

    @property
    def lacking(self) -> dict[str, int]:
        """Number of rows that another gallery has and this one has not, by gallery; {} if there is one gallery."""
        if len(self._all) == 1:
            return {}
        had = set[int]().union(*(each.had for each in self._all))
        return {each.gallery: len(had - each.had) for each in self._all}

    def sending(self, seqs: Sequence[int], now_s: float) -> None:
        """Note that rows are being sent, in one batch."""
        for each in self._all:
            if lacked := tuple(seq for seq in seqs if seq not in each.had):
                each.in_flight.add(lacked, now_s)

    def failed(self, seqs: Sequence[int]) -> None:
        """Note that rows could not be sent after all: they are due at once."""
        for each in self._all:
            if left := tuple(seq for seq in seqs if seq in each.in_flight):
                each.in_flight.failed(left)

    def due(self, now_s: float, limit: int, *, room: bool) -> tuple[int, ...]:
        """Take rows to send again now, at most ``limit``; refused ones if there is ``room``."""
        return next((seqs for each in self._all if (seqs := each.due(now_s, limit, room=room))), ())

    def next_due_s(self, now_s: float, *, room: bool) -> float:
        """Return the time at which :meth:`due` will have rows; infinity for never."""
        due_s = [each.in_flight.next_due_s(now_s) for each in self._all]
        if room:
            due_s += [each.refusals.next_due_s(now_s) for each in self._all]
        return min(due_s)

    def lost(self) -> None:
        """Note that rows in flight may never arrive: they are due at once."""
        for each in self._all:
            each.in_flight.lost()

    def acknowledged(self, position: Position, seqs: Sequence[int], now_s: float) -> tuple[list[int], list[float]]:
        """Note that a gallery has rows; numbers that were never sent to it count for nothing.

        Returns:
            The rows that every gallery has now, and the seconds since the sending of batches that are answered.
        """
        sent = list(dict.fromkeys(seq for seq in seqs if seq in position.in_flight or seq in position.refusals))
        latencies_s = position.in_flight.acknowledged(sent, now_s)
        position.refusals.acknowledged(sent)
        if len(self._all) == 1:
            return sent, latencies_s
        position.had.update(sent)
        complete = [seq for seq in sent if all(seq in each.had for each in self._all)]
        for each in self._all:
            each.had.difference_update(complete)
        return complete, latencies_s

    def refuse(self, position: Position, seqs: Sequence[int], reason: str, now_s: float) -> int:
        """Note that a gallery refuses rows; returns how many of them had been sent to it."""
        sent = [seq for seq in seqs if seq in position.in_flight or seq in position.refusals]
        position.in_flight.forget(sent)
        position.refusals.add(sent, reason, now_s)
        return len(sent)

    def hold_back(self, seqs: Sequence[int], reason: str, now_s: float) -> None:
        """Note that rows cannot be sent, as if every gallery that lacks them had refused them."""
        self.sending(seqs, now_s)
        for each in self._all:
            self.refuse(each, seqs, reason, now_s)

    def sending_gaps(self, gaps: Iterable[tuple[int, int]]) -> None:
        """Note the gaps that are being sent: all that wait for an acknowledgement."""
        self._gaps = {gap: self._gaps.get(gap, set()) for gap in gaps}

    def gaps_acknowledged(self, position: Position, gaps: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Note that a gallery has stored gaps; returns those that every gallery has now."""
        for gap in self._gaps.keys() & set(gaps):
            self._gaps[gap].add(position.gallery)
        complete = [gap for gap, names in self._gaps.items() if len(names) == len(self._all)]
        for gap in complete:
            del self._gaps[gap]
        return complete

    def forget(self, seqs: Iterable[int]) -> None:
        """Drop rows that are no longer in the outbox."""
        gone = set(seqs)
        for each in self._all:
            each.forget(gone)

    def forget_before(self, oldest_seq: int) -> None:
        """Drop all rows below the oldest one that is still in the outbox."""
        for each in self._all:
            each.in_flight.forget_before(oldest_seq)
            each.refusals.forget_before(oldest_seq)
            each.had = {seq for seq in each.had if seq >= oldest_seq}
