"""People in the SQL stores: their tables, and the statements that SQLite and PostgreSQL share."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Protocol

from reid_edge.errors import PeopleChangedError
from reid_edge.gallery.entries import Key
from reid_edge.gallery.store.people import AllPeople, Assignment, Decision, PeopleChange, PeopleState, PersonEvent


class Database(Protocol):
    """A connection to either engine, within a transaction."""

    def execute(self, sql: str, values: Any = ..., /) -> Any:
        """Run one statement and return its cursor."""


#: Fields of an assignment, in the order of the columns of its table; the incarnation's column is ``epoch``.
_COLUMNS = tuple("epoch" if field.name == "incarnation" else field.name for field in fields(Assignment))
_ASSIGNMENTS = ", ".join(_COLUMNS)
_DECISIONS = "kind, camera, epoch, track, other_camera, other_epoch, other_track, at_us, decided_by"
_EVENTS = "at_us, kind, person, model_hash, camera, epoch, track, other, similarity, reason"
_HELD = (
    "EXISTS (SELECT 1 FROM observations WHERE observations.camera = {0} AND observations.epoch = {0} "
    "AND observations.track = {0})"
)
#: Deletes what is known of tracklets by parts of them that were erased, which galleries before format 4 kept.
FORGET_CUT = (
    "DELETE FROM person_events WHERE EXISTS (SELECT 1 FROM assignments one WHERE one.camera = person_events.camera "
    "AND one.epoch = person_events.epoch AND one.track = person_events.track AND one.last_us > ("
    "SELECT max(held.last_us) FROM observations held "
    "WHERE held.camera = one.camera AND held.epoch = one.epoch AND held.track = one.track))",
    "DELETE FROM assignments WHERE last_us > (SELECT max(held.last_us) FROM observations held WHERE "
    "held.camera = assignments.camera AND held.epoch = assignments.epoch AND held.track = assignments.track)",
)


class SqlPeople(abc.ABC):
    """Base of the SQL stores; see :class:`reid_edge.gallery.store.people.PeopleStore` for the public methods.

    Attributes:
        mark: Placeholder of a value in the engine's statements.
        own_numbers: What an insertion of events with numbers says before their values.
        last_event: Query for the largest number that an event was given.
    """

    mark: str
    own_numbers: str = ""
    last_event: str

    @abc.abstractmethod
    def _begin_events_after(self, db: Any, number: int) -> None:
        """Give the next event a larger number than this one."""

    @abc.abstractmethod
    def _reading(self) -> contextlib.AbstractContextManager[Any]:
        """Begin a transaction that only reads."""

    @abc.abstractmethod
    def _many(self, db: Any, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of some rows of values."""

    @abc.abstractmethod
    def _writing(self) -> contextlib.AbstractContextManager[Any]:
        """Begin a transaction that writes; it is durable when it ends."""

    def _changing_people(self) -> contextlib.AbstractContextManager[Any]:
        """Begin a transaction that changes people, alone, and while nothing is erased."""
        return self._writing()

    def people_state(self) -> PeopleState:
        """Return the state that a change is to be based on."""
        with self._reading() as db:
            return _state(db)

    def assignments(self, person: int | None = None) -> list[Assignment]:
        """Return the assignments of all people, or of one, by person, first sight and tracklet."""
        with self._reading() as db:
            return assignments_of(db, "TRUE" if person is None else f"person = {int(person)}")

    def decisions(self) -> list[Decision]:
        """Return what operators have said, oldest first."""
        with self._reading() as db:
            return decisions_of(db)

    def person_events(self, after: int = 0, *, limit: int) -> list[PersonEvent]:
        """Return events with larger numbers than one, the smallest first."""
        with self._reading() as db:
            return events_of(db, f"number > {int(after)} ORDER BY number LIMIT {int(limit)}")

    def change_people(self, change: PeopleChange, *, revision: int) -> PeopleState:
        """Store a change in one commit."""
        with self._changing_people() as db:
            old = _state(db)
            if old.revision != revision:
                raise PeopleChangedError(
                    "somebody else has changed the people of this gallery meanwhile; nothing was stored. Try again."
                )
            self._many(db, self._put_assignment(), [_assignment_row(one) for one in change.assignments])
            self._many(db, self._withdraw_decision(), [_pair(one) for one in change.withdrawn])
            self._many(db, self._put_decision(), [_decision_row(one) for one in change.decisions])
            self._many(db, self._add_event(), [_event_row(one) for one in change.events])
            new = PeopleState(revision + 1, max(old.next_person, change.next_person))
            self._put_state(db, new)
        return new

    def restore_people(self, people: AllPeople) -> None:
        """Take over the people of another store into one that has none."""
        with self._changing_people() as db:
            self._many(db, self._put_assignment(), [_assignment_row(one) for one in people.assignments])
            self._many(db, self._put_decision(), [_decision_row(one) for one in people.decisions])
            rows = [(one.number, *_event_row(one)) for one in people.events]
            self._many(db, self._add_event(numbered=True), rows)
            self._begin_events_after(db, people.last_event)
            self._put_state(db, PeopleState(people.state.revision + 1, people.state.next_person))

    def _put_state(self, db: Database, state: PeopleState) -> None:
        db.execute("DELETE FROM people_state")
        db.execute(
            f"INSERT INTO people_state (revision, next_person) VALUES ({self.mark}, {self.mark})",  # noqa: S608
            (state.revision, state.next_person),
        )

    def _put_assignment(self) -> str:
        marks = [f"CAST({self.mark} AS double precision)" if one == "similarity" else self.mark for one in _COLUMNS]
        changes = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[3:])
        return (
            f"INSERT INTO assignments ({_ASSIGNMENTS}) SELECT {', '.join(marks)} WHERE {_HELD.format(self.mark)} "
            f"ON CONFLICT (camera, epoch, track) DO UPDATE SET {changes}"
        )

    def _put_decision(self) -> str:
        held = _HELD.format(self.mark)
        return (
            f"INSERT INTO decisions ({_DECISIONS}) SELECT {', '.join([self.mark] * 9)} WHERE {held} AND {held} "
            "ON CONFLICT (camera, epoch, track, other_camera, other_epoch, other_track) DO UPDATE SET "
            "kind = excluded.kind, at_us = excluded.at_us, decided_by = excluded.decided_by"
        )

    def _withdraw_decision(self) -> str:
        names = ("camera", "epoch", "track", "other_camera", "other_epoch", "other_track")
        return f"DELETE FROM decisions WHERE {' AND '.join(f'{name} = {self.mark}' for name in names)}"  # noqa: S608

    def _add_event(self, *, numbered: bool = False) -> str:
        marks = [self.mark] * 7 + [f"CAST({self.mark} AS bigint)", f"CAST({self.mark} AS double precision)", self.mark]
        names = f"number, {_EVENTS}) {self.own_numbers}" if numbered else f"{_EVENTS})"
        values = ", ".join([self.mark] * numbered + marks)
        return f"INSERT INTO person_events ({names} SELECT {values} WHERE {_HELD.format(self.mark)}"


