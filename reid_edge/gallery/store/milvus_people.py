"""People in Milvus, which has no transactions: entries beside the models and settings.

A change is written in an order that lets an interrupted one do no harm: numbers are taken first, so that none is given
twice, what operators said comes next, then each tracklet with its events, and the revision comes last, so that whoever
begins again finds what was written and goes on from there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

from reid_edge.errors import PeopleChangedError
from reid_edge.gallery.entries import Key
from reid_edge.gallery.store.milvus_client import ROWS, Row
from reid_edge.gallery.store.milvus_meta import Meta, entry_row
from reid_edge.gallery.store.people import AllPeople, Assignment, Decision, PeopleChange, PeopleState, PersonEvent

#: Kinds of entries.
STATE, ASSIGNMENT, DECISION, EVENT = "people", "assignment", "decision", "person event"


class MilvusPeople:
    """The people of a gallery in Milvus.

    Args:
        meta: Holds the entries.
        held: Returns, of those of some tracklets of which there are observations, the last sight.
    """

    def __init__(self, meta: Meta, held: Callable[[set[Key]], dict[Key, int]]) -> None:
        self._meta = meta
        self._held = held

    def state(self) -> PeopleState:
        """Return the state that a change is to be based on."""
        body = self._body()
        return PeopleState(body["revision"], body["next_person"])

    def assignments(self, person: int | None) -> list[Assignment]:
        """Return the assignments of all people, or of one."""
        found = [Assignment(**body) for body in self._meta.bodies(ASSIGNMENT).values()]
        chosen = [one for one in found if person in (None, one.person)]
        return sorted(chosen, key=lambda one: (one.person, one.first_us, one.tracklet))

    def decisions(self) -> list[Decision]:
        """Return what operators have said, oldest first."""
        found = [_decision(body) for body in self._meta.bodies(DECISION).values()]
        return sorted(found, key=lambda one: (one.at_us, one.first))

    def events(self, after: int, limit: int | None) -> list[PersonEvent]:
        """Return events with larger numbers than one, the smallest first."""
        found = [_event(body) for body in self._meta.bodies(EVENT, from_us=after + 1).values()]
        return sorted(found, key=lambda one: one.number)[:limit]

    def change(self, change: PeopleChange, revision: int) -> PeopleState:
        """Store a change, without what it says of tracklets that are not held any more.

        Raises:
            PeopleChangedError: Somebody else has changed people since.
        """
        old = self._body()
        if old["revision"] != revision:
            raise PeopleChangedError(
                "somebody else has changed the people of this gallery meanwhile; nothing was stored. Try again."
            )
        last_event, next_person = old["last_event"], max(old["next_person"], change.next_person)
        taken = {"revision": revision, "next_person": next_person, "last_event": last_event + len(change.events)}
        held = self._held_of(change)
        decisions, tracklets = _decision_rows(change, held), _tracklet_rows(change, held, last_event)
        self._meta.put(STATE, "state", taken)
        self._meta.remove_names(DECISION, [_pair(one) for one in change.withdrawn if not _replaced(one, change)])
        self._put_together([row] for row in decisions)
        self._put_together(tracklets)
        self._meta.put(STATE, "state", {**taken, "revision": revision + 1})
        return PeopleState(revision + 1, next_person)

    def restore(self, people: AllPeople) -> None:
        """Take over the people of another store into one that has none, with the numbers of their events."""
        taken = {"revision": people.state.revision, "next_person": people.state.next_person}
        self._meta.put(STATE, "state", {**taken, "last_event": people.last_event})
        change = PeopleChange(assignments=people.assignments, decisions=people.decisions, events=people.events)
        held = self._held_of(change)
        self._put_together([row] for row in _decision_rows(change, held))
        self._put_together(_tracklet_rows(change, held, None))
        taken["revision"] += 1
        self._meta.put(STATE, "state", {**taken, "last_event": people.last_event})

    @property
    def last_event(self) -> int:
        """Largest number that an event was given."""
        return self._body()["last_event"]

    def forget(self, deleted: Mapping[Key, int]) -> None:
        """Delete all that is known of tracklets that are not held any more.

        Of those whose last part was deleted, what was known by that part goes, and changes that knew it are refused.

        Args:
            deleted: Last sight in what was deleted of each tracklet.
        """
        if not deleted or self._meta.body(STATE, "state") is None:
            return
        held = self._held(set(deleted))
        gone = deleted.keys() - held.keys()
        cut = {key: last_us for key, last_us in held.items() if last_us < deleted[key]}
        if cut:
            body = self._body()
            self._meta.put(STATE, "state", {**body, "revision": body["revision"] + 1})
            known = self.assignments(None)
            gone |= {one.tracklet for one in known if one.last_us > cut.get(one.tracklet, one.last_us)}
        if not gone:
            return
        self._meta.remove_names(ASSIGNMENT, [_name(key) for key in gone])
        decisions = [one for one in self.decisions() if {one.first, one.second} & (gone - cut.keys())]
        self._meta.remove_names(DECISION, [_pair(one) for one in decisions])
        self._meta.remove_names(EVENT, [f"{one.number:012}" for one in self.events(0, None) if one.tracklet in gone])

    def expire(self, before_us: int) -> None:
        """Delete what is known of tracklets last seen before a time, of which nothing is held."""
        old = self._meta.bodies(ASSIGNMENT, before_us=before_us).values()
        self.forget({one.tracklet: one.last_us for one in (Assignment(**body) for body in old)})

    def _body(self) -> dict[str, int]:
        return self._meta.body(STATE, "state") or {"revision": 0, "next_person": 1, "last_event": 0}

    def _held_of(self, change: PeopleChange) -> set[Key]:
        """Return the tracklets that a change names and that are held."""
        named = {one.tracklet for one in change.assignments} | {one.tracklet for one in change.events}
        return set(self._held(named | {key for one in change.decisions for key in (one.first, one.second)}))

    def _put_together(self, groups: Iterable[list[Row]]) -> None:
        """Write groups of rows, the rows of a group in one call."""
        rows: list[Row] = []
        for group in groups:
            if len(rows) + len(group) > ROWS:
                self._meta.put_rows(rows)
                rows = []
            rows = rows + group
        self._meta.put_rows(rows)


def _decision_rows(change: PeopleChange, held: set[Key]) -> list[Row]:
    return [
        entry_row(DECISION, _pair(one), asdict(_ordered(one)), one.at_us)
        for one in change.decisions
        if {one.first, one.second} <= held
    ]


def _tracklet_rows(change: PeopleChange, held: set[Key], last_event: int | None) -> list[list[Row]]:
    """Return the assignment and the events of each tracklet: where one of them is stored, all are.

    Args:
        change: What is stored.
        held: The tracklets of which there are observations.
        last_event: Number after which those of the events begin; None: they have theirs.
    """
    rows: dict[Key, list[Row]] = defaultdict(list)
    for one in change.assignments:
        rows[one.tracklet].append(entry_row(ASSIGNMENT, _name(one.tracklet), asdict(one), one.last_us))
    for place, event in enumerate(change.events, 1):
        number = event.number if last_event is None else last_event + place
        rows[event.tracklet].append(entry_row(EVENT, f"{number:012}", asdict(replace(event, number=number)), number))
    return [group for tracklet, group in rows.items() if tracklet in held]


def of_one_outbox(tracklets: Iterable[Key]) -> dict[tuple[str, str], list[int]]:
    """Return the numbers of tracklets by camera and incarnation."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for camera, incarnation, track in sorted(tracklets):
        found[camera, incarnation].append(track)
    return found


def _replaced(one: Decision, change: PeopleChange) -> bool:
    return any(_pair(other) == _pair(one) for other in change.decisions)


def _name(tracklet: Key) -> str:
    return "/".join(map(str, tracklet))


def _ordered(one: Decision) -> Decision:
    first, second = sorted((one.first, one.second))
    return replace(one, first=first, second=second)


def _pair(one: Decision) -> str:
    return " ".join(sorted((_name(one.first), _name(one.second))))


def _decision(body: dict[str, Any]) -> Decision:
    return Decision(**{**body, "first": _key(body["first"]), "second": _key(body["second"])})


def _event(body: dict[str, Any]) -> PersonEvent:
    return PersonEvent(**{**body, "tracklet": _key(body["tracklet"])})


def _key(parts: list[Any]) -> Key:
    camera, incarnation, track = parts
    return camera, incarnation, track
