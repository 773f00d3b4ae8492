"""Decisions of operators that go on to later tracklets: each is kept on tracklets, and goes with these."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from reid_edge.errors import ContradictionError
from reid_edge.gallery.entries import Key
from reid_edge.gallery.held_tracklets import name_of
from reid_edge.gallery.population import constraints_of
from reid_edge.gallery.store.people import Assignment, Decision
from reid_edge.types import Feature


def renewed(
    decisions: Sequence[Decision],
    assignments: Iterable[Assignment],
    features: Mapping[str, Feature],
    *,
    aging_us: int,
) -> list[Decision]:
    """Return what is to be kept beside decisions, so that they go on when their tracklets have gone.

    What keeps two people apart goes on to the last tracklet of each.  What joins two tracklets of one person goes on,
    once one of them is old, to those of the person's newer tracklets that resemble each most: a merge of two looks
    needs one of each.  What would contradict other decisions is left out.

    Args:
        decisions: All decisions.
        assignments: Those of all people, or at least all of each person whom decisions are about.
        features: Features of these tracklets by name, of one size for each person; those not known are passed over.
        aging_us: Tracklets last seen before are old.
    """
    row_of = {row.tracklet: row for row in assignments}
    of_person: dict[int, list[Assignment]] = defaultdict(list)
    for row in row_of.values():
        of_person[row.person].append(row)
    last = {person: max(rows, key=lambda row: row.last_us).tracklet for person, rows in of_person.items()}
    known = {frozenset((one.first, one.second)) for one in decisions}
    new: dict[frozenset[Key], Decision] = {}
    for one in decisions:
        rows = [row_of[key] for key in (one.first, one.second) if key in row_of]
        if len(rows) < 2:
            continue
        if one.kind == "not same":
            first, second = (last[row.person] for row in rows)
        elif rows[0].person == rows[1].person:
            young = [row for row in of_person[rows[0].person] if row.last_us >= aging_us]
            first, second = (_successor(row, young, features, aging_us) for row in rows)
        else:
            continue
        pair = frozenset((first, second))
        if first != second and pair not in known:
            new[pair] = replace(one, first=first, second=second)
    return _without_contradictions(decisions, list(new.values()))


def _successor(old: Assignment, young: Sequence[Assignment], features: Mapping[str, Feature], aging_us: int) -> Key:
    """Return the young tracklet that resembles an old one most; the same where it is young, or nothing is known."""
    mine = features.get(name_of(old.tracklet))
    known = [row for row in young if name_of(row.tracklet) in features]
    if old.last_us >= aging_us or mine is None or not known:
        return old.tracklet
    return max(known, key=lambda row: float(features[name_of(row.tracklet)] @ mine)).tracklet


def _without_contradictions(decisions: Sequence[Decision], new: Sequence[Decision]) -> list[Decision]:
    """Return the new decisions that contradict neither others nor one another."""
    kept: list[Decision] = []
    with contextlib.suppress(ContradictionError):
        constraints_of([*decisions, *new])
        return list(new)
    for one in new:
        with contextlib.suppress(ContradictionError):
            constraints_of([*decisions, *kept, one])
            kept.append(one)
    return kept
