"""What operators decide of people: two are one, one is two, or two shall never be one.

Decisions are kept as constraints on tracklets, which later assignments respect, and each is in the audit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.errors import ContradictionError, MixedModelsError, NoSuchTrackletError, PeopleChangedError, UsageError
from reid_edge.gallery import audit
from reid_edge.gallery.entries import Key
from reid_edge.gallery.held_tracklets import ModelTracklets, name_of, read_tracklets
from reid_edge.gallery.labelled_pairs import LabelledRows
from reid_edge.gallery.people_views import tracklets_of
from reid_edge.gallery.population import SAID_SAME, constraints_of
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.people import Assignment, Decision, DecisionKind, PeopleChange, PeopleState, PersonEvent
from reid_edge.identity.constraints import APART, LEAST_OVERLAP_S, CannotLink, seen_together

#: Tracklets of a person, the last seen, that a decision about the person is kept on.
KEPT_ON = 20
#: Attempts while others change the same people.
ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Who decides, when and why.

    Attributes:
        at_us: The time.
        purpose: Reason in the operator's words, for the audit.
        withdraw: Withdraw earlier decisions that contradict this one; else it is refused.
    """

    at_us: int
    purpose: str
    withdraw: bool = False


def attempted(work: Callable[[], Any]) -> Any:
    """Do what changes people; begin again if others have changed them meanwhile.

    Raises:
        PeopleChangedError: They did so at every attempt.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return work()
        except PeopleChangedError:
            continue
    return work()


def merge(store: Store, people: Sequence[int], by: Operator) -> int:
    """Make several people one, who keeps the first number; return it.

    Raises:
        UsageError: There is no purpose, or fewer than two different people.
        NoSuchPersonError: One of them is not there.
        MixedModelsError: They are of different models.
        ContradictionError: They cannot be one person, by an earlier decision or by what a camera saw.
        StoreError: The store fails.
    """
    distinct = list(dict.fromkeys(people))
    if len(distinct) < 2:
        raise UsageError(f"expected at least two different people to merge, got {', '.join(map(str, people))}.")
    return int(_recorded(store, "merge", {"people": distinct}, by, lambda: _merge(store, distinct, by)))


def split(store: Store, person: int, tracklets: Sequence[Key], by: Operator) -> int:
    """Make a new person of some of a person's tracklets; return the new number.

    Raises:
        UsageError: There is no purpose, no tracklet, or none would be left.
        NoSuchPersonError: There is no such person.
        NoSuchTrackletError: A tracklet is not the person's.
        ContradictionError: By an earlier decision they are one person.
        StoreError: The store fails.
    """
    detail = {"person": person, "tracklets": [name_of(key) for key in tracklets]}
    return int(_recorded(store, "split", detail, by, lambda: _split(store, person, set(tracklets), by)))


def keep_apart(store: Store, first: int, second: int, by: Operator) -> None:
    """Never make two people one.

    Raises:
        UsageError: There is no purpose, or it is the same person twice.
        NoSuchPersonError: One of them is not there.
        StoreError: The store fails.
    """
    if first == second:
        raise UsageError(
            f"{first} is one person; 'reid-edge gallery split {store.name} {first} --id ID' takes tracklets away."
        )
    _recorded(store, "not-same", {"people": [first, second]}, by, lambda: _keep_apart(store, first, second, by))


def labels_as_decisions(
    store: Store, held: ModelTracklets, labelled: LabelledRows, *, at_us: int
) -> tuple[Decision, ...]:
    """Return what labelled pairs say of people, as an operator's decisions; nothing is stored.

    Raises:
        ContradictionError: They contradict one another, an operator, or what a camera saw.
        StoreError: The store fails.
    """
    by = Operator(at_us=at_us, purpose="labelled pairs")
    said = tuple(
        _decision(kind, held.keys[one], held.keys[other], by)
        for kind, rows in _by_kind(labelled)
        for one, other in rows.tolist()
    )
    _refuse_the_opposite(store.decisions(), said)
    if said:
        CannotLink(held.sightings, operator=constraints_of(_with(store.decisions(), said)))
    return said


def keep_labels(store: Store, said: Sequence[Decision]) -> None:
    """Keep what labelled pairs say; the next ``identify`` follows them.

    Raises:
        ContradictionError: They contradict what an operator has said meanwhile.
        PeopleChangedError: Others changed the same people at every attempt.
        StoreError: The store fails, or the user may not.
    """

    def work() -> None:
        state, decisions = store.people_state(), store.decisions()
        _refuse_the_opposite(decisions, said)
        _store(store, state, decisions, said, [], [], [])

    attempted(work)


def _recorded(store: Store, action: str, detail: dict[str, Any], by: Operator, work: Callable[[], Any]) -> Any:
    """Do what an operator has decided, with a line in the audit before."""
    purpose = audit.checked_purpose(by.purpose)
    store.people_state()  # a store that keeps no people says so before anything is written
    audit.record(store, action, {**detail, "withdraw": by.withdraw}, at_us=by.at_us, purpose=purpose)
    return attempted(work)


def _merge(store: Store, people: Sequence[int], by: Operator) -> int:
    state, decisions = store.people_state(), store.decisions()
    groups = [tracklets_of(store, person) for person in people]
    models = sorted({one.model_hash for group in groups for one in group})
    if len(models) > 1:
        raise MixedModelsError(
            f"people {', '.join(map(str, people))} have features of {len(models)} models, which cannot be compared: "
            f"{', '.join(models)}."
        )
    against = _between(decisions, "not same", groups)
    _refuse_or_withdraw(against, by, "two people")
    _check_not_seen_together(store, groups)
    newest = _newest([one for group in groups for one in group])  # it goes last
    said = [
        _decision("same", newest, one.tracklet, by)
        for group in groups
        for one in _last(group)
        if one.tracklet != newest
    ]
    moved = [replace(one, person=people[0], how="operator", similarity=None, reason=SAID_SAME, at_us=by.at_us)
             for group in groups[1:] for one in group]  # fmt: skip
    events = [
        PersonEvent(
            at_us=by.at_us, kind="merged", person=people[0], model_hash=models[0], tracklet=_newest(group),
            other=group[0].person, reason=SAID_SAME,
        )
        for group in groups[1:]
    ]  # fmt: skip
    _store(store, state, decisions, said, against, moved, events)
    return people[0]


def _split(store: Store, person: int, leaving: set[Key], by: Operator) -> int:
    state, decisions = store.people_state(), store.decisions()
    rows = tracklets_of(store, person)
    foreign = sorted(leaving - {one.tracklet for one in rows})
    if foreign:
        raise NoSuchTrackletError(
            f"{', '.join(map(name_of, foreign))} is not of person {person}; 'gallery person' lists the tracklets."
        )
    gone = [one for one in rows if one.tracklet in leaving]
    left = [one for one in rows if one.tracklet not in leaving]
    if not gone or not left:
        raise UsageError(
            f"expected some, but not all, of the {len(rows):,} tracklets of person {person}; got {len(gone):,}."
        )
    against = _between(decisions, "same", (gone, left))
    _refuse_or_withdraw(against, by, "one person")
    new = state.next_person
    moved = [replace(one, person=new, how="operator", similarity=None, reason=APART, at_us=by.at_us) for one in gone]
    events = [
        PersonEvent(
            at_us=by.at_us, kind="split", person=new, model_hash=one.model_hash, tracklet=one.tracklet, other=person,
            reason=APART,
        )
        for one in gone
    ]  # fmt: skip
    said = list(_all_pairs(gone, _last(left), by))  # each that was named stays away from the person
    _store(store, replace(state, next_person=new + 1), decisions, said, against, moved, events)
    return new


def _keep_apart(store: Store, first: int, second: int, by: Operator) -> None:
    state, decisions = store.people_state(), store.decisions()
    said = list(_all_pairs(_last(tracklets_of(store, first)), _last(tracklets_of(store, second)), by))
    _store(store, state, decisions, said, [], [], [])


def _store(
    store: Store,
    state: PeopleState,
    decisions: Sequence[Decision],
    said: Sequence[Decision],
    withdrawn: Sequence[Decision],
    moved: Sequence[Assignment],
    events: Sequence[PersonEvent],
) -> None:
    constraints_of(_with([one for one in decisions if one not in withdrawn], said))
    change = PeopleChange(
        assignments=moved, decisions=said, withdrawn=withdrawn, events=events, next_person=state.next_person
    )
    store.change_people(change, revision=state.revision)


def _with(decisions: Sequence[Decision], said: Sequence[Decision]) -> list[Decision]:
    """Return decisions with new ones, each in place of an earlier one of the same pair."""
    replaced = {frozenset((one.first, one.second)) for one in said}
    return [*(one for one in decisions if frozenset((one.first, one.second)) not in replaced), *said]


def _by_kind(labelled: LabelledRows) -> tuple[tuple[DecisionKind, npt.NDArray[np.int64]], ...]:
    return ("same", labelled.same), ("not same", labelled.different)


def _refuse_the_opposite(decisions: Sequence[Decision], said: Sequence[Decision]) -> None:
    """Refuse labelled pairs of which the opposite was decided, by an operator or by earlier labels.

    Raises:
        ContradictionError: One of them is.
    """
    known = {frozenset((one.first, one.second)): one for one in decisions}
    for one in said:
        before = known.get(frozenset((one.first, one.second)), one)
        if before.kind != one.kind:
            now, then, command = (
                ("one person", "two people", "merge") if one.kind == "same" else ("two people", "one person", "split")
            )
            raise ContradictionError(
                f"the pairs say that {name_of(one.first)} and {name_of(one.second)} are {now}, but {before.by} has "
                f"said that they are {then}. Take that pair out, or withdraw what was said: 'gallery {command}' with "
                "--withdraw."
            )


def _refuse_or_withdraw(against: Sequence[Decision], by: Operator, what: str) -> None:
    if against and not by.withdraw:
        one = against[0]
        raise ContradictionError(
            f"{one.by} has said that {name_of(one.first)} and {name_of(one.second)} are {what}. "
            "--withdraw withdraws that."
        )


def _between(
    decisions: Iterable[Decision], kind: DecisionKind, groups: Sequence[Sequence[Assignment]]
) -> list[Decision]:
    """Return the decisions of a kind that are about tracklets of two different groups."""
    place = {one.tracklet: number for number, group in enumerate(groups) for one in group}
    return [
        one
        for one in decisions
        if one.kind == kind and one.first in place and one.second in place and place[one.first] != place[one.second]
    ]


def _all_pairs(first: Sequence[Assignment], second: Sequence[Assignment], by: Operator) -> Iterator[Decision]:
    for one, other in itertools.product(first, second):
        yield _decision("not same", one.tracklet, other.tracklet, by)


def _decision(kind: DecisionKind, first: Key, second: Key, by: Operator) -> Decision:
    return Decision(kind=kind, first=first, second=second, at_us=by.at_us, by=audit.current_user())


def _last(rows: Sequence[Assignment]) -> list[Assignment]:
    return sorted(rows, key=lambda one: (-one.last_us, one.tracklet))[:KEPT_ON]


def _newest(rows: Sequence[Assignment]) -> Key:
    return _last(rows)[0].tracklet


def _check_not_seen_together(store: Store, groups: Sequence[Sequence[Assignment]]) -> None:
    """Refuse people whom one camera saw at the same time in distinct boxes.

    Raises:
        ContradictionError: It did.
    """
    doubtful = list(_at_one_time([one for group in groups for one in group]))
    if not doubtful:
        return
    held = read_tracklets(store, since_us=0).get(doubtful[0][0].model_hash, {})  # for their boxes
    for one, other in doubtful:
        first, second = held.get(name_of(one.tracklet)), held.get(name_of(other.tracklet))
        if first and second and seen_together(first.sighting, second.sighting):
            raise ContradictionError(
                f"people {one.person} and {other.person} cannot be one: the camera {one.camera} saw {one.id} and "
                f"{other.id} at the same time. If one of the two is with the wrong person, split it off first: "
                f"reid-edge gallery split {store.name} {one.person} --id {one.id}"
            )


def _at_one_time(rows: Sequence[Assignment]) -> Iterator[tuple[Assignment, Assignment]]:
    """Yield the pairs of two people's tracklets of one camera that overlap for half a second or more."""
    ordered = sorted(rows, key=lambda one: (one.camera, one.first_us, one.tracklet))
    for place, one in enumerate(ordered):
        last_us = one.last_us - LEAST_OVERLAP_S * 1e6
        for after in range(place + 1, len(ordered)):
            other = ordered[after]
            if other.camera != one.camera or other.first_us > last_us:
                break
            if other.person != one.person and other.last_us - other.first_us >= LEAST_OVERLAP_S * 1e6:
                yield one, other
