"""The people of one model, and how they change: all tracklets together, or one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from reid_edge.gallery.held_tracklets import HeldTracklet, name_of
from reid_edge.gallery.store.people import Assignment, Decision, How, PersonEvent
from reid_edge.identity.background import LEAST_TRACKLETS, measured_background
from reid_edge.identity.centring import LEAST_FOR_MOVED
from reid_edge.identity.clustering import People, clustered
from reid_edge.identity.constraints import CannotLink, OperatorConstraints, Pair
from reid_edge.identity.events import Event
from reid_edge.identity.known_pairs import KnownPairs
from reid_edge.identity.moves import centring_by_view, moves
from reid_edge.identity.online import NEAR, OnlinePeople
from reid_edge.identity.people_table import Numbers
from reid_edge.identity.sightings import Sighting, gathered
from reid_edge.identity.transit import StatedTransits, doubtful_pairs
from reid_edge.types import Feature

#: Tracklets of a camera from which its mean helps (measured: docs/identity.md).
ENOUGH_FOR_A_MEAN = 40
UNSURE = "somebody is near, but not surely the same"
ALONE = "nobody is near"
SAID_SAME = "an operator says that they are the same"
TOGETHER_AGAIN = "all tracklets were compared again"


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What assignments are made under.

    Attributes:
        model_hash: The model of the features.
        operator: What operators have said.
        transits: Stated times between cameras; None: none.
        numbers: Gives people their numbers.
        calibration: Version of the calibration; "" for none.
        calibrated_us: When it was made; 0 for none.
        known: Labelled pairs that it was made with; None: none.
    """

    model_hash: str
    operator: OperatorConstraints
    transits: StatedTransits | None
    numbers: Numbers
    calibration: str = ""
    calibrated_us: int = 0
    known: KnownPairs | None = None

    @property
    def strangers(self) -> float:
        """How many times more strangers there are than usual."""
        return 1.0 if self.known is None else self.known.strangers


@dataclass(frozen=True)
class Changes:
    """What is to be stored.

    Attributes:
        limit: Relative similarity from which tracklets were joined; infinite: nothing was enough; None: not known.
        moved: When cameras were moved, seconds since 1970 UTC, ascending, by name.
        doubtful: Pairs of cameras whose stated time sure matches contradict.
        assignments: New and changed ones by the tracklet's name.
        events: What became of people.
    """

    limit: float | None = None
    moved: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    doubtful: tuple[Pair, ...] = ()
    assignments: dict[str, Assignment] = field(default_factory=dict)
    events: list[PersonEvent] = field(default_factory=list)


def constraints_of(decisions: Sequence[Decision]) -> OperatorConstraints:
    """Return what operators have said as constraints on tracklets' names.

    Raises:
        ContradictionError: Their decisions contradict one another.
    """
    pairs: dict[str, list[Pair]] = {"same": [], "not same": []}
    for one in decisions:
        pairs[one.kind].append((name_of(one.first), name_of(one.second)))
    return OperatorConstraints(same=tuple(pairs["same"]), not_same=tuple(pairs["not same"]))


def assigned_together(
    held: Mapping[str, HeldTracklet], known: Mapping[str, Assignment], given: Circumstances, *, at_us: int
) -> Changes:
    """Assign all tracklets at once; people whose tracklets stay together keep their numbers.

    Args:
        held: All tracklets of the model by name, at least one.
        known: Those of them that have a person.
        given: The circumstances.
        at_us: The time.

    Raises:
        ContradictionError: Operators join tracklets that cannot be one person.
    """
    sightings = gathered(one.sighting for one in held.values())
    cannot_link = CannotLink(sightings, operator=given.operator, transits=given.transits)
    people = clustered(sightings, cannot_link=cannot_link, strangers=given.strangers)
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(people.people.tolist()):
        groups.setdefault(group, []).append(row)
    numbers = _numbers(groups, people, known, given.numbers)
    limit = people.limit if people.background is not None else None
    doubtful = () if given.transits is None else doubtful_pairs(given.transits, sightings, people.matches)
    changes = Changes(limit=limit, moved=people.centring.moves, doubtful=doubtful)
    for group, rows in groups.items():
        for row in rows:
            how, similarity, reason = _how(people, row, len(rows), given.operator)
            tracklet = held[people.ids[row]]
            changes.assignments[people.ids[row]] = _assignment(
                tracklet, numbers[group], how, similarity, reason, people.centring.version, given, at_us
            )
    changes.events.extend(_differences(changes.assignments, known, at_us))
    return changes


