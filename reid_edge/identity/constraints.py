"""Constraints: which tracklets cannot be one person, and which an operator has said are, or are not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reid_edge.errors import ContradictionError
from reid_edge.identity.sightings import Boxes, Sighting, Sightings
from reid_edge.identity.spans import Spans
from reid_edge.identity.transit import StatedTransits

Pair = tuple[str, str]
Rows = npt.NDArray[np.int64]

#: Time that two tracklets of a camera must overlap to be two people, seconds: the last moment of one track and the
#: first of the next may coincide when a tracker hands a person over.
LEAST_OVERLAP_S = 0.5
#: Time within which two boxes count as of the same moment, seconds.
SAME_MOMENT_S = 0.5
#: Intersection over the smaller box from which two boxes of one moment may be one person, detected twice.
SAME_BOX = 0.6
#: Pairs, of tracklets or of boxes, that are compared at a time.
PAIRS_AT_A_TIME = 1 << 18
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
    return not _detected_twice(first.boxes, second.boxes)


def forbidden(
    members: Mapping[str, Sighting],
    spans: Spans,
    sightings: Iterable[Sighting],
    *,
    apart: Mapping[str, Iterable[str]],
    transits: StatedTransits | None,
) -> str | None:
    """Return why tracklets cannot be of the person who has some members, or None.

    Of the members, those near in time are looked at alone.

    Args:
        members: The person's tracklets by id.
        spans: When these were in sight.
        sightings: The other tracklets.
        apart: Who an operator says is somebody else, by id, in both orders.
        transits: Stated times between cameras; None: none.
    """
    for sighting in sightings:
        if not members.keys().isdisjoint(apart.get(sighting.id, ())):
            return APART
        near = spans.near(sighting.camera, sighting.first_s, sighting.last_s)
        if any(seen_together(members[name], sighting) for name in near):
            return TOGETHER
        if transits is not None and _too_fast(members, spans, sighting, transits):
            return TOO_FAST
    return None


def _too_fast(members: Mapping[str, Sighting], spans: Spans, sighting: Sighting, transits: StatedTransits) -> bool:
    for camera in spans.cameras:
        least_s = transits.least_gap_s(camera, sighting.camera)
        if least_s is None:
            continue
        near = spans.near(camera, sighting.first_s - least_s, sighting.last_s + least_s)
        if any(transits.too_fast(members[name], sighting) for name in near):
            return True
    return False


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
        some = max(1, PAIRS_AT_A_TIME // max(1, len(second)))
        pieces = (self._by_time(first[start : start + some], second) for start in range(0, len(first), some))
        return next((reason for reason in pieces if reason is not None), None)

    def _by_time(self, first: Sequence[int], second: Sequence[int]) -> str | None:
        """Return why two sets of rows cannot be one person by where they were when, or None."""
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

    def simultaneous_pairs(self, most: int | None = None) -> Rows:
        """Return the pairs that one camera saw at the same time in distinct boxes: P×2 rows, the smaller first.

        Args:
            most: Of more pairs, about so many are drawn, without looking at the boxes of all; None: all.
        """
        rows, counts = self._overlapping()
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        if most is None or total <= most:
            chosen = np.arange(total)
        else:  # twice as many, since some may be of one person, detected twice
            chosen = np.random.default_rng(0).choice(total, min(total, 2 * most), replace=False)
        places = np.searchsorted(ends, chosen, side="right")
        others = places + 1 + chosen - (ends[places] - counts[places])
        pairs = np.sort(np.stack([rows[places], rows[others]], axis=1), axis=1).astype(np.int64)
        distinct = (pair for pair in pairs.tolist() if self._distinct(*pair))
        return np.array(sorted(itertools.islice(distinct, most)), np.int64).reshape(-1, 2)

    def _overlapping(self) -> tuple[Rows, Rows]:
        """Return rows by camera and first sight, and with how many of those after it each overlaps long enough."""
        rows = np.flatnonzero(self._last - self._first >= LEAST_OVERLAP_S)  # a shorter one overlaps with none
        rows = rows[np.lexsort((self._first[rows], self._numbers[rows]))]
        counts = np.zeros(len(rows), np.int64)
        for camera in np.unique(self._numbers[rows]):
            places = np.flatnonzero(self._numbers[rows] == camera)
            starts, ends = self._first[rows[places]], self._last[rows[places]] - LEAST_OVERLAP_S
            counts[places] = np.searchsorted(starts, ends, side="right") - np.arange(len(places)) - 1
        return rows, np.maximum(counts, 0)

    def _distinct(self, first: int, second: int) -> bool:
        return not self._boxes or not _detected_twice(self._boxes[first], self._boxes[second])

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


def _detected_twice(first: Boxes, second: Boxes) -> bool:
    """Return whether two boxes of one moment cover one another so far that they may be of one person."""
    first, second = (boxes[np.argsort(boxes[:, 0], kind="stable")] for boxes in (first, second))
    low = np.searchsorted(second[:, 0], first[:, 0] - SAME_MOMENT_S, side="left")
    counts = np.searchsorted(second[:, 0], first[:, 0] + SAME_MOMENT_S, side="right") - low
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, PAIRS_AT_A_TIME):
        pairs = np.arange(start, min(start + PAIRS_AT_A_TIME, total))
        ones = np.searchsorted(ends, pairs, side="right")
        others = low[ones] + pairs - (ends[ones] - counts[ones])
        if (_shared_areas(first[ones, 1:], second[others, 1:]) >= SAME_BOX).any():
            return True
    return False


def _shared_areas(first: Boxes, second: Boxes) -> npt.NDArray[np.float64]:
    """Return the share of the smaller of two boxes that is in both, of each of N pairs: x1 y1 x2 y2, N×4."""
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    shares: npt.NDArray[np.float64] = np.prod(np.maximum(sides, 0), axis=1) / np.maximum(np.minimum(*areas), 1e-12)
    return shares
