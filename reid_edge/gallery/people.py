"""People of a gallery: every tracklet that it holds is given to a person, as a whole or not at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from reid_edge.gallery import audit
from reid_edge.gallery.clock import aging_us, kept_since_us
from reid_edge.gallery.comparison import kept_comparison
from reid_edge.gallery.held_tracklets import HeldTracklet, name_of, read_tracklets
from reid_edge.gallery.people_decisions import attempted
from reid_edge.gallery.population import (
    Changes,
    Circumstances,
    OnlinePopulation,
    assigned_together,
    constraints_of,
)
from reid_edge.gallery.renewal import renewed
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.people import Assignment, PeopleChange, PersonEvent
from reid_edge.identity.constraints import OperatorConstraints
from reid_edge.identity.known_pairs import KnownPairs
from reid_edge.identity.people_table import Numbers
from reid_edge.identity.transit import StatedTransits
from reid_edge.types import Feature

#: All tracklets are compared together without being asked to as long as these are at most so many: a minute's work.
MOST_TOGETHER = 20_000
#: The same where none of them has a person yet.
MOST_AT_FIRST = 100_000

#: Most cameras that a warning names.
MOST_NAMED = 20

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
        limit: Relative similarity from which tracklets were joined; None: nothing was enough, or nothing was compared.
        known: Labelled pairs behind the limit; None: only the numbers of tracklets and of matches are.
        moved: When cameras were last moved, microseconds since 1970 UTC, by name: the first tracklet since then.
        doubtful: Pairs of cameras whose stated time sure matches contradict.
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
    limit: float | None = None
    known: KnownPairs | None = None
    moved: dict[str, int] = field(default_factory=dict)
    doubtful: tuple[tuple[str, str], ...] = ()


def identify(
    store: Store, *, now_us: int, again: bool = False, transits: StatedTransits | None = None
) -> list[Identified]:
    """Give every tracklet to a person, in one commit; people of different models are different people.

    All tracklets of a model, if they are not too many, are compared together where no two share a person yet, or pairs
    were labelled since they were compared; else those that are new, or of which more is known, one at a time.

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
    features: dict[str, Feature] = {}
    for model_hash, held in sorted(read_tracklets(store, since_us=kept_since_us(store, now_us)).items()):
        given = circumstances(store, model_hash, operator=operator, transits=transits, numbers=numbers)
        of_model = {name: known[name] for name in held if name in known and known[name].model_hash == model_hash}
        way, looked_at, changes = _changes(held, of_model, given, again=again, at_us=now_us)
        assignments += changes.assignments.values()
        events += changes.events
        features |= {name: one.sighting.feature for name, one in held.items()} if decisions else {}
        now = {**of_model, **changes.assignments}
        done.append(_identified(given, way, len(held), looked_at, now, changes))
    rows = {**known, **{name_of(one.tracklet): one for one in assignments}}.values()
    said = renewed(decisions, rows, features, aging_us=aging_us(store, now_us)) if decisions else []
    if assignments or said:
        change = PeopleChange(assignments=assignments, decisions=said, events=events, next_person=numbers.next)
        store.change_people(change, revision=state.revision)
    return done


def circumstances(
    store: Store, model_hash: str, *, operator: OperatorConstraints, transits: StatedTransits | None, numbers: Numbers
) -> Circumstances:
    """Return what assignments of a model are made under, with what its calibration says.

    Raises:
        StoreError: The store fails, or the calibration is damaged.
    """
    given = Circumstances(model_hash=model_hash, operator=operator, transits=transits, numbers=numbers)
    kept = kept_comparison(store, model_hash)
    if kept is None or kept.calibration is None:
        return given
    return replace(given, calibration=kept.scale.version, calibrated_us=kept.made_us, known=kept.known)


def unknown_text(transits: StatedTransits | None, held: Collection[str]) -> str:
    """Return that times are stated for cameras of which a gallery holds nothing, in words without a full stop.

    Args:
        transits: Stated times; None: none.
        held: The cameras of which it holds something.

    Returns:
        "" if it holds something of all, or nothing of any camera yet.
    """
    unknown = [] if transits is None or not held else [name for name in transits.cameras if name not in held]
    if not unknown:
        return ""
    names = sorted(held)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return (
        f"times are stated for {', '.join(unknown)}, of which the gallery holds nothing, so they keep nobody apart; it "
        f"holds {', '.join(names[:MOST_NAMED])}{more}. Write the names so, also where they are pseudonyms"
    )


def doubt_text(cameras: tuple[str, str]) -> str:
    """Return that the stated time between two cameras is doubtful, in words without a full stop."""
    return (
        f"half or more of the sure matches between {cameras[0]} and {cameras[1]} are faster than the stated time, "
        "which keeps them apart: the file or the clock of a camera is wrong"
    )


def _changes(
    held: Mapping[str, HeldTracklet],
    known: Mapping[str, Assignment],
    given: Circumstances,
    *,
    again: bool,
    at_us: int,
) -> tuple[Way, int, Changes]:
    fresh = [one for name, one in held.items() if name not in known or known[name].seq < one.seq]
    again = again or _labelled_since(known, given, at_us)
    if not fresh and not again:
        return "nothing new", 0, Changes()
    most = MOST_TOGETHER if known else MOST_AT_FIRST
    none_shared = len({one.person for one in known.values()}) == len(known)
    if again or (none_shared and len(held) <= most):
        return "together", len(fresh), assigned_together(held, known, given, at_us=at_us)
    population = OnlinePopulation(held, known, given)
    changes = Changes(limit=population.limit, moved=population.moved)
    for one in sorted(fresh, key=lambda one: (one.last_us, one.key)):
        population.add(one, changes, at_us=at_us)
    return "one at a time", len(fresh), changes


def _labelled_since(known: Mapping[str, Assignment], given: Circumstances, at_us: int) -> bool:
    """Return whether pairs were labelled since all tracklets, if these are not too many, were compared together."""
    if given.known is None or not 0 < len(known) <= MOST_TOGETHER:
        return False
    return min(one.at_us for one in known.values()) < given.calibrated_us <= at_us


def _identified(
    given: Circumstances, way: Way, tracklets: int, looked_at: int, now: Mapping[str, Assignment], changes: Changes
) -> Identified:
    sizes = Counter(one.person for one in now.values())
    single = Counter(one.how for one in now.values() if sizes[one.person] == 1)
    return Identified(
        model_hash=given.model_hash,
        way=way,
        tracklets=tracklets,
        looked_at=looked_at,
        people=len(sizes),
        assigned=len(now) - single.total(),
        unsure=single["unsure"],
        alone=single.total() - single["unsure"],
        events=dict(Counter(one.kind for one in changes.events)),
        limit=None if changes.limit == math.inf else changes.limit,
        known=given.known,
        moved={camera: round(times[-1] * 1e6) for camera, times in changes.moved.items()},
        doubtful=changes.doubtful,
    )
