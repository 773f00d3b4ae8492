"""Erasing on demand, with a receipt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reid_edge.errors import UsageError
from reid_edge.gallery import audit
from reid_edge.gallery.entries import Key, Selection
from reid_edge.gallery.store import Store


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was erased.

    Attributes:
        store: Where.
        at_us: When it was asked for, microseconds since 1970 UTC.
        by: Operating system user.
        asked: What was meant: the selection.
        purpose: Why, in the user's words.
        observations: How many were deleted.
        cameras: How many of each camera.
        ids_sha256: sha256 of their ids, ``camera/epoch/number``, sorted by key, each followed by a line feed.
        leftovers: What is left of their bytes, in words; "none" if nothing is.
    """

    store: str
    at_us: int
    by: str
    asked: dict[str, Any]
    purpose: str
    observations: int
    cameras: dict[str, int]
    ids_sha256: str
    leftovers: str


def checked_selection(selection: Selection) -> Selection:
    """A selection that restricts something.

    Raises:
        UsageError: It means everything.
    """
    if selection == Selection():
        raise UsageError("say what to erase: a camera, a time, a tracklet; --until now is everything up to now.")
    return selection


def erase_with_receipt(store: Store, selection: Selection, *, purpose: str, now_us: int) -> Receipt:
    """Delete what is meant, keep out what of it is still on its way, and say so in the audit.

    The audit gets an entry before and one after: an erasure that was cut short can be seen, and repeated.

    Raises:
        UsageError: Nothing restricts the selection, or no purpose is given.
        StoreError: The store fails.
    """
    asked = checked_selection(selection).described()
    purpose = audit.checked_purpose(purpose)
    audit.record(store, "erase asked", {"asked": asked}, at_us=now_us, purpose=purpose)
    erased = store.erase(selection, now_us=now_us)
    receipt = Receipt(
        store=store.name,
        at_us=now_us,
        by=audit.current_user(),
        asked=asked,
        purpose=purpose,
        observations=len(erased.keys),
        cameras=_by_camera(erased.keys),
        ids_sha256=ids_sha256(erased.keys),
        leftovers=erased.leftovers,
    )
    audit.record(store, "erase", asdict(receipt), at_us=now_us, purpose=purpose)
    return receipt


def ids_sha256(keys: Sequence[Key]) -> str:
    """What a receipt says of the ids that were erased."""
    digest = hashlib.sha256()
    for camera, epoch, seq in keys:
        digest.update(f"{camera}/{epoch}/{seq}\n".encode())
    return digest.hexdigest()


def _by_camera(keys: Sequence[Key]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for camera, _, _ in keys:
        counts[camera] = counts.get(camera, 0) + 1
    return counts
