"""Erasure of a person: all tracklets that are known to be the person's, with a receipt."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from reid_edge.gallery import audit
from reid_edge.gallery.calibrating import forget_uncalibrated, learn_after_erasure
from reid_edge.gallery.clock import GalleryClock, latest_us
from reid_edge.gallery.deletion import Receipt, ids_sha256, leftovers_text, not_promised
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.held_tracklets import name_of
from reid_edge.gallery.people_views import tracklets_of
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.erasures import Erasure, covering, new_erasure
from reid_edge.gallery.store.people import Assignment

#: What an erasure of a person cannot reach.
UNRECOGNISED = (
    "tracklets of the same person that were given to nobody, or to somebody else, are held still: look for them with "
    "'gallery search' before, or erase by camera and time"
)


def erase_person(store: Store, person: int, *, purpose: str, now_us: int) -> Receipt:
    """Delete all tracklets of a person, and what is known of the person, and keep the tracklets out from now on.

    All are erased in one commit, and what comes to the person meanwhile in another (``milvus:`` has none: repeating it
    completes it); the audit gets an entry before and one after.

    Args:
        store: Which gallery.
        person: Number of the person.
        purpose: Reason in the user's words, for the audit.
        now_us: The machine's time of day.  Where it is behind the gallery's own count, the count decides.

    Raises:
        UsageError: No purpose is given.
        NoSuchPersonError: There is no such person.
        StoreError: The store fails.
    """
    purpose = audit.checked_purpose(purpose)
    rows = tracklets_of(store, person)
    asked: dict[str, Any] = {"person": person, "tracklets": [name_of(one.tracklet) for one in rows]}
    audit.record(store, "erase asked", {"asked": asked}, at_us=now_us, purpose=purpose)
    clock = GalleryClock(store, wall=lambda: now_us)
    forget_uncalibrated(store)  # before, since the erasure cleans up what it leaves in the file
    rules = [_rule(one, store, clock, now_us) for one in rows]
    done = [store.apply_erasures(rules)]
    while rows := [one for one in store.assignments(person) if name_of(one.tracklet) not in asked["tracklets"]]:
        asked = {**asked, "tracklets": [*asked["tracklets"], *(name_of(one.tracklet) for one in rows)]}
        more = [_rule(one, store, clock, now_us) for one in rows]
        done.append(store.apply_erasures(more))  # they have come to the person meanwhile
        rules += more
    keys = sorted(key for erased in done for key in erased.keys)
    promised = not_promised(clock)
    receipt = Receipt(
        store=store.name,
        at_us=now_us,
        by=audit.current_user(),
        asked=asked,
        purpose=purpose,
        observations=len(keys),
        cameras=dict(Counter(camera for camera, _, _ in keys)),
        ids_sha256=ids_sha256(keys),
        erasure=" ".join(rule.id for rule in rules),
        kept_out_until_us=min(rule.until_us for rule in rules),
        leftovers=leftovers_text(
            next((erased.leftovers for erased in done if erased.leftovers != "none"), "none"),
            learn_after_erasure(store, now_us=now_us),
        ),
        not_promised=f"{promised}; {UNRECOGNISED}" if promised else UNRECOGNISED,
    )
    audit.record(store, "erase", asdict(receipt), at_us=now_us, purpose=purpose)
    return receipt


def _rule(one: Assignment, store: Store, clock: GalleryClock, now_us: int) -> Erasure:
    """Return the erasure of a whole tracklet, also where its camera's clock is ahead."""
    tracklet = Selection(cameras=(one.camera,), incarnation=one.incarnation, track=one.track)
    at_us = max(clock.now().latest_us, latest_us(store, now_us))
    return covering(new_erasure(tracklet, now_us=at_us, boot=clock.boot), one.last_us)
