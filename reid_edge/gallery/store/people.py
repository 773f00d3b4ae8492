"""Records of people, as every store keeps them: which tracklets each has, what operators decided, and events.

All of them are of tracklets.  They go with these, however these are deleted: a person without tracklets is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from reid_edge.gallery.entries import Key

#: How a tracklet came to its person.  ``new``: nobody was near.  ``unsure``: somebody was near, but not surely the
#: same.  ``assigned``: it is nearer to the person's other tracklets than strangers are.  ``operator``: an operator
#: said so.
How = Literal["new", "unsure", "assigned", "operator"]
EventKind = Literal["new", "seen again", "merged", "split"]
DecisionKind = Literal["same", "not same"]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A tracklet and the person whose it is.

    Attributes:
        camera: Camera of the tracklet.
        incarnation: Its incarnation; ``epoch`` in stores.
        track: Its number.
        person: Number of the person, from 1; it is given once.
        model_hash: The model of its features: people of different models are different people.
        seq: Number of the newest observation that was looked at.
        first_us: First sight of the tracklet.
        last_us: Last sight of it so far.
        how: How it came to the person.
        similarity: Relative similarity to the person's other tracklets; to the nearest person where it is the only one;
            None: nothing to compare with.
        reason: In words.
        centring: Version of the centring under which it was compared.
        calibration: Version of the calibration at that time; "" for none.
        at_us: Time of the assignment.
    """

    camera: str
    incarnation: str
    track: int
    person: int
    model_hash: str
    seq: int
    first_us: int
    last_us: int
    how: How
    similarity: float | None
    reason: str
    centring: str
    calibration: str
    at_us: int

    @property
    def tracklet(self) -> Key:
        """Camera, incarnation, track."""
        return self.camera, self.incarnation, self.track

    @property
    def id(self) -> str:
        """Id of the tracklet's newest observation, by which commands ask for it: ``camera/epoch/seq``."""
        return f"{self.camera}/{self.incarnation}/{self.seq}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What an operator has said of two tracklets.

    Attributes:
        kind: ``same``: they are one person.  ``not same``: they are two.
        first: The one.
        second: The other.
        at_us: When.
        by: Operating system user.
    """

    kind: DecisionKind
    first: Key
    second: Key
    at_us: int
    by: str


@dataclass(frozen=True, kw_only=True)
class PersonEvent:
    """What became of a person.

    Attributes:
        number: Number of the event, rising; 0: the store gives it one.
        at_us: When it was found out.
        kind: ``new``: a person of one tracklet.  ``seen again``: one more tracklet.  ``merged``: two people are one.
            ``split``: a tracklet has left a person.
        person: The person; after ``merged`` the one who stays, after ``split`` the one to whom the tracklet went.
        model_hash: The model of the features.
        tracklet: The tracklet; of ``merged``, one that is of both.
        other: Of ``merged`` the person who is gone, of ``split`` the one who was left, of ``new`` somebody who is near.
        similarity: Relative similarity behind it; None: an operator's word, or nothing to compare with.
        reason: In words.
    """

    number: int = 0
    at_us: int
    kind: EventKind
    person: int
    model_hash: str
    tracklet: Key
    other: int | None = None
    similarity: float | None = None
    reason: str


@dataclass(frozen=True)
class PeopleState:
    """What changes with every change of people.

    Attributes:
        revision: Number of changes so far.
        next_person: Number that the next new person gets.
    """

    revision: int = 0
    next_person: int = 1


@dataclass(frozen=True, kw_only=True)
class PeopleChange:
    """A change of people, stored as a whole or not at all.

    Attributes:
        assignments: Put in place of those of the same tracklets.
        decisions: Put in place of those of the same tracklets.
        withdrawn: Decisions that are deleted, before others are put.
        events: What became of people by it, without numbers.
        next_person: Number that the next new person gets.
    """

    assignments: Sequence[Assignment] = ()
    decisions: Sequence[Decision] = ()
    withdrawn: Sequence[Decision] = ()
    events: Sequence[PersonEvent] = ()
    next_person: int = 1


@dataclass(frozen=True, kw_only=True)
class AllPeople:
    """All that a store holds of people, as a backup takes it.

    Attributes:
        state: The state.
        assignments: All assignments.
        decisions: All decisions.
        events: All events.
        last_event: Largest number that an event was given, whether it is still held or not; 0 for none.
    """

    state: PeopleState = PeopleState()
    assignments: Sequence[Assignment] = ()
    decisions: Sequence[Decision] = ()
    events: Sequence[PersonEvent] = ()
    last_event: int = 0

    def going_on_from(self, before: AllPeople) -> AllPeople:
        """Return the same people in the place of others, none of whose numbers is given again."""
        return replace(
            self,
            state=PeopleState(
                max(self.state.revision, before.state.revision), max(self.state.next_person, before.state.next_person)
            ),
            last_event=max(self.last_event, before.last_event),
        )


class PeopleStore(Protocol):
    """The part of a store that holds people."""

    def people_state(self) -> PeopleState:
        """Return the state that a change is to be based on; read it before anything else."""

    def assignments(self, person: int | None = None) -> list[Assignment]:
        """Return the assignments of all people, or of one, by person, first sight and tracklet."""

    def decisions(self) -> list[Decision]:
        """Return what operators have said, oldest first."""

    def person_events(self, after: int = 0, *, limit: int) -> list[PersonEvent]:
        """Return events with larger numbers than one, the smallest first."""

    def change_people(self, change: PeopleChange, *, revision: int) -> PeopleState:
        """Store a change in one commit, without what it says of tracklets that are not held any more.

        Args:
            change: The change.
            revision: Revision of the state that it is based on.

        Raises:
            PeopleChangedError: Somebody else has changed people since; nothing is stored.
        """

    def restore_people(self, people: AllPeople) -> None:
        """Take over the people of another store into one that has none, without those whose tracklets are not held.

        Events keep their numbers, and no number of a person or an event that was given there is given again.
        """
