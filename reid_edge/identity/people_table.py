"""The table of live people: each one's tracklets, and the means that new tracklets are compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from reid_edge.identity.sightings import Sighting
from reid_edge.identity.spans import Spans
from reid_edge.types import Feature, Features

Floats = npt.NDArray[np.float64]


class Numbers:
    """Numbers of people, each given once; several tables may share them.

    Args:
        first: The first number that is free.

    Attributes:
        next: The next number that is free.
    """

    def __init__(self, first: int = 0) -> None:
        self.next = first

    def take(self, number: int) -> None:
        """Take note that a number is used."""
        self.next = max(self.next, number + 1)


@dataclass(eq=False)
class Person:
    """A live person.

    Attributes:
        slot: Its row in the table's arrays.
        members: Its tracklets by id.
        cameras: Number of them by camera.
        last_s: When it was last seen.
        spans: When its tracklets were in sight.
    """

    slot: int
    members: dict[str, Sighting] = field(default_factory=dict)
    spans: Spans = field(default_factory=Spans)
    cameras: Counter[str] = field(default_factory=Counter)
    last_s: float = -np.inf


class PeopleTable:
    """People in S slots, some of them free; the arrays grow as people come.

    Args:
        size: Numbers in a feature, D.
        numbers: Gives people their numbers.

    Attributes:
        people: People by number.
        person_of: Number of each tracklet's person.
        features: Centred feature of each tracklet.
        level_of: Level of the strangers most like each tracklet.
        means: S×D float32, mean feature of each person's tracklets.
        levels: S, mean level of each person's tracklets.
        slots: S, number of the person in each slot; -1 where it is free.
        used: Number of slots from the first one on that nobody beyond has ever used, at least 64.
    """

    def __init__(self, size: int, numbers: Numbers) -> None:
        self.people: dict[int, Person] = {}
        self.person_of: dict[str, int] = {}
        self.features: dict[str, Feature] = {}
        self.level_of: dict[str, float] = {}
        self.means: Features = np.zeros((64, size), np.float32)
        self.levels: Floats = np.zeros(64)
        self.slots: npt.NDArray[np.int64] = np.full(64, -1, np.int64)
        self.used = 64
        self._numbers = numbers
        self._free = list(range(63, -1, -1))

    def __len__(self) -> int:
        return len(self.people)

    def new_number(self) -> int:
        """Return a number that nobody has had; it is taken once a tracklet is placed under it."""
        return self._numbers.next

    def share_of_one_camera(self, number: int, cameras: Mapping[str, int]) -> float:
        """Return the share of the pairs of a person's tracklets with others that are of one camera.

        Args:
            number: The person.
            cameras: Number of the others by camera.
        """
        person = self.people[number]
        pairs = sum(count * person.cameras[camera] for camera, count in cameras.items())
        return pairs / (len(person.members) * sum(cameras.values()))

    def members_of(self, number: int) -> Iterator[Sighting]:
        """Yield the tracklets of a person."""
        yield from self.people[number].members.values()

    def place(self, sighting: Sighting, number: int, feature: Feature, level: float) -> None:
        """Give a tracklet to a person, who is made if there is no such person.

        Args:
            sighting: A tracklet that nobody has.
            number: Number of the person.
            feature: Its centred feature, D float32.
            level: Level of the strangers most like it.
        """
        person = self.people.get(number)
        if person is None:
            person = self.people[number] = Person(slot=self._new_slot())
            self.slots[person.slot] = number
            self._numbers.take(number)
        count = len(person.members)
        self.means[person.slot] = (count * self.means[person.slot] + feature) / (count + 1)
        self.levels[person.slot] = (count * self.levels[person.slot] + level) / (count + 1)
        person.members[sighting.id] = sighting
        person.spans.put(sighting)
        person.cameras[sighting.camera] += 1
        person.last_s = max(person.last_s, sighting.last_s)
        self.person_of[sighting.id] = number
        self.features[sighting.id], self.level_of[sighting.id] = feature, level

    def remove(self, name: str) -> None:
        """Take a tracklet away from its person, who goes if it was the only one."""
        number = self.person_of.pop(name)
        person = self.people[number]
        sighting = person.members.pop(name)
        person.spans.drop(sighting)
        person.cameras[sighting.camera] -= 1
        feature, level = self.features.pop(name), self.level_of.pop(name)
        if not person.members:
            self._drop(number)
            return
        count = len(person.members)
        self.means[person.slot] += (self.means[person.slot] - feature) / count
        self.levels[person.slot] += (self.levels[person.slot] - level) / count
        person.last_s = max(member.last_s for member in person.members.values())

    def move(self, name: str, number: int) -> None:
        """Give a person's tracklet to another person."""
        sighting = self.people[self.person_of[name]].members[name]
        feature, level = self.features[name], self.level_of[name]
        self.remove(name)
        self.place(sighting, number, feature, level)

    def merge(self, stays: int, gone: int) -> None:
        """Give all tracklets of one person to another."""
        kept, left = self.people[stays], self.people[gone]
        sizes = len(kept.members), len(left.members)
        share = sizes[0] / sum(sizes)
        self.means[kept.slot] = share * self.means[kept.slot] + (1 - share) * self.means[left.slot]
        self.levels[kept.slot] = share * self.levels[kept.slot] + (1 - share) * self.levels[left.slot]
        kept.members.update(left.members)
        for sighting in left.members.values():
            kept.spans.put(sighting)
        kept.cameras.update(left.cameras)
        kept.last_s = max(kept.last_s, left.last_s)
        self.person_of.update(dict.fromkeys(left.members, stays))
        self._drop(gone)

    def set_levels(self, levels: dict[str, float]) -> None:
        """Put other levels in place of those of all tracklets."""
        self.level_of = levels
        for person in self.people.values():
            self.levels[person.slot] = np.mean([levels[name] for name in person.members])

    def _drop(self, number: int) -> None:
        slot = self.people.pop(number).slot
        self.means[slot], self.levels[slot], self.slots[slot] = 0, 0, -1
        self._free.append(slot)

    def _new_slot(self) -> int:
        if not self._free:
            size = len(self.slots)
            self.means = np.concatenate([self.means, np.zeros_like(self.means)])
            self.levels = np.concatenate([self.levels, np.zeros(size)])
            self.slots = np.concatenate([self.slots, np.full(size, -1, np.int64)])
            self._free = list(range(2 * size - 1, size - 1, -1))
        slot = self._free.pop()
        self.used = max(self.used, slot + 1)
        return slot