def _assignment_row(one: Assignment) -> tuple[Any, ...]:
    return (*vars(one).values(), *one.tracklet)


def _decision_row(one: Decision) -> tuple[Any, ...]:
    return (one.kind, *_pair(one), one.at_us, one.by, *_pair(one))


def _pair(one: Decision) -> tuple[Any, ...]:
    first, second = sorted((one.first, one.second))
    return (*first, *second)


def _event_row(one: PersonEvent) -> tuple[Any, ...]:
    fields_ = (one.at_us, one.kind, one.person, one.model_hash, *one.tracklet, one.other, one.similarity, one.reason)
    return (*fields_, *one.tracklet)


def assignments_of(db: Database, where: str = "TRUE") -> list[Assignment]:
    """Return the assignments of a database within a transaction."""
    rows = db.execute(
        f"SELECT {_ASSIGNMENTS} FROM assignments WHERE {where} "  # noqa: S608 - no value from outside
        "ORDER BY person, first_us, camera, epoch, track"
    ).fetchall()
    names = [field.name for field in fields(Assignment)]
    return [Assignment(**dict(zip(names, row, strict=True))) for row in rows]


def decisions_of(db: Database) -> list[Decision]:
    """Return what operators have said, of a database within a transaction."""
    rows = db.execute(
        f"SELECT {_DECISIONS} FROM decisions ORDER BY at_us, camera, epoch, track"  # noqa: S608 - no value from outside
    ).fetchall()
    return [Decision(kind=row[0], first=_key(row[1:4]), second=_key(row[4:7]), at_us=row[7], by=row[8]) for row in rows]


def events_of(db: Database, where: str = "TRUE ORDER BY number") -> list[PersonEvent]:
    """Return the events of a database within a transaction."""
    rows = db.execute(f"SELECT number, {_EVENTS} FROM person_events WHERE {where}").fetchall()  # noqa: S608
    return [
        PersonEvent(
            number=row[0], at_us=row[1], kind=row[2], person=row[3], model_hash=row[4], tracklet=_key(row[5:8]),
            other=row[8], similarity=row[9], reason=row[10],
        )
        for row in rows
    ]  # fmt: skip


def all_people(db: Database, last_event: str) -> AllPeople:
    """Return all that a database holds of people, within a transaction; ``last_event`` is as in :class:`SqlPeople`."""
    events = events_of(db)
    (last,) = db.execute(last_event).fetchone()
    return AllPeople(
        state=_state(db),
        assignments=assignments_of(db),
        decisions=decisions_of(db),
        events=events,
        last_event=max([last or 0, *(one.number for one in events[-1:])]),
    )


def _state(db: Database) -> PeopleState:
    row = db.execute("SELECT revision, next_person FROM people_state").fetchone()
    return PeopleState() if row is None else PeopleState(*row)


def _key(row: Sequence[Any]) -> Key:
    camera, incarnation, track = row
    return camera, incarnation, track
