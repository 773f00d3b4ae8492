"""People of tracklets as they come: each is assigned at once; people may later be merged or split, with a reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from reid_edge.errors import ContradictionError, MixedModelsError, NoSuchTrackletError
from reid_edge.features import l2_normalised
from reid_edge.identity.background import RANKS, SLACK, Background, relative_similarity
from reid_edge.identity.centring import Centring
from reid_edge.identity.clustering import POSSIBLE, People
from reid_edge.identity.constraints import OperatorConstraints, forbidden
from reid_edge.identity.events import Event
from reid_edge.identity.neighbours import BLOCK
from reid_edge.identity.people_table import Numbers, PeopleTable
from reid_edge.identity.sightings import Sighting, joined
from reid_edge.identity.sureness import SAME_CAMERA, sure_at_once
from reid_edge.identity.transit import StatedTransits
from reid_edge.types import Feature

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

#: Ranks of the people who stand for strangers: the nearest is left out.
PEOPLE_RANKS = (1, 9)
#: Nearest people who are looked at for an assignment or a merge.
LOOKED_AT = 8
NEAR = "nearer than strangers are"


class OnlinePeople:
    """People who are live, and the tracklets that each has.

    To be used by one thread.  A tracklet is assigned to the person of largest mean relative similarity, if it is at
    least ``above`` and nothing forbids it; else it becomes a person of its own.  How near strangers are is told by the
    people ranked 2 to 9, but is at least what the background's tracklets would show: few live people tell little.

    Args:
        model_hash: The model of all features.
        centring: How features are centred, as long as this object lives.
        background: What similarities are relative to; None: not known yet, so every tracklet is a person of its own.
        transits: Stated times between cameras; None: none.
        operator: What an operator has said of tracklets; None: nothing.
        numbers: Gives people their numbers; None: from 0 on.
        above: Smallest relative similarity of an assignment or a merge; None: what is enough beside as many tracklets
            as the background was measured on (:func:`reid_edge.identity.sureness.sure_at_once`).
        strangers: How many times more strangers there are than usual, for that limit.

    Attributes:
        limit: The smallest relative similarity of an assignment or a merge.
    """

    def __init__(
        self,
        model_hash: str,
        centring: Centring,
        background: Background | None,
        *,
        transits: StatedTransits | None = None,
        operator: OperatorConstraints | None = None,
        numbers: Numbers | None = None,
        above: float | None = None,
        strangers: float = 1.0,
    ) -> None:
        if centring.model_hash != model_hash:
            raise MixedModelsError(f"the centring is of the model {centring.model_hash}, not of {model_hash}.")
        self._model_hash, self._centring, self._background = model_hash, centring, background
        self._transits = transits
        known = 0 if background is None else background.tracklets
        self.limit = sure_at_once(known, strangers) if above is None else above
        self.follow(operator or OperatorConstraints())
        self._table = PeopleTable(len(centring.mean), numbers or Numbers())

    @classmethod
    def continued(
        cls,
        people: People,
        sightings: Iterable[Sighting],
        *,
        transits: StatedTransits | None = None,
        above: float | None = None,
    ) -> OnlinePeople:
        """Go on from people who were clustered.

        Args:
            people: The result of ``clustered``.
            sightings: The tracklets that they were made of.
            transits: As above.
            above: As above.

        Raises:
            NoSuchTrackletError: A sighting is of a tracklet that was not clustered.
        """
        online = cls(people.centring.model_hash, people.centring, people.background, transits=transits, above=above)
        numbers = dict(zip(people.ids, people.people.tolist(), strict=True))
        rows = list(sightings)
        for sighting in rows:
            if sighting.id not in numbers:
                raise NoSuchTrackletError(f"{sighting.id} is not among the tracklets that were clustered.")
        online.load((sighting, numbers[sighting.id]) for sighting in rows)
        return online

    def load(self, known: Iterable[tuple[Sighting, int]]) -> None:
        """Take over tracklets whose people are known, with the numbers of these; each tracklet once."""
        for sighting, number in known:
            self._table.place(sighting, number, self._centred(sighting), 0.0)
        self._refresh_levels()

    def follow(self, operator: OperatorConstraints) -> None:
        """Respect what an operator has said of tracklets, in place of what was said before."""
        self._joined = operator.groups
        self._apart: dict[str, set[str]] = {}
        for first, second in operator.not_same:
            self._keep_apart(first, second)

    def __len__(self) -> int:
        return len(self._table)

    def person_of(self, tracklet: str) -> int:
        """Return the number of a tracklet's person.

        Raises:
            NoSuchTrackletError: It is not among those of live people.
        """
        if tracklet not in self._table.person_of:
            raise NoSuchTrackletError(
                f"the tracklet {tracklet} is of no live person; it was never added, or forgotten."
            )
        return self._table.person_of[tracklet]

    def members(self, person: int) -> tuple[str, ...]:
        """Return the tracklets of a person, in alphabetical order."""
        return tuple(sorted(self._table.people[person].members))

    def sightings(self) -> Iterator[Sighting]:
        """Yield all tracklets."""
        for person in self._table.people.values():
            yield from person.members.values()

    def feature_of(self, tracklet: str) -> Feature:
        """Return the centred feature of a tracklet of a live person, D float32."""
        return self._table.features[tracklet]

    def add(self, sighting: Sighting) -> tuple[Event, ...]:
        """Assign a tracklet, or what is newly known of one that was assigned.

        Raises:
            MixedModelsError: Its feature is of another model.
            ContradictionError: The tracklet was of another camera before.
        """
        if sighting.model_hash != self._model_hash:
            raise MixedModelsError(
                f"{sighting.id} has a feature of the model {sighting.model_hash}; the people are of {self._model_hash}."
            )
        if sighting.id in self._table.person_of:
            return self._again(sighting)
        return self._first(sighting, self._centred(sighting))

    def join(self, first: str, second: str) -> tuple[Event, ...]:
        """Merge the people of two tracklets, since an operator says that they are one.

        Raises:
            NoSuchTrackletError: One is of no live person.
            ContradictionError: They cannot be one person.
        """
        one, other = sorted((self.person_of(first), self.person_of(second)))
        if one == other:
            return ()
        reason = self._forbids_merge(one, other)
        if reason is not None:
            raise ContradictionError(f"{first} and {second} cannot be one person: {reason}.")
        return (self._merge(one, other, first, None, "an operator says that they are the same"),)

    def part(self, first: str, second: str) -> tuple[Event, ...]:
        """Keep two tracklets apart from now on, since an operator says that they are two people.

        If they are of one person, the second leaves, with those members that are nearer to it than to the first.

        Raises:
            NoSuchTrackletError: One is of no live person.
            ContradictionError: They are the same tracklet.
        """
        if first == second:
            raise ContradictionError(f"{first} cannot be two people.")
        one, other = self.person_of(first), self.person_of(second)
        self._keep_apart(first, second)
        if one != other:
            return ()
        new = self._table.new_number()
        features = self._table.features
        leaving = [
            name
            for name in self.members(one)
            if name == second
            or (name != first and features[name] @ features[second] > features[name] @ features[first])
        ]
        return tuple(
            self._move(name, one, new, None, "an operator says that they are not the same") for name in leaving
        )

    def forget(self, before_s: float) -> tuple[int, ...]:
        """Drop the people who were last seen before a time; return their numbers."""
        gone = tuple(number for number, person in self._table.people.items() if person.last_s < before_s)
        for number in gone:
            for name in list(self._table.people[number].members):
                self._table.remove(name)
        return gone

    def remove(self, tracklet: str) -> None:
        """Drop a tracklet, as if it had never been added; one that is not known stays so."""
        if tracklet in self._table.person_of:
            self._table.remove(tracklet)

    # what becomes of one tracklet

    def _first(self, sighting: Sighting, feature: Feature) -> tuple[Event, ...]:
        cosines, level = self._compared(feature)
        ranked = self._ranked(cosines, level, sighting.camera)
        found = self._sure(sighting, ranked)
        if found is None:
            number = self._table.new_number()
            self._table.place(sighting, number, feature, level)
            return (self._own(number, sighting.id, ranked[0] if ranked else None),)
        number, similarity = found
        self._table.place(sighting, number, feature, level)
        event = Event(kind="assigned", person=number, tracklet=sighting.id, similarity=similarity, reason=NEAR)
        return event, *self._merges(sighting.id, cosines)

    def _sure(self, sighting: Sighting, ranked: Iterable[tuple[int, float]]) -> tuple[int, float] | None:
        """Return the first person who surely is a tracklet's, and the similarity; None if nobody is."""
        for number, similarity in ranked:
            if similarity < self.limit:
                return None
            if self._forbids(number, [sighting]) is None:
                return number, similarity
        return None

    def _own(self, number: int, tracklet: str, nearest: tuple[int, float] | None) -> Event:
        if nearest is None or (self._background is not None and nearest[1] < POSSIBLE):
            similarity = None if nearest is None else nearest[1]
            return Event(kind="new", person=number, tracklet=tracklet, similarity=similarity, reason="nobody is near")
        return Event(
            kind="unsure",
            person=number,
            tracklet=tracklet,
            other=nearest[0],
            similarity=None if self._background is None else nearest[1],
            reason="somebody is near, but not surely the same",
        )

    def _again(self, sighting: Sighting) -> tuple[Event, ...]:
        """Take over what is newly known; the tracklet leaves its person if it cannot be that person any more."""
        table, name = self._table, sighting.id
        number = table.person_of[name]
        known = table.people[number].members[name]
        if known.camera != sighting.camera:
            raise ContradictionError(f"the tracklet {name} is of {known.camera}, not of {sighting.camera}.")
        newest = joined(known, sighting)
        feature = table.features[name] if newest.feature is known.feature else self._centred(newest)
        level = table.level_of[name]
        table.remove(name)
        if number not in table.people:  # it was the only one
            return self._alone_again(newest, number, feature)
        person = table.people[number]
        similarity = self._similarity(
            float(table.means[person.slot] @ feature), level, table.levels[person.slot],
            table.share_of_one_camera(number, {newest.camera: 1}),
        )  # fmt: skip
        reason = self._forbids(number, [newest])
        if reason is None and similarity is not None and similarity < POSSIBLE and not self._held(name, number):
            reason = "with more crops it is no nearer than strangers are"
        if reason is None:
            table.place(newest, number, feature, level)
            return ()
        new = table.new_number()
        table.place(newest, new, feature, level)
        return (Event(kind="split", person=new, tracklet=name, other=number, similarity=similarity, reason=reason),)

    def _alone_again(self, sighting: Sighting, number: int, feature: Feature) -> tuple[Event, ...]:
        """Give a person's only tracklet its number back; if it is surely somebody else's now, merge both."""
        cosines, level = self._compared(feature)
        found = self._sure(sighting, self._ranked(cosines, level, sighting.camera))
        self._table.place(sighting, number, feature, level)
        if found is None:
            return ()
        low, high = sorted((number, found[0]))
        event = self._merge(low, high, sighting.id, found[1], NEAR)
        return event, *self._merges(sighting.id, cosines)

    def _held(self, name: str, number: int) -> bool:
        """Return whether an operator has joined a tracklet with one of a person's."""
        group = self._joined.get(name)
        return group is not None and any(
            self._joined.get(other) == group for other in self._table.people[number].members
        )

    def _merges(self, tracklet: str, cosines: Floats32) -> tuple[Event, ...]:
        """Merge the tracklet's person with others near the tracklet, the nearest first."""
        events = []
        for slot in _largest(cosines, LOOKED_AT):
            number, other = self._table.person_of[tracklet], int(self._table.slots[slot])
            if other in (-1, number):
                continue
            mine = self._table.people[number].slot
            cosine = float(self._table.means[mine] @ self._table.means[slot])
            share = self._table.share_of_one_camera(number, self._table.people[other].cameras)
            similarity = self._similarity(cosine, self._table.levels[mine], self._table.levels[slot], share)
            if similarity is None or similarity < self.limit:
                continue
            if self._forbids_merge(number, other) is None:
                low, high = sorted((number, other))
                events.append(self._merge(low, high, tracklet, similarity, NEAR))
        return tuple(events)

    def _keep_apart(self, first: str, second: str) -> None:
        self._apart.setdefault(first, set()).add(second)
        self._apart.setdefault(second, set()).add(first)

    def _forbids(self, number: int, sightings: Iterable[Sighting]) -> str | None:
        """Return why tracklets cannot be of a person, or None."""
        person = self._table.people[number]
        return forbidden(person.members, person.spans, sightings, apart=self._apart, transits=self._transits)

    def _forbids_merge(self, one: int, other: int) -> str | None:
        """Return why two people cannot be one, or None; the tracklets of the one who has fewer are looked at."""
        fewer, more = sorted((one, other), key=lambda number: len(self._table.people[number].members))
        return self._forbids(more, self._table.members_of(fewer))

    # similarities

    def _centred(self, sighting: Sighting) -> Feature:
        unit: Feature = l2_normalised(sighting.feature[None].astype(np.float32))[0]
        return self._centring.applied_to(unit, sighting.camera, sighting.first_s)

    def _compared(self, feature: Feature) -> tuple[Floats32, float]:
        """Return the mean cosine with each person by slot, −inf where there is none, and the strangers' level."""
        used = self._table.used
        # not by BLAS: its threads wait for one another on a busy machine, and the product is bound by memory anyway
        cosines: Floats32 = np.einsum("sd,d->s", self._table.means[:used], feature)
        cosines[self._table.slots[:used] < 0] = -np.inf
        return cosines, float(self._levels_of(cosines[None])[0])

    def _levels_of(self, cosines: Floats32) -> Floats:
        """Return the levels of B tracklets, whose cosines with the people in each slot are B×S."""
        if self._background is None:
            return np.zeros(len(cosines))
        ranked = -np.partition(-cosines, PEOPLE_RANKS[1] - 1, axis=1)[:, : PEOPLE_RANKS[1]]
        ranked.sort(axis=1)
        ranked = ranked[:, : PEOPLE_RANKS[1] - PEOPLE_RANKS[0]].astype(np.float64)  # the nearest is last
        lowest = self._background.reached_by(sum(RANKS) / 2 / self._background.tracklets)
        known = np.isfinite(ranked)
        sums = np.where(known, ranked, 0).sum(axis=1)
        means = np.where(known.any(axis=1), sums / np.maximum(known.sum(axis=1), 1), lowest)
        return np.clip(means, lowest, lowest + SLACK * self._background.spread)

    def _ranked(self, cosines: Floats32, level: float, camera: str) -> list[tuple[int, float]]:
        """Return the people looked at and their relative similarities, the most similar first."""
        slots = [slot for slot in _largest(cosines, LOOKED_AT) if self._table.slots[slot] >= 0]
        numbers = [int(self._table.slots[slot]) for slot in slots]
        if self._background is None:
            return [(number, -np.inf) for number in numbers]
        levels = np.full(len(slots), level)
        similar = relative_similarity(cosines[slots], levels, self._table.levels[slots], self._background)
        similar -= SAME_CAMERA * np.array([self._table.share_of_one_camera(number, {camera: 1}) for number in numbers])
        return [(numbers[place], float(similar[place])) for place in np.argsort(-similar, kind="stable")]

    def _similarity(self, cosine: float, first: float, second: float, share: float) -> float | None:
        """Return the relative similarity of two groups of whose pairs a share is of one camera."""
        if self._background is None:
            return None
        return (cosine - (first + second) / 2) / self._background.spread - SAME_CAMERA * share

    def _refresh_levels(self) -> None:
        """Compute the levels of all tracklets from the people as they are."""
        table = self._table
        levels: dict[str, float] = {}
        used = np.flatnonzero(table.slots >= 0)
        column = {int(table.slots[slot]): place for place, slot in enumerate(used)}
        means, names = table.means[used].T, list(table.features)
        for start in range(0, len(names), BLOCK):
            some = names[start : start + BLOCK]
            cosines = np.stack([table.features[name] for name in some]) @ means
            cosines[np.arange(len(some)), [column[table.person_of[name]] for name in some]] = (
                np.inf
            )  # its own is nearest
            cosines = np.pad(cosines, ((0, 0), (0, PEOPLE_RANKS[1])), constant_values=-np.inf)
            levels.update(zip(some, self._levels_of(cosines).tolist(), strict=True))
        table.set_levels(levels)

    # what happens to people

    def _move(self, name: str, one: int, new: int, similarity: float | None, reason: str) -> Event:
        self._table.move(name, new)
        return Event(kind="split", person=new, tracklet=name, other=one, similarity=similarity, reason=reason)

    def _merge(self, stays: int, gone: int, tracklet: str, similarity: float | None, reason: str) -> Event:
        self._table.merge(stays, gone)
        return Event(kind="merged", person=stays, tracklet=tracklet, other=gone, similarity=similarity, reason=reason)


def _largest(cosines: Floats32, count: int) -> npt.NDArray[np.intp]:
    """Return the places of the largest values, largest first."""
    places = np.argpartition(cosines, -count)[-count:]
    return places[np.argsort(-cosines[places], kind="stable")]
