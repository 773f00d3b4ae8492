"""Constraints: which tracklets cannot be one person, and which an operator has said are, or are not."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reid_edge.errors import ContradictionError
from reid_edge.identity.sightings import Boxes, Sighting, Sightings
from reid_edge.identity.transit import StatedTransits

Pair = tuple[str, str]

#: Time that two tracklets of a camera must overlap to be two people, seconds: the last moment of one track and the
#: first of the next may coincide when a tracker hands a person over.
LEAST_OVERLAP_S = 0.5
#: Time within which two boxes count as of the same moment, seconds.
SAME_MOMENT_S = 0.5
#: Intersection over the smaller box from which two boxes of one moment may be one person, detected twice.
SAME_BOX = 0.6
#: Reasons why tracklets cannot be one person.
APART = "an operator says that they are not the same"
TOGETHER = "one camera saw both at the same time"
TOO_FAST = "nobody gets from one camera to the other in that time"


@dataclass(frozen=True, kw_only=True)
class OperatorConstraints:
    """What an operator has said of pairs of tracklets, by id.

    Attributes:
        same: Pairs that are one person.
        not_same: Pairs that are two people.

    Raises:
        ContradictionError: A pair that is joined, perhaps through others, is also said to be two people.
    """

    same: tuple[Pair, ...] = ()
    not_same: tuple[Pair, ...] = ()
    groups: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", joined_groups(self.same))
        for first, second in self.not_same:
            if self.groups.get(first, first) == self.groups.get(second, second):
                raise ContradictionError(
                    f"{first} and {second} are said to be two people, but also one, by {self._path(first, second)}. "
                    "Withdraw one of these."
                )

    def _path(self, first: str, second: str) -> str:
        group = self.groups.get(first, first)
        joined = [pair for pair in self.same if self.groups[pair[0]] == group]
        return ", ".join(f"{one} = {other}" for one, other in joined) or f"{first} = {second}"


def joined_groups(pairs: Iterable[Pair]) -> dict[str, str]:
    """Return the alphabetically first member of each id's group, where pairs are joined one after another."""
    leaders: dict[str, str] = {}

    def leader(name: str) -> str:
        while leaders.setdefault(name, name) != name:
            leaders[name] = leaders[leaders[name]]
            name = leaders[name]
        return name

    for first, second in pairs:
        low, high = sorted((leader(first), leader(second)))
        leaders[high] = low
    return {name: leader(name) for name in leaders}


def seen_together(first: Sighting, second: Sighting) -> bool:
    """Return whether one camera saw two tracklets of it at the same time in distinct boxes."""
    shared = min(first.last_s, second.last_s) - max(first.first_s, second.first_s)
    if shared < LEAST_OVERLAP_S:
        return False
    if first.boxes is None or second.boxes is None:
        return True
    area = _shared_area(first.boxes, second.boxes)
    return area is None or area < SAME_BOX


def forbidden(
    members: Sequence[Sighting],
    sightings: Iterable[Sighting],
    *,
    apart: Container[Pair],
    transits: StatedTransits | None,
) -> str | None:
    """Return why tracklets cannot be of the person who has some members, or None.

    Args:
        members: The person's tracklets.
        sightings: The other tracklets.
        apart: Pairs that an operator says are two people, in both orders.
        transits: Stated times between cameras; None: none.
    """
    for sighting in sightings:
        for member in members:
            if (member.id, sighting.id) in apart:
                return APART
            if member.camera == sighting.camera:
                if seen_together(member, sighting):
                    return TOGETHER
            elif transits is not None and transits.too_fast(member, sighting):
                return TOO_FAST
    return None