class OnlinePopulation:
    """People of one model to whom tracklets are added one at a time; to be used by one thread.

    Args:
        held: Tracklets of the model by name, at least one, from which centring and background are learnt.
        known: The assignments of those that have a person.
        given: The circumstances.

    Attributes:
        assignments: All assignments by the tracklet's name.
        learnt_from: Number of tracklets that centring and background were learnt from.
        moved: When cameras were moved before that, seconds since 1970 UTC, ascending, by name.
        moved_since: Whether a camera was moved after that.
    """

    def __init__(self, held: Mapping[str, HeldTracklet], known: Mapping[str, Assignment], given: Circumstances) -> None:
        sightings = gathered(one.sighting for one in held.values())
        centring = centring_by_view(sightings)
        order = sightings.order()
        enough = len(sightings) >= LEAST_TRACKLETS
        background = measured_background(centring.applied(sightings)[order]) if enough else None
        self._given, self._centring = given, centring.version
        self._online = OnlinePeople(
            given.model_hash,
            centring,
            background,
            transits=given.transits,
            operator=given.operator,
            numbers=given.numbers,
            strangers=given.strangers,
        )
        self._online.load((held[name].sighting, one.person) for name, one in known.items() if name in held)
        self.assignments = {name: one for name, one in known.items() if name in held}
        self.learnt_from = len(sightings)
        self.moved, self.moved_since = centring.moves, False
        self._learnt = frozenset(held)
        self._learnt_of = Counter(sightings.cameras)
        self._come_of: Counter[str] = Counter()
        self._looked_at_of: Counter[str] = Counter()
        self._compared, self._come = len(sightings), 0

    def __len__(self) -> int:
        return len(self.assignments)

    @property
    def limit(self) -> float | None:
        """Relative similarity from which tracklets are joined; None: too little is known of strangers."""
        return self._online.limit if self.learnt_from >= LEAST_TRACKLETS else None

    @property
    def outgrown(self) -> bool:
        """Whether as many tracklets have come as there were when people were read: all are to be compared again."""
        return self._come >= max(self._compared, LEAST_TRACKLETS - self._compared)

    @property
    def has_new_camera(self) -> bool:
        """Whether a camera of which little was known has enough tracklets by now for a mean of its own."""
        return any(
            self._learnt_of[camera] < ENOUGH_FOR_A_MEAN
            and come >= max(self._learnt_of[camera], ENOUGH_FOR_A_MEAN - self._learnt_of[camera])
            for camera, come in self._come_of.items()
        )

    def learnt_again(self, given: Circumstances) -> OnlinePopulation:
        """Return the same people, with centring and background learnt from the tracklets that they have now.

        Args:
            given: The circumstances; there is at least one tracklet.
        """
        held = {}
        for sighting in self._online.sightings():
            one = self.assignments[sighting.id]
            held[sighting.id] = HeldTracklet(one.tracklet, sighting, one.seq, one.first_us, one.last_us)
        new = OnlinePopulation(held, self.assignments, given)
        if not self.outgrown:  # else this is what they have outgrown
            new._compared, new._come = self._compared, self._come
        return new

    def moved_after(self, before: Mapping[str, tuple[float, ...]]) -> dict[str, float]:
        """Return when cameras were moved again after moments known before, seconds since 1970 UTC, by name.

        As more tracklets come, the moment of a move is estimated anew: a move is another only if 20 or more tracklets
        of the camera lie between the two moments.
        """
        return {
            camera: times[-1]
            for camera, times in self.moved.items()
            if self._another_move(camera, times, before.get(camera, ()))
        }

    def of_people_in(self, decisions: Iterable[Decision]) -> list[Assignment]:
        """Return the assignments of the people whose tracklets decisions are about."""
        named = {name_of(key) for one in decisions for key in (one.first, one.second)}
        people = {self.assignments[name].person for name in named if name in self.assignments}
        return [self.assignments[name] for person in sorted(people) for name in self._online.members(person)]

    def features_of(self, assignments: Iterable[Assignment]) -> dict[str, Feature]:
        """Return the centred features of tracklets of these people, D float32, by name."""
        return {name: self._online.feature_of(name) for name in (name_of(one.tracklet) for one in assignments)}

    def follow(self, operator: OperatorConstraints) -> None:
        """Respect what operators have said, in place of what they had said before."""
        self._online.follow(operator)

    def add(self, tracklet: HeldTracklet, changes: Changes, *, at_us: int) -> None:
        """Assign a tracklet, or what is newly known of one; note in ``changes`` what is to be stored.

        What brings nothing newer than what is known, as an observation that was sent twice, changes nothing.
        """
        name = tracklet.sighting.id
        known = self.assignments.get(name)
        if known is not None and tracklet.seq <= known.seq:
            return
        came_since = name not in self._learnt and known is None
        events = self._online.add(tracklet.sighting)
        if came_since:
            self._come += 1
            self._come_of[tracklet.key[0]] += 1
            self._look_for_a_move(tracklet.key[0])
        if known is not None:
            self._put(name, self._continued(known, tracklet, events, at_us), changes)
        for event in events:
            if event.kind == "merged":
                self._merge(event.person, changes)
            else:
                how: How = "assigned" if event.kind == "assigned" else "unsure" if event.kind == "unsure" else "new"
                similarity = None if event.similarity is None else float(event.similarity)
                new = _assignment(
                    tracklet, event.person, how, similarity, event.reason, self._centring, self._given, at_us
                )
                self._put(name, new, changes)
            changes.events.append(self._stored_event(event, tracklet, at_us))

    def remove(self, names: Iterable[str]) -> None:
        """Forget tracklets that are not held any more."""
        for name in names:
            self.assignments.pop(name, None)
            self._online.remove(name)

    def _look_for_a_move(self, camera: str) -> None:
        """Note whether a camera was moved, each time that an eighth more of its tracklets has come."""
        come, looked_at = self._come_of[camera], self._looked_at_of[camera]
        if come - looked_at < max(LEAST_FOR_MOVED, (self._learnt_of[camera] + looked_at) // 8):
            return
        self._looked_at_of[camera] = come
        found = moves(gathered(self._sightings_of(camera))).get(camera, ())
        self.moved_since |= self._another_move(camera, found, self.moved.get(camera, ()))

    def _another_move(self, camera: str, found: Sequence[float], known: Sequence[float]) -> bool:
        """Return whether the last moment found is another move than the last one known."""
        if not found or not known:
            return len(found) > 0
        between = sum(known[-1] <= one.first_s < found[-1] for one in self._sightings_of(camera))
        return between >= LEAST_FOR_MOVED

    def _sightings_of(self, camera: str) -> list[Sighting]:
        return [one for one in self._online.sightings() if one.camera == camera]

    def _continued(self, old: Assignment, tracklet: HeldTracklet, events: Sequence[Event], at_us: int) -> Assignment:
        """Return a tracklet's assignment with what is newly known of it, and how that has brought it to others."""
        new = replace(old, seq=tracklet.seq, last_us=max(old.last_us, tracklet.last_us),
                      first_us=min(old.first_us, tracklet.first_us))  # fmt: skip
        if not events or events[0].kind != "merged":
            return new
        similarity = None if events[0].similarity is None else float(events[0].similarity)
        return replace(new, how="assigned", similarity=similarity, reason=events[0].reason, centring=self._centring,
                       calibration=self._given.calibration, at_us=at_us)  # fmt: skip

    def _put(self, name: str, assignment: Assignment, changes: Changes) -> None:
        self.assignments[name] = changes.assignments[name] = assignment

    def _merge(self, person: int, changes: Changes) -> None:
        for name in self._online.members(person):
            old = self.assignments.get(name)
            if old is not None and old.person != person:
                self._put(name, replace(old, person=person), changes)

    def _stored_event(self, event: Event, tracklet: HeldTracklet, at_us: int) -> PersonEvent:
        return PersonEvent(
            at_us=at_us,
            kind="seen again" if event.kind == "assigned" else "new" if event.kind == "unsure" else event.kind,
            person=event.person,
            model_hash=self._given.model_hash,
            tracklet=tracklet.key,
            other=event.other,
            similarity=None if event.similarity is None else float(event.similarity),
            reason=event.reason,
        )


def _assignment(
    tracklet: HeldTracklet,
    person: int,
    how: How,
    similarity: float | None,
    reason: str,
    centring: str,
    given: Circumstances,
    at_us: int,
) -> Assignment:
    camera, incarnation, track = tracklet.key
    return Assignment(
        camera=camera,
        incarnation=incarnation,
        track=track,
        person=person,
        model_hash=given.model_hash,
        seq=tracklet.seq,
        first_us=tracklet.first_us,
        last_us=tracklet.last_us,
        how=how,
        similarity=similarity,
        reason=reason,
        centring=centring,
        calibration=given.calibration,
        at_us=at_us,
    )


def _how(people: People, row: int, size: int, operator: OperatorConstraints) -> tuple[How, float | None, str]:
    """Return how a tracklet came to its group of so many, how similar it is, and the reason."""
    if size > 1:
        agreement = _finite(people.agreement[row])
        said = people.ids[row] in operator.groups
        return ("operator", agreement, SAID_SAME) if said else ("assigned", agreement, NEAR)
    unsure = people.states[row] == "unsure"
    return "unsure" if unsure else "new", _finite(people.nearest[row]), UNSURE if unsure else ALONE


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _numbers(
    groups: Mapping[int, list[int]], people: People, known: Mapping[str, Assignment], numbers: Numbers
) -> dict[int, int]:
    """Return the number of each group: that of the person of whom it has most tracklets, or a new one."""
    shared: Counter[tuple[int, int]] = Counter()
    for group, rows in groups.items():
        shared.update((group, known[people.ids[row]].person) for row in rows if people.ids[row] in known)
    found: dict[int, int] = {}
    used: set[int] = set()
    for (group, person), _ in sorted(shared.items(), key=lambda item: (-item[1], item[0][1], item[0][0])):
        if group not in found and person not in used:
            found[group] = person
            used.add(person)
    for group in groups:
        if group not in found:
            found[group] = numbers.next
            numbers.take(numbers.next)
    return found


def _differences(new: Mapping[str, Assignment], known: Mapping[str, Assignment], at_us: int) -> Iterable[PersonEvent]:
    """Yield what became of people, in the order in which their tracklets were first seen."""
    people = {one.person for one in new.values()}
    seen = {known[name].person for name in new if name in known}
    merged: set[tuple[int, int]] = set()
    for name, one in sorted(new.items(), key=lambda item: (item[1].first_us, item[0])):
        old = known.get(name)
        usual = PersonEvent(
            at_us=at_us, kind="new", person=one.person, model_hash=one.model_hash, tracklet=one.tracklet,
            similarity=one.similarity, reason=one.reason,
        )  # fmt: skip
        if old is None:
            again = one.person in seen
            seen.add(one.person)
            yield replace(usual, kind="seen again") if again else usual
        elif old.person != one.person and old.person in people:
            yield replace(usual, kind="split", other=old.person, reason=TOGETHER_AGAIN)
        elif old.person != one.person and (one.person, old.person) not in merged:
            merged.add((one.person, old.person))
            yield replace(usual, kind="merged", other=old.person)
