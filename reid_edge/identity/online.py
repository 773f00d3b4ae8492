"""People of tracklets as they come: each is assigned at once; people may later be merged or split, with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.errors import ContradictionError, MixedModelsError, NoSuchTrackletError
from reid_edge.features import l2_normalised
from reid_edge.identity.background import RANKS, SLACK, Background, relative_similarity
from reid_edge.identity.centring import Centring
from reid_edge.identity.clustering import POSSIBLE, People
from reid_edge.identity.constraints import seen_together
from reid_edge.identity.sightings import Sighting
from reid_edge.identity.transit import StatedTransits
from reid_edge.types import Feature

Floats = npt.NDArray[np.float64]
Kind = Literal["new", "assigned", "unsure", "merged", "split"]

#: Relative similarity from which a tracklet is a person's, or two people are one: higher than for all tracklets at
#: once, since an early error draws others after it (docs/identity.md).
SURE_AT_ONCE = 3.25
#: Ranks of the people who stand for strangers: the nearest is left out.
PEOPLE_RANKS = (1, 9)
#: Nearest people who are looked at for an assignment or a merge.
LOOKED_AT = 8


@dataclass(frozen=True, kw_only=True)
class Event:
    """What became of a tracklet, or of a person.

    Attributes:
        kind: ``new``: a person of its own, whom nobody resembles.  ``unsure``: the same, but others are near.
            ``assigned``: to a person who is known.  ``merged``: two people are one.  ``split``: a tracklet has left.
        person: Number of the person; after ``merged`` the one who stays, after ``split`` the new one.
        tracklet: The tracklet; of ``merged``, the one that was looked at.
        other: Of ``merged`` the person who is gone, of ``split`` the one who was left, of ``unsure`` the nearest.
        similarity: Relative similarity behind it; None: an operator's word, or nothing to compare with.
        reason: In words.
    """

    kind: Kind
    person: int
    tracklet: str
    other: int | None = None
    similarity: float | None = None
    reason: str


@dataclass(eq=False)
class _Person:
    slot: int
    members: dict[str, Sighting] = field(default_factory=dict)
    last_s: float = -np.inf


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
        above: Smallest relative similarity of an assignment or a merge.
    """

    def __init__(
        self,
        model_hash: str,
        centring: Centring,
        background: Background | None,
        *,
        transits: StatedTransits | None = None,
        above: float = SURE_AT_ONCE,
    ) -> None:
        if centring.model_hash != model_hash:
            raise MixedModelsError(f"the centring is of the model {centring.model_hash}, not of {model_hash}.")
        self._model_hash, self._centring, self._background = model_hash, centring, background
        self._transits, self._above = transits, above
        self._people: dict[int, _Person] = {}
        self._person_of: dict[str, int] = {}
        self._features: dict[str, Feature] = {}
        self._level_of: dict[str, float] = {}
        self._apart: set[tuple[str, str]] = set()
        self._next = 0
        size = len(centring.mean)
        self._means = np.zeros((64, size), np.float32)
        self._levels = np.zeros(64)
        self._numbers = np.full(64, -1, np.int64)
        self._free = list(range(63, -1, -1))

    @classmethod
    def continued(
        cls,
        people: People,
        sightings: Iterable[Sighting],
        *,
        transits: StatedTransits | None = None,
        above: float = SURE_AT_ONCE,
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
        for sighting in sightings:
            if sighting.id not in numbers:
                raise NoSuchTrackletError(f"{sighting.id} is not among the tracklets that were clustered.")
            online._place(sighting, numbers[sighting.id], online._centred(sighting), 0.0)
        online._refresh_levels()
        return online

    def __len__(self) -> int:
        return len(self._people)

    def person_of(self, tracklet: str) -> int:
        """Return the number of a tracklet's person.

        Raises:
            NoSuchTrackletError: It is not among those of live people.
        """
        if tracklet not in self._person_of:
            raise NoSuchTrackletError(
                f"the tracklet {tracklet} is of no live person; it was never added, or forgotten."
            )
        return self._person_of[tracklet]

    def members(self, person: int) -> tuple[str, ...]:
        """Return the tracklets of a person, in alphabetical order."""
        return tuple(sorted(self._people[person].members))

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
        if sighting.id in self._person_of:
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
        reason = self._forbids(one, self._people[other].members.values())
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
        self._apart |= {(first, second), (second, first)}
        if one != other:
            return ()
        new = self._new_number()
        features = self._features
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
        gone = tuple(number for number, person in self._people.items() if person.last_s < before_s)
        for number in gone:
            for name in list(self._people[number].members):
                self._remove(name)
        return gone

    # what becomes of one tracklet

    def _first(self, sighting: Sighting, feature: Feature) -> tuple[Event, ...]:
        cosines, level = self._compared(feature)
        nearest: tuple[int, float] | None = None
        for number, similarity in self._ranked(cosines, level):
            nearest = nearest or (number, similarity)
            if similarity < self._above:
                break
            if self._forbids(number, [sighting]) is None:
                self._place(sighting, number, feature, level)
                event = Event(
                    kind="assigned",
                    person=number,
                    tracklet=sighting.id,
                    similarity=similarity,
                    reason="nearer than strangers are",
                )
                return event, *self._merges(sighting.id, cosines)
        number = self._new_number()
        self._place(sighting, number, feature, level)
        return (self._own(number, sighting.id, nearest),)

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
        number = self._person_of[sighting.id]
        known = self._people[number].members[sighting.id]
        if known.camera != sighting.camera:
            raise ContradictionError(f"the tracklet {sighting.id} is of {known.camera}, not of {sighting.camera}.")
        joined = _joined(known, sighting)
        feature = self._features[sighting.id] if joined.feature is known.feature else self._centred(joined)
        level = self._level_of[sighting.id]
        self._remove(sighting.id)
        if number not in self._people:  # it was the only one
            return self._first(joined, feature)
        reason = self._forbids(number, [joined])
        person = self._people[number]
        similarity = self._similarity(float(self._means[person.slot] @ feature), level, self._levels[person.slot])
        if reason is None and (similarity is None or similarity >= POSSIBLE):
            self._place(joined, number, feature, level)
            return ()
        new = self._new_number()
        self._place(joined, new, feature, level)
        reason = reason or "with more crops it is no nearer than strangers are"
        return (
            Event(kind="split", person=new, tracklet=joined.id, other=number, similarity=similarity, reason=reason),
        )

    def _merges(self, tracklet: str, cosines: npt.NDArray[np.float32]) -> tuple[Event, ...]:
        """Merge the tracklet's person with others near the tracklet, the nearest first."""
        events = []
        for slot in _largest(cosines, LOOKED_AT):
            number, other = self._person_of[tracklet], int(self._numbers[slot])
            if other in (-1, number):
                continue
            mine = self._people[number].slot
            cosine = float(self._means[mine] @ self._means[slot])
            similarity = self._similarity(cosine, self._levels[mine], self._levels[slot])
            if similarity is None or similarity < self._above:
                continue
            if self._forbids(number, self._people[other].members.values()) is None:
                low, high = sorted((number, other))
                events.append(self._merge(low, high, tracklet, similarity, "nearer than strangers are"))
        return tuple(events)

    def _forbids(self, number: int, sightings: Iterable[Sighting]) -> str | None:
        """Return why tracklets cannot be of a person, or None."""
        members = self._people[number].members
        for sighting in sightings:
            for name, member in members.items():
                if self._apart and (name, sighting.id) in self._apart:
                    return "an operator says that they are not the same"
                if member.camera == sighting.camera:
                    if seen_together(member, sighting):
                        return "one camera saw both at the same time"
                elif self._transits is not None and self._transits.too_fast(member, sighting):
                    return "nobody gets from one camera to the other in that time"
        return None

    # similarities

    def _centred(self, sighting: Sighting) -> Feature:
        unit: Feature = l2_normalised(sighting.feature[None].astype(np.float32))[0]
        return self._centring.applied_to(unit, sighting.camera)

    def _compared(self, feature: Feature) -> tuple[npt.NDArray[np.float32], float]:
        """Return the mean cosine with each person by slot, −inf where there is none, and the strangers' level."""
        cosines = self._means @ feature
        cosines[self._numbers < 0] = -np.inf
        return cosines, self._level(cosines)

    def _level(self, cosines: npt.NDArray[np.float32]) -> float:
        if self._background is None:
            return 0.0
        ranked = cosines[_largest(cosines, PEOPLE_RANKS[1])][PEOPLE_RANKS[0] :]
        ranked = ranked[np.isfinite(ranked)]
        lowest = self._background.reached_by(sum(RANKS) / 2 / self._background.tracklets)
        mean = float(ranked.mean()) if len(ranked) else lowest
        return float(np.clip(mean, lowest, lowest + SLACK * self._background.spread))

    def _ranked(self, cosines: npt.NDArray[np.float32], level: float) -> list[tuple[int, float]]:
        """Return the people looked at and their relative similarities, the most similar first."""
        slots = [slot for slot in _largest(cosines, LOOKED_AT) if self._numbers[slot] >= 0]
        if self._background is None:
            return [(int(self._numbers[slot]), -np.inf) for slot in slots]
        similar = relative_similarity(cosines[slots], np.full(len(slots), level), self._levels[slots], self._background)
        order = np.argsort(-similar, kind="stable")
        return [(int(self._numbers[slots[place]]), float(similar[place])) for place in order]

    def _similarity(self, cosine: float, first: float, second: float) -> float | None:
        if self._background is None:
            return None
        return (cosine - (first + second) / 2) / self._background.spread

    def _refresh_levels(self) -> None:
        for name, feature in self._features.items():
            own = self._people[self._person_of[name]].slot
            cosines = self._means @ feature
            cosines[self._numbers < 0] = -np.inf
            cosines[own] = np.inf  # the person itself is the nearest
            self._level_of[name] = self._level(cosines)
        for person in self._people.values():
            self._levels[person.slot] = np.mean([self._level_of[name] for name in person.members])

    # who has what

    def _new_number(self) -> int:
        return max(self._next, max(self._people, default=-1) + 1)

    def _place(self, sighting: Sighting, number: int, feature: Feature, level: float) -> None:
        person = self._people.get(number)
        if person is None:
            person = self._people[number] = _Person(slot=self._new_slot())
            self._numbers[person.slot] = number
            self._next = max(self._next, number + 1)
        count = len(person.members)
        self._means[person.slot] = (count * self._means[person.slot] + feature) / (count + 1)
        self._levels[person.slot] = (count * self._levels[person.slot] + level) / (count + 1)
        person.members[sighting.id] = sighting
        person.last_s = max(person.last_s, sighting.last_s)
        self._person_of[sighting.id] = number
        self._features[sighting.id], self._level_of[sighting.id] = feature, level

    def _remove(self, name: str) -> None:
        number = self._person_of.pop(name)
        person = self._people[number]
        del person.members[name]
        feature, level = self._features.pop(name), self._level_of.pop(name)
        if not person.members:
            self._drop(number)
            return
        count = len(person.members)
        self._means[person.slot] += (self._means[person.slot] - feature) / count
        self._levels[person.slot] += (self._levels[person.slot] - level) / count
        person.last_s = max(member.last_s for member in person.members.values())

    def _move(self, name: str, one: int, new: int, similarity: float | None, reason: str) -> Event:
        sighting, feature = self._people[one].members[name], self._features[name]
        level = self._level_of[name]
        self._remove(name)
        self._place(sighting, new, feature, level)
        return Event(kind="split", person=new, tracklet=name, other=one, similarity=similarity, reason=reason)

    def _merge(self, stays: int, gone: int, tracklet: str, similarity: float | None, reason: str) -> Event:
        kept, left = self._people[stays], self._people[gone]
        sizes = len(kept.members), len(left.members)
        share = sizes[0] / sum(sizes)
        self._means[kept.slot] = share * self._means[kept.slot] + (1 - share) * self._means[left.slot]
        self._levels[kept.slot] = share * self._levels[kept.slot] + (1 - share) * self._levels[left.slot]
        kept.members.update(left.members)
        kept.last_s = max(kept.last_s, left.last_s)
        self._person_of.update(dict.fromkeys(left.members, stays))
        self._drop(gone)
        return Event(kind="merged", person=stays, tracklet=tracklet, other=gone, similarity=similarity, reason=reason)

    def _drop(self, number: int) -> None:
        slot = self._people.pop(number).slot
        self._means[slot], self._levels[slot], self._numbers[slot] = 0, 0, -1
        self._free.append(slot)

    def _new_slot(self) -> int:
        if not self._free:
            size = len(self._numbers)
            self._means = np.concatenate([self._means, np.zeros_like(self._means)])
            self._levels = np.concatenate([self._levels, np.zeros(size)])
            self._numbers = np.concatenate([self._numbers, np.full(size, -1, np.int64)])
            self._free = list(range(2 * size - 1, size - 1, -1))
        return self._free.pop()


def _largest(cosines: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Return the places of the largest values, largest first."""
    places = np.argpartition(cosines, -count)[-count:]
    return places[np.argsort(-cosines[places], kind="stable")]


def _joined(known: Sighting, newer: Sighting) -> Sighting:
    """Return one sighting of two of the same tracklet, as ``sightings.gathered`` joins them."""
    best = max(known, newer, key=lambda one: (one.crops, one.last_s))
    boxes = [one.boxes for one in (known, newer) if one.boxes is not None]
    return replace(
        best,
        first_s=min(known.first_s, newer.first_s),
        last_s=max(known.last_s, newer.last_s),
        boxes=np.unique(np.concatenate(boxes), axis=0) if boxes else None,
    )
