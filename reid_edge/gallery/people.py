"""People of a gallery: every tracklet that it holds is given to a person, as a whole or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reid_edge.gallery import audit
from reid_edge.gallery.clock import kept_since_us
from reid_edge.gallery.comparison import kept_comparison
from reid_edge.gallery.held_tracklets import HeldTracklet, name_of, read_tracklets
from reid_edge.gallery.people_decisions import attempted, renewed
from reid_edge.gallery.population import (
    Changes,
    Circumstances,
    OnlinePopulation,
    assigned_together,
    constraints_of,
)
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.people import Assignment, PeopleChange, PersonEvent
from reid_edge.identity.people_table import Numbers
from reid_edge.identity.transit import StatedTransits

Way = Literal["together", "one at a time", "nothing new"]


@dataclass(frozen=True, kw_only=True)
class Identified:
    """What became of the tracklets of one model.

    Attributes:
        model_hash: The model.
        way: ``together``: all were compared with all.  ``one at a time``: new ones were compared with known people.
        tracklets: Number of tracklets held.
        looked_at: Number of them that were new, or of which more was known.
        people: Number of people now.
        assigned: Number of tracklets that share a person with others.
        unsure: Number of tracklets of their own to whom somebody is near.
        alone: Number of tracklets to whom nobody is near.
        events: Number of events by kind.
    """

    model_hash: str
    way: Way
    tracklets: int
    looked_at: int
    people: int
    assigned: int
    unsure: int
    alone: int
    events: dict[str, int]


def identify(
    store: Store, *, now_us: int, again: bool = False, transits: StatedTransits | None = None
) -> list[Identified]:
    """Give every tracklet to a person, in one commit; people of different models are different people.

    Where no two tracklets of a model share a person yet, all of them are compared together; else those that are new,
    or of which more is known, one at a time.

    Args:
        store: Which gallery.
        now_us: The time.
        again: Compare all together in any case.
        transits: Stated times between cameras; None: none.

    Raises:
        PeopleChangedError: Others changed the same people at every attempt.
        ContradictionError: Operators have joined tracklets that cannot be one person.
        StoreError: The store fails.
    """
    store.people_state()  # a store that keeps no people says so before anything is written
    audit.record(store, "identify", {"again": again}, at_us=now_us)
    done: list[Identified] = attempted(lambda: _identify(store, now_us, again, transits))
    return done


def _identify(store: Store, now_us: int, again: bool, transits: StatedTransits | None) -> list[Identified]:
    state = store.people_state()
    known = {name_of(one.tracklet): one for one in store.assignments()}
    decisions = store.decisions()
    operator = constraints_of(decisions)
    numbers = Numbers(state.next_person)
    done: list[Identified] = []
    assignments: list[Assignment] = []
    events: list[PersonEvent] = []
    for model_hash, held in sorted(read_tracklets(store, since_us=kept_since_us(store, now_us)).items()):
        given = Circumstances(
            model_hash=model_hash,
            operator=operator,
            transits=transits,
            numbers=numbers,
            calibration=calibration_version(store, model_hash),
        )
        of_model = {name: known[name] for name in held if name in known and known[name].model_hash == model_hash}
        way, looked_at, changes = _changes(held, of_model, given, again=again, at_us=now_us)
        assignments += changes.assignments.values()
        events += changes.events
        now = {**of_model, **changes.assignments}
        done.append(_identified(model_hash, way, len(held), looked_at, now, changes))
    if assignments:
        said = renewed(decisions, {**known, **{name_of(one.tracklet): one for one in assignments}}.values())
        change = PeopleChange(assignments=assignments, decisions=said, events=events, next_person=numbers.next)
        store.change_people(change, revision=state.revision)
    return done


def calibration_version(store: Store, model_hash: str) -> str:
    """Return the version of a model's calibration; "" if it was never calibrated."""
    kept = kept_comparison(store, model_hash)
    return kept.scale.version if kept is not None and kept.calibration is not None else ""


def _changes(
    held: Mapping[str, HeldTracklet],
    known: Mapping[str, Assignment],
    given: Circumstances,
    *,
    again: bool,
    at_us: int,
) -> tuple[Way, int, Changes]:
    fresh = [one for name, one in held.items() if name not in known or known[name].seq < one.seq]
    if not fresh and not again:
        return "nothing new", 0, Changes()
    if again or len({one.person for one in known.values()}) == len(known):
        return "together", len(fresh), assigned_together(held, known, given, at_us=at_us)
    population, changes = OnlinePopulation(held, known, given), Changes()
    for one in sorted(fresh, key=lambda one: (one.last_us, one.key)):
        population.add(one, changes, at_us=at_us)
    return "one at a time", len(fresh), changes


def _identified(
    model_hash: str, way: Way, tracklets: int, looked_at: int, now: Mapping[str, Assignment], changes: Changes
) -> Identified:
    sizes = Counter(one.person for one in now.values())
    single = Counter(one.how for one in now.values() if sizes[one.person] == 1)
    return Identified(
        model_hash=model_hash,
        way=way,
        tracklets=tracklets,
        looked_at=looked_at,
        people=len(sizes),
        assigned=len(now) - single.total(),
        unsure=single["unsure"],
        alone=single.total() - single["unsure"],
        events=dict(Counter(one.kind for one in changes.events)),
    )
