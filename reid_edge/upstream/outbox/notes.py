"""Notes in an outbox's state: the requests for kept rows that it served, and the rows that it took over."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from reid_edge.upstream.observation import MAX_GALLERIES

#: Requests that are remembered: several galleries may ask, each with every answer.
_MOST_REQUESTS = 2 * MAX_GALLERIES
#: Other outboxes that are remembered.
_MOST_TAKEN = 63


@dataclass(frozen=True)
class Asked:
    """A request for kept rows.

    Attributes:
        id: Names the request.
        at_us: The age clock's count when it came.
        before_seq: No row below waited then: those that wait now are rows that it asked for.
    """

    id: str
    at_us: int
    before_seq: int


@dataclass(frozen=True)
class Notes:
    """What an outbox has to remember, as words of one text.

    Attributes:
        served: Ids of the last requests for kept rows that were served, the latest last.
        asked: The last requests that found kept rows.
        taken: (incarnation, last number) of rows that were taken over from other outboxes.
    """

    served: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = ()
    taken: tuple[tuple[str, int], ...] = ()

    @classmethod
    def read(cls, text: str) -> Notes:
        """Return the notes of a text."""
        words = text.split()
        return cls(
            tuple(word for word in words if "/" not in word and "=" not in word),
            tuple(_asked(word) for word in words if "=" in word),
            tuple((word.partition("/")[0], int(word.partition("/")[2])) for word in words if "/" in word),
        )

    def __str__(self) -> str:
        """Return the text."""
        asked = (f"{one.id}={one.at_us}={one.before_seq}" for one in self.asked)
        taken = (f"{incarnation}/{last_seq}" for incarnation, last_seq in self.taken)
        return " ".join([*taken, *asked, *self.served])

    def with_asked(self, asked: Asked) -> Notes:
        """Return the notes with a request; one that was interrupted stays as it is."""
        known = any(one.id == asked.id for one in self.asked)
        return self if known else replace(self, asked=(*self.asked, asked)[-_MOST_REQUESTS:])

    def with_served(self, id_: str) -> Notes:
        """Return the notes after a request was served."""
        return replace(self, served=(*self.served, id_)[-_MOST_REQUESTS:])

    def with_taken(self, incarnation: str, last_seq: int) -> Notes:
        """Return the notes after rows of another outbox, up to one, were taken over."""
        others = tuple(each for each in self.taken if each[0] != incarnation)[-_MOST_TAKEN:]
        return replace(self, taken=(*others, (incarnation, last_seq)))

    def taken_from(self, incarnation: str) -> int:
        """Return the last row of another outbox that was taken over; 0 for none."""
        return dict(self.taken).get(incarnation, 0)

    def waits_since_us(self, seq: int, put_us: int, now_us: int) -> int:
        """Return the age clock's count since which a row waits: when it was put, or when it was asked for again.

        Args:
            seq: Its number.
            put_us: The count when it was put.
            now_us: The count now; a request from later, of before the count was lost, says nothing.
        """
        times: Iterable[int] = (one.at_us for one in self.asked if seq < one.before_seq and one.at_us <= now_us)
        return max((put_us, *times))


def _asked(word: str) -> Asked:
    id_, at_us, before_seq = word.split("=")
    return Asked(id_, int(at_us), int(before_seq))
