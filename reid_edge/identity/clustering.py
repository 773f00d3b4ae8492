"""People of many tracklets at once: average linkage under constraints."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.identity.background import (
    LEAST_TRACKLETS,
    Background,
    measured_background,
    relative_similarity,
    stranger_levels,
)
from reid_edge.identity.centring import Centring
from reid_edge.identity.constraints import CannotLink
from reid_edge.identity.moves import centring_by_view
from reid_edge.identity.neighbours import Neighbours, nearest, pairs_of
from reid_edge.identity.sightings import Sightings
from reid_edge.identity.sureness import SAME_CAMERA, sure_limit

Floats = npt.NDArray[np.float64]
State = Literal["assigned", "unsure", "alone"]

#: Relative similarity below which a tracklet's nearest is no candidate.
POSSIBLE = 0.5
#: Neighbours of a tracklet that are candidates for a merge.
CANDIDATES = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class People:
    """Tracklets grouped to people.

    Attributes:
        ids: N tracklets, as given.
        people: Number of each one's person, N, from 0; numbers are in the order of the people's alphabetically first
            tracklet.  A tracklet that is not assigned is a person of its own.
        states: N: ``assigned`` with others; ``unsure``: others are near, but not surely the same person; ``alone``:
            nobody else is near.
        nearest: Relative similarity of each to its nearest other, N; −inf where there is none.
        agreement: Mean relative similarity of each with the others of its person, N; NaN for one of its own.
        background: What the similarities are relative to; None: too few tracklets.
        centring: How the features were centred.
        limit: Relative similarity from which groups were merged; infinite: nothing was enough.
        matches: P×2 rows of tracklets of two cameras that reach the limit by their features alone, whatever the
            constraints say: each tracklet and the most similar one of another camera.
    """

    ids: tuple[str, ...]
    people: npt.NDArray[np.int64]
    states: tuple[State, ...]
    nearest: Floats
    agreement: Floats
    background: Background | None
    centring: Centring
    limit: float
    matches: npt.NDArray[np.int64]


def clustered(
    sightings: Sightings,
    *,
    cannot_link: CannotLink | None = None,
    centring: Centring | None = None,
    above: float | None = None,
    strangers: float = 1.0,
) -> People:
    """Group tracklets to people.

    The two groups of largest mean relative similarity (:mod:`reid_edge.identity.background`) are merged, again and
    again, as long as it is at least ``above`` and the constraints allow it (average linkage; Sokal and Michener 1958).
    Tracklets of one camera count as less similar than they are, since strangers do too.
    Groups are compared if a tracklet of one is among the 20 nearest of one of the other.  The answer does not depend
    on the order of the sightings.

    With fewer than 20 tracklets, how much strangers resemble one another is not known, so only those are joined whom an
    operator has joined.

    Args:
        sightings: N tracklets of one model.
        cannot_link: Constraints, made of the same sightings; None: those that the sightings themselves tell.
        centring: How to centre; None: as the sightings tell.
        above: Smallest mean relative similarity of a merge; None: the lowest at which about one match in a hundred is
            expected to be of two people (:func:`reid_edge.identity.sureness.sure_limit`).
        strangers: How many times more strangers there are than usual, for that limit.

    Raises:
        MixedModelsError: The centring is of another model.
    """
    centring = centring or centring_by_view(sightings)
    order = sightings.order()
    linkage = _linkage(sightings, order, centring, cannot_link or CannotLink(sightings))
    limit = sure_limit(linkage.nearest_relative(), strangers) if above is None else above
    groups = linkage.merged(pairs_of(linkage.found), limit)
    return _as_people(sightings, order, groups, linkage, centring, limit)


def relative_similarities(sightings: Sightings, pairs: npt.NDArray[np.integer]) -> tuple[Floats, float]:
    """Return the relative similarities of pairs, and the limit from which ``clustered`` merges.

    Args:
        sightings: N tracklets of one model, at least 20.
        pairs: P×2 rows.

    Returns:
        P float64, those of one camera as much less as a merge counts them; and the limit.
    """
    order = sightings.order()
    linkage = _linkage(sightings, order, centring_by_view(sightings), CannotLink(sightings))
    places = np.argsort(order)
    return linkage.relative(places[pairs[:, 0]], places[pairs[:, 1]]), sure_limit(linkage.nearest_relative())


def _linkage(
    sightings: Sightings, order: npt.NDArray[np.int64], centring: Centring, cannot_link: CannotLink
) -> _Linkage:
    features = centring.applied(sightings)[order]
    background = measured_background(features) if len(sightings) >= LEAST_TRACKLETS else None
    found = nearest(features, CANDIDATES)
    return _Linkage(features, sightings.camera_numbers[order], order, cannot_link, background, found)


class _Linkage:
    """Groups of rows, with what their mean similarities are computed from.

    The mean cosine of two groups is the product of their mean features; the mean relative similarity takes the mean of
    their members' levels off that, and what the share of pairs of one camera calls for.
    """

    def __init__(
        self,
        features: npt.NDArray[np.float32],
        cameras: npt.NDArray[np.int64],
        order: npt.NDArray[np.int64],
        cannot_link: CannotLink,
        background: Background | None,
        found: Neighbours,
    ) -> None:
        self.features = features
        self.found = found
        self.background = background
        self.levels = (
            np.zeros(len(features)) if background is None else stranger_levels(found, background, among=len(features))
        )
        self._order = order
        self._numbers = cameras
        self._cameras: list[dict[int, int]] = [{int(camera): 1} for camera in cameras]
        self._places = {int(row): place for place, row in enumerate(order)}
        self._cannot_link = cannot_link
        self._means = features.astype(np.float32).copy()
        self._mean_levels = self.levels.copy()
        self._members: dict[int, list[int]] = {place: [place] for place in range(len(features))}
        self._near: list[set[int]] = [set() for _ in range(len(features))]
        self._version = [0] * len(features)
        self._joined_to = list(range(len(features)))

    def merged(self, candidates: npt.NDArray[np.int32], above: float) -> list[list[int]]:
        """Merge as long as two groups are near enough; return the groups, each in ascending order."""
        for one, other in self._cannot_link.joined_rows():
            self._join(self._group(self._places[one]), self._group(self._places[other]))
        if self.background is None or not len(candidates):
            return self._groups()
        heap = self._first_heap(candidates, above)
        while heap:
            _, one, other, of_one, of_other = heapq.heappop(heap)
            if self._version[one] != of_one or self._version[other] != of_other:
                continue
            if self._between(one, other) is not None:
                continue
            self._join(one, other)
            self._push(heap, one, above)
        return self._groups()

    def _first_heap(self, candidates: npt.NDArray[np.int32], above: float) -> list[tuple[float, int, int, int, int]]:
        for one, other in candidates.tolist():
            one, other = self._group(one), self._group(other)
            if one != other:
                self._near[one].add(other)
                self._near[other].add(one)
        heap: list[tuple[float, int, int, int, int]] = []
        for place in self._members:
            self._push(heap, place, above, only_after=True)
        heapq.heapify(heap)
        return heap

    def _push(
        self, heap: list[tuple[float, int, int, int, int]], one: int, above: float, *, only_after: bool = False
    ) -> None:
        near = sorted(other for other in self._near[one] if not only_after or other > one)
        if not near:
            return
        assert self.background is not None
        cosines = self._means[near] @ self._means[one]
        similar = relative_similarity(cosines, self._mean_levels[near], self._mean_levels[one], self.background)
        for place in np.flatnonzero(similar >= above):
            low, high = sorted((one, near[place]))
            similarity = float(similar[place]) - SAME_CAMERA * self._share_of_one_camera(low, high)
            if similarity < above:
                continue
            # rounded, so that sums in another order do not change which of two equal ones comes first
            entry = (-round(similarity, 5), low, high, self._version[low], self._version[high])
            if only_after:
                heap.append(entry)
            else:
                heapq.heappush(heap, entry)

    def _share_of_one_camera(self, one: int, other: int) -> float:
        """Return the share of the pairs between two groups that are of one camera."""
        fewer, more = sorted((self._cameras[one], self._cameras[other]), key=len)
        pairs = sum(count * more.get(camera, 0) for camera, count in fewer.items())
        return pairs / (len(self._members[one]) * len(self._members[other]))

    def _between(self, one: int, other: int) -> str | None:
        return self._cannot_link.between(
            [int(self._order[place]) for place in self._members[one]],
            [int(self._order[place]) for place in self._members[other]],
        )

    def _group(self, place: int) -> int:
        while self._joined_to[place] != place:
            place = self._joined_to[place]
        return place

    def _join(self, one: int, other: int) -> None:
        if one == other:
            return
        sizes = len(self._members[one]), len(self._members[other])
        share = sizes[0] / sum(sizes)
        self._means[one] = share * self._means[one] + (1 - share) * self._means[other]
        self._mean_levels[one] = share * self._mean_levels[one] + (1 - share) * self._mean_levels[other]
        self._members[one] += self._members.pop(other)
        for camera, count in self._cameras[other].items():
            self._cameras[one][camera] = self._cameras[one].get(camera, 0) + count
        self._cameras[other] = {}
        self._version[one] += 1
        self._version[other] = -1
        self._joined_to[other] = one
        near = (self._near[one] | self._near[other]) - {one, other}
        for third in near:
            self._near[third].discard(other)
            self._near[third].add(one)
        self._near[one], self._near[other] = near, set()

    def _groups(self) -> list[list[int]]:
        return sorted(sorted(members) for members in self._members.values())

    def nearest_relative(self) -> Floats:
        """Return the relative similarity of each to its nearest other, N; −inf where nothing is known."""
        if self.background is None or not self.found.rows.shape[1]:
            return np.full(len(self.features), -np.inf)
        best: Floats = (self._to_neighbours() - SAME_CAMERA * self._one_camera()).max(axis=1)
        return best

    def matches(self, above: float) -> npt.NDArray[np.int64]:
        """Return the pairs of places of two cameras, each with its most similar of another, that reach a limit: P×2."""
        if self.background is None or not self.found.rows.shape[1]:
            return np.empty((0, 2), np.int64)
        similar = np.where(self._one_camera(), -np.inf, self._to_neighbours())
        best = similar.argmax(axis=1)
        places = np.flatnonzero(similar[np.arange(len(best)), best] >= above)
        pairs = np.stack([places, self.found.rows[places, best[places]]], axis=1)
        return np.unique(np.sort(pairs, axis=1), axis=0)

    def _to_neighbours(self) -> Floats:
        assert self.background is not None
        levels = self.levels[np.maximum(self.found.rows, 0)]
        return relative_similarity(self.found.cosines, self.levels[:, None], levels, self.background)

    def _one_camera(self) -> npt.NDArray[np.bool_]:
        """Return whether each neighbour is of the same camera."""
        same: npt.NDArray[np.bool_] = self._numbers[:, None] == self._numbers[np.maximum(self.found.rows, 0)]
        return same

    def relative(self, one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> Floats:
        """Return the relative similarities of pairs of places."""
        assert self.background is not None
        cosines = np.einsum("pd,pd->p", self.features[one], self.features[other])
        similar = relative_similarity(cosines, self.levels[one], self.levels[other], self.background)
        less: Floats = SAME_CAMERA * (self._numbers[one] == self._numbers[other])
        return similar - less

    def agreements(self, members: list[int]) -> Floats:
        """Return the mean relative similarity of each member of a group with the others."""
        if self.background is None:
            return np.full(len(members), np.nan)
        total = self.features[members].sum(axis=0)
        squares = np.einsum("nd,nd->n", self.features[members], self.features[members])
        rest = len(members) - 1
        cosines = (self.features[members] @ total - squares) / rest
        levels = self.levels[members]
        similar = relative_similarity(cosines, levels, (levels.sum() - levels) / rest, self.background)
        own = self._numbers[members]
        agreement: Floats = similar - SAME_CAMERA * (np.bincount(own)[own] - 1) / rest
        return agreement


def _as_people(
    sightings: Sightings,
    order: npt.NDArray[np.int64],
    groups: list[list[int]],
    linkage: _Linkage,
    centring: Centring,
    limit: float,
) -> People:
    count = len(sightings)
    people = np.empty(count, np.int64)
    agreement, near = np.full(count, np.nan), np.full(count, -np.inf)
    near[order] = linkage.nearest_relative()
    states: list[State] = ["alone"] * count
    for number, members in enumerate(groups):
        rows = order[members]
        people[rows] = number
        if len(members) > 1:
            agreement[rows] = linkage.agreements(members)
        for row in rows:
            states[row] = "assigned" if len(members) > 1 else "unsure" if _unsure(near[row], linkage) else "alone"
    return People(
        ids=sightings.ids,
        people=people,
        states=tuple(states),
        nearest=near,
        agreement=agreement,
        background=linkage.background,
        centring=centring,
        limit=limit,
        matches=order[linkage.matches(limit)],
    )


def _unsure(near: float, linkage: _Linkage) -> bool:
    """Return whether a tracklet may be somebody who is known: others are near, or too few to know what near is."""
    return near >= POSSIBLE or (linkage.background is None and len(linkage.features) > 1)
