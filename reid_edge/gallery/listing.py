"""List the tracklets that a gallery holds, without their features; each list is in the audit."""

from __future__ import annotations

from dataclasses import dataclass

from reid_edge.errors import UsageError
from reid_edge.gallery import audit
from reid_edge.gallery.clock import kept_since_us
from reid_edge.gallery.entries import Entry, Selection, not_before
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import TrackletSpan

#: Most tracklets of a list.
MOST_LISTED = 10_000


@dataclass(frozen=True)
class Listed:
    """A stored tracklet: its newest observation, how long and how often it was seen, and the number of its person."""

    newest: Entry
    span: TrackletSpan
    person: int | None = None


def list_tracklets(
    store: Store,
    *,
    selection: Selection,
    purpose: str,
    now_us: int,
    limit: int = 100,
    skip: int = 0,
    with_people: bool = False,
) -> list[Listed]:
    """Return tracklets, the last seen first; the list is in the audit before it returns.

    What is older than the retention is not returned, whether it is deleted yet or not.

    Args:
        store: Which gallery.
        selection: Which observations.
        purpose: Reason in the user's words, for the audit.
        now_us: Time of the list.
        limit: Largest number of tracklets.
        skip: Number of tracklets, the last seen ones, that are left out before: those of the pages before.
        with_people: Whether to tell the person of each, if it has been given to one; reads all people.

    Raises:
        UsageError: There is no purpose, or a number is out of range.
        StoreError: The store fails.
    """
    purpose = audit.checked_purpose(purpose)
    if not 1 <= limit <= MOST_LISTED or skip < 0:
        raise UsageError(f"expected --limit from 1 to {MOST_LISTED:,} and --skip of 0 or more; got {limit} and {skip}.")
    since_us = kept_since_us(store, now_us)
    spans = store.tracklets(not_before(selection, since_us), limit=limit, skip=skip)
    people = {one.tracklet: one.person for one in store.assignments()} if with_people else {}
    found = [
        Listed(entry, span, people.get(entry.tracklet)) for span in spans if (entry := _newest(store, span)) is not None
    ]
    detail = {
        "selection": selection.described(),
        "limit": limit,
        "skip": skip,
        "kept_since_us": since_us,
        "tracklets": len(found),
    }
    audit.record(store, "tracklets", detail, at_us=now_us, purpose=purpose)
    return found


def _newest(store: Store, span: TrackletSpan) -> Entry | None:
    """Return the newest observation of a tracklet; None if it has gone meanwhile, or is damaged."""
    records = store.find(span.camera, span.incarnation, span.seq)
    return next((record.entry for record in records if record.entry.incarnation == span.incarnation), None)
