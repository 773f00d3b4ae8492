"""People in Milvus, which has no transactions: entries beside the models and settings.

A change is written in an order that lets an interrupted one do no harm: numbers are taken first, so that none is given
twice, what operators said comes next, then each tracklet with its events, and the revision comes last, so that whoever
begins again finds what was written and goes on from there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

from reid_edge.errors import PeopleChangedError
from reid_edge.gallery.entries import Key
from reid_edge.gallery.store.milvus_client import ROWS, Row
from reid_edge.gallery.store.milvus_meta import Meta, entry_row
from reid_edge.gallery.store.people import Assignment, Decision, PeopleChange, PeopleState, PersonEvent

#: Kinds of entries.
STATE, ASSIGNMENT, DECISION, EVENT = "people", "assignment", "decision", "person event"


class MilvusPeople:
    """The people of a gallery in Milvus.

    Args:
        meta: Holds the entries.
        held: Returns those of some tracklets of which there are observations.
    """

    def __init__(self, meta: Meta, held: Callable[[set[Key]], set[Key]]) -> None:
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

    def forget(self, tracklets: Iterable[Key]) -> None:
        """Delete all that is known of those of some tracklets that are not held any more."""
        asked = set(tracklets)
        if not asked or self._meta.body(STATE, "state") is None:
            return
        gone = asked - self._held(asked)
        if not gone:
            return
        self._meta.remove_names(ASSIGNMENT, [_name(key) for key in gone])
        decisions = [one for one in self.decisions() if one.first in gone or one.second in gone]
        self._meta.remove_names(DECISION, [_pair(one) for one in decisions])
        self._meta.remove_names(EVENT, [f"{one.number:012}" for one in self.events(0, None) if one.tracklet in gone])

    def expire(self, before_us: int) -> None:
        """Delete what is known of tracklets last seen before a time, of which nothing is held."""
        old = self._meta.bodies(ASSIGNMENT, before_us=before_us).values()
        self.forget([Assignment(**body).tracklet for body in old])

    def _body(self) -> dict[str, int]:
        return self._meta.body(STATE, "state") or {"revision": 0, "next_person": 1, "last_event": 0}

    def _held_of(self, change: PeopleChange) -> set[Key]:
        """Return the tracklets that a change names and that are held."""
        named = {one.tracklet for one in change.assignments} | {one.tracklet for one in change.events}
        return self._held(named | {key for one in change.decisions for key in (one.first, one.second)})

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


def _tracklet_rows(change: PeopleChange, held: set[Key], last_event: int) -> list[list[Row]]:
    """Return the assignment and the events of each tracklet: where one of them is stored, all are."""
    rows: dict[Key, list[Row]] = defaultdict(list)
    for one in change.assignments:
        rows[one.tracklet].append(entry_row(ASSIGNMENT, _name(one.tracklet), asdict(one), one.last_us))
    for number, event in enumerate(change.events, last_event + 1):
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
