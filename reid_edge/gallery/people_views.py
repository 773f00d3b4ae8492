"""What is shown of people: the list of them, and one person's journey; each answer is in the audit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from reid_edge.errors import NoSuchPersonError, UsageError
from reid_edge.gallery import audit
from reid_edge.gallery.clock import kept_since_us
from reid_edge.gallery.entries import Key, Selection
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.people import Assignment, PersonEvent

#: Most people of a list.
MOST_LISTED = 10_000
#: ``assigned``: several tracklets are surely the person's.  ``unsure``: one tracklet, but somebody else is near.
#: ``alone``: one tracklet, and nobody is near.
Sureness = Literal["assigned", "unsure", "alone"]


@dataclass(frozen=True, kw_only=True)
class PersonSummary:
    """A person.

    Attributes:
        person: Number.
        model_hash: The model of the features.
        cameras: The cameras that saw the person, in the order of the first sight.
        first_us: First sight, microseconds since 1970 UTC.
        last_us: Last sight so far.
        tracklets: Number of tracklets: how often the person was seen.
        sure: How sure it is that these are the person's, and all that are.
        similarity: Relative similarity of the tracklet that is least like the others, of several; to the nearest
            person, of one; None: nothing to compare with.
    """

    person: int
    model_hash: str
    cameras: tuple[str, ...]
    first_us: int
    last_us: int
    tracklets: int
    sure: Sureness
    similarity: float | None


def list_people(
    store: Store,
    *,
    selection: Selection,
    purpose: str,
    now_us: int,
    least_tracklets: int = 1,
    limit: int = 100,
    skip: int = 0,
) -> list[PersonSummary]:
    """Return people, the last seen first; the list is in the audit before it returns.

    Args:
        store: Which gallery.
        selection: Only people with a tracklet of these cameras and that time.
        purpose: Reason in the user's words, for the audit.
        now_us: Time of the list; what is older than the retention by then is left out.
        least_tracklets: Leave out people with fewer tracklets.
        limit: Largest number of people.
        skip: Number of people that are left out before: those of the pages before.

    Raises:
        UsageError: There is no purpose, or a number is out of range.
        StoreError: The store fails.
    """
    purpose = audit.checked_purpose(purpose)
    if not 1 <= limit <= MOST_LISTED or skip < 0 or least_tracklets < 1:
        raise UsageError(
            f"expected --limit from 1 to {MOST_LISTED:,}, --skip of 0 or more and --tracklets of 1 or more; "
            f"got {limit}, {skip} and {least_tracklets}."
        )
    people = [
        summary_of(rows)
        for rows in _by_person(_kept(store, store.assignments(), now_us))
        if len(rows) >= least_tracklets and any(_selected(one, selection) for one in rows)
    ]
    people.sort(key=lambda one: (-one.last_us, one.person))
    page = people[skip : skip + limit]
    detail = {
        "selection": selection.described(), "tracklets": least_tracklets, "limit": limit, "skip": skip,
        "people": len(page),
    }  # fmt: skip
    audit.record(store, "people", detail, at_us=now_us, purpose=purpose)
    return page


def journey(store: Store, person: int, *, purpose: str, now_us: int) -> list[Assignment]:
    """Return a person's tracklets in the order of the first sight; that they were shown is in the audit before.

    Args:
        store: Which gallery.
        person: Number of the person.
        purpose: Reason in the user's words, for the audit.
        now_us: The time; what is older than the retention by then is left out.

    Raises:
        UsageError: There is no purpose.
        NoSuchPersonError: There is no such person.
        StoreError: The store fails.
    """
    purpose = audit.checked_purpose(purpose)
    rows = _kept(store, tracklets_of(store, person), now_us)
    if not rows:
        raise no_person(store, person)
    audit.record(store, "person", {"person": person, "ids": [one.id for one in rows]}, at_us=now_us, purpose=purpose)
    return rows


def follow_events(
    store: Store, *, after: int, limit: int, purpose: str, now_us: int, every_s: float | None = None
) -> Iterator[PersonEvent]:
    """Yield events with larger numbers than one, the smallest first; that they are shown is in the audit before.

    Args:
        store: Which gallery.
        after: The number.
        limit: Largest number of events, or of those that are read at a time.
        purpose: Reason in the user's words, for the audit.
        now_us: The time; events of tracklets that are older than the retention by then are left out.
        every_s: Seconds between two looks for new events, without end; None: look once.

    Raises:
        UsageError: There is no purpose.
        StoreError: The store fails.
    """
    purpose = audit.checked_purpose(purpose)
    detail = {"after": after, "limit": limit, "follow": every_s is not None}
    audit.record(store, "events", detail, at_us=now_us, purpose=purpose)
    left = limit
    while True:
        page = store.person_events(after, limit=limit)
        kept = _kept_events(store, page, now_us)
        yield from kept if every_s is not None else kept[:left]
        left -= len(kept)
        after = page[-1].number if page else after
        if every_s is None and (left <= 0 or len(page) < limit):
            return
        if not page:
            time.sleep(every_s or 0)


def _kept_events(store: Store, events: Sequence[PersonEvent], now_us: int) -> list[PersonEvent]:
    """Return the events of tracklets that are not older than the retention, whether they are deleted yet or not."""
    since_us = kept_since_us(store, now_us)
    kept: dict[Key, bool] = {}
    for camera, incarnation, track in {event.tracklet for event in events}:
        tracklet = Selection(cameras=(camera,), incarnation=incarnation, track=track, since_us=since_us)
        kept[camera, incarnation, track] = store.span(tracklet).observations > 0
    return [event for event in events if kept[event.tracklet]]


def tracklets_of(store: Store, person: int) -> list[Assignment]:
    """Return a person's tracklets in the order of the first sight.

    Raises:
        NoSuchPersonError: There is no such person.
    """
    rows = store.assignments(person)
    if not rows:
        raise no_person(store, person)
    return sorted(rows, key=lambda one: (one.first_us, one.tracklet))


def no_person(store: Store, person: int) -> NoSuchPersonError:
    """Return the error for a number that no person has."""
    return NoSuchPersonError(
        f"{store.name} has no person {person}: there never was one, all tracklets of the person have gone, or the "
        f"person was merged with another. 'reid-edge gallery people {store.name}' lists those there are."
    )


def summary_of(rows: Sequence[Assignment]) -> PersonSummary:
    """Return the summary of a person who has some tracklets, at least one."""
    ordered = sorted(rows, key=lambda one: (one.first_us, one.tracklet))
    similarities = [one.similarity for one in rows if one.similarity is not None and _counts(one, len(rows))]
    sure: Sureness = "assigned" if len(rows) > 1 else "unsure" if ordered[0].how == "unsure" else "alone"
    return PersonSummary(
        person=ordered[0].person,
        model_hash=ordered[0].model_hash,
        cameras=tuple(dict.fromkeys(one.camera for one in ordered)),
        first_us=ordered[0].first_us,
        last_us=max(one.last_us for one in rows),
        tracklets=len(rows),
        sure=sure,
        similarity=min(similarities, default=None),
    )


def _counts(one: Assignment, tracklets: int) -> bool:
    """Return whether a similarity is one to the person: the first tracklet's is to others, who were near."""
    return tracklets == 1 or one.how in ("assigned", "operator")


def _by_person(rows: Sequence[Assignment]) -> list[list[Assignment]]:
    return [list(group) for _, group in itertools.groupby(rows, key=lambda one: one.person)]


def _kept(store: Store, rows: Sequence[Assignment], now_us: int) -> list[Assignment]:
    since_us = kept_since_us(store, now_us)
    return [one for one in rows if one.last_us >= since_us]


def _selected(one: Assignment, selection: Selection) -> bool:
    return (
        (not selection.cameras or one.camera in selection.cameras)
        and (selection.since_us is None or one.last_us >= selection.since_us)
        and (selection.until_us is None or one.first_us <= selection.until_us)
    )