class CannotLink:
    """Tells whether two sets of tracklets can be one person.

    Two tracklets cannot be one person if the same camera saw both at the same time in distinct boxes, if nobody gets
    from the one camera to the other in the time between them, or if an operator has said so.

    Args:
        sightings: N tracklets.
        operator: What an operator has said; ids that are not among the sightings are ignored.
        transits: Stated times between cameras; None: none.

    Raises:
        ContradictionError: An operator joins tracklets that cannot be one person.
    """

    def __init__(
        self,
        sightings: Sightings,
        *,
        operator: OperatorConstraints | None = None,
        transits: StatedTransits | None = None,
    ) -> None:
        self._first, self._last = sightings.first_s, sightings.last_s
        self._boxes = sightings.boxes
        self._numbers = sightings.camera_numbers
        self._operator = operator or OperatorConstraints()
        self._rows = {name: row for row, name in enumerate(sightings.ids)}
        self._shortest = None if transits is None else transits.shortest_between(sightings.camera_names)
        self._forbidden: dict[int, set[int]] = {}
        for one, other in self._operator.not_same:
            if one in self._rows and other in self._rows:
                self._forbidden.setdefault(self._rows[one], set()).add(self._rows[other])
                self._forbidden.setdefault(self._rows[other], set()).add(self._rows[one])
        self._check_operator(sightings)

    def joined_rows(self) -> list[tuple[int, int]]:
        """Return the pairs of rows that an operator has joined."""
        return [
            (self._rows[one], self._rows[other])
            for one, other in self._operator.same
            if one in self._rows and other in self._rows
        ]

    def between(self, first: Sequence[int], second: Sequence[int]) -> str | None:
        """Return why two sets of rows cannot be one person, or None if they can be."""
        if self._forbidden and any(not self._forbidden.get(row, _NOTHING).isdisjoint(second) for row in first):
            return APART
        ones, others = np.asarray(first, np.int64)[:, None], np.asarray(second, np.int64)[None]
        gap = np.maximum(self._first[ones] - self._last[others], self._first[others] - self._last[ones])
        same_camera = self._numbers[ones] == self._numbers[others]
        together = same_camera & (gap <= -LEAST_OVERLAP_S)
        if together.any() and any(self._distinct(first[row], second[column]) for row, column in np.argwhere(together)):
            return TOGETHER
        if self._shortest is not None:
            too_fast = ~same_camera & (gap < self._shortest[self._numbers[ones], self._numbers[others]])
            if too_fast.any():
                return TOO_FAST
        return None

    def simultaneous_pairs(self) -> npt.NDArray[np.int64]:
        """Return all pairs that one camera saw at the same time in distinct boxes: P×2 rows, the smaller first."""
        found: list[tuple[int, int]] = []
        for camera in np.unique(self._numbers):
            rows = np.flatnonzero(self._numbers == camera)
            rows = rows[np.argsort(self._first[rows], kind="stable")]
            starts = self._first[rows]
            for place, row in enumerate(rows):
                end = int(np.searchsorted(starts, self._last[row] - LEAST_OVERLAP_S, side="right"))
                for other in rows[place + 1 : end]:
                    shared = min(self._last[row], self._last[other]) - self._first[other]
                    if shared >= LEAST_OVERLAP_S and self._distinct(int(row), int(other)):
                        found.append((min(int(row), int(other)), max(int(row), int(other))))
        return np.array(sorted(found), np.int64).reshape(-1, 2)

    def _distinct(self, first: int, second: int) -> bool:
        if not self._boxes:
            return True
        shared = _shared_area(self._boxes[first], self._boxes[second])
        return shared is None or shared < SAME_BOX

    def _check_operator(self, sightings: Sightings) -> None:
        groups: dict[str, list[int]] = {}
        for name, leader in sorted(self._operator.groups.items()):
            if name not in self._rows:
                continue
            row, group = self._rows[name], groups.setdefault(leader, [])
            for other in group if self.between(group, [row]) else ():
                reason = self.between([other], [row])
                if reason is not None:
                    raise ContradictionError(
                        f"{sightings.ids[other]} and {name} are said to be one person, but {reason}. "
                        "Withdraw that, or check the clock of the camera."
                    )
            group.append(row)


_NOTHING: frozenset[int] = frozenset()


def _shared_area(first: Boxes, second: Boxes) -> float | None:
    """Return the largest share of the smaller of two boxes of one moment that is in both; None: no such boxes."""
    if not len(first) or not len(second):
        return None
    near = np.abs(first[:, None, 0] - second[None, :, 0]) <= SAME_MOMENT_S
    if not near.any():
        return None
    low = np.maximum(first[:, None, 1:3], second[None, :, 1:3])
    high = np.minimum(first[:, None, 3:5], second[None, :, 3:5])
    inside = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 3:5] - boxes[:, 1:3], axis=1) for boxes in (first, second)]
    smaller = np.minimum(areas[0][:, None], areas[1][None])
    return float((inside / np.maximum(smaller, 1e-12))[near].max())
