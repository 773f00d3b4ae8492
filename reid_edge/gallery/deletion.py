"""Deletion of observations: on time, by the gallery's retention, and on demand, with a receipt."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reid_edge.errors import StoreError, UsageError
from reid_edge.gallery import audit
from reid_edge.gallery.entries import LONGEST_RETENTION_HOURS, Key, Selection
from reid_edge.gallery.store import Store
from reid_edge.gallery.times import now_us

log = logging.getLogger(__name__)

HOUR_US = 3600 * 1_000_000
#: Longest wait for a deletion at a stop; one that another process holds up ends with this one, uncommitted.
STOP_S = 2.0


class Retention:
    """Deletes what is older than the gallery's retention, at intervals.

    Args:
        store: Which gallery.
        every_s: Seconds between two deletions.
        clock: Returns microseconds since 1970 UTC.

    Attributes:
        expired: Number of observations deleted so far.
    """

    def __init__(self, store: Store, *, every_s: float = 60.0, clock: Callable[[], int] = now_us) -> None:
        self._store = store
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._due = 0.0
        self._hours = store.retention_hours()
        self.expired = 0

    def oldest_us(self) -> int:
        """Return the time before which an observation was last seen too long ago to be kept."""
        return self._clock() - int(self._hours * HOUR_US)

    def apply(self) -> int:
        """Delete what is too old; return the number of observations.

        Raises:
            StoreError: The store fails.
        """
        self._hours = self._store.retention_hours()
        count = self._store.expire(self.oldest_us())
        self.expired += count
        return count

    def apply_if_due(self) -> None:
        """Delete what is too old if the last time is long enough ago; log a failure, to try again later."""
        with self._lock:
            if time.monotonic() < self._due:
                return
            self._due = time.monotonic() + self._every_s
        try:
            self.apply()
        except StoreError as error:
            log.error("cannot delete what is older than the retention; trying again in %g s: %s", self._every_s, error)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Apply the retention from a thread of its own, also while nothing arrives."""
        stopped = threading.Event()

        def keep_applying() -> None:
            while not stopped.wait(self._every_s):
                self.apply_if_due()

        self.apply_if_due()
        thread = threading.Thread(target=keep_applying, name="retention", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join(STOP_S)


def change_retention(store: Store, hours: float) -> None:
    """Change the retention unless it is so long already, and record it in the audit.

    Raises:
        UsageError: ``hours`` are not more than 0, or are more than a year.
        StoreError: The store fails.
    """
    before = store.retention_hours()
    if hours == before:
        return
    if not 0 < hours <= LONGEST_RETENTION_HOURS:  # also refuses what is not a number
        raise UsageError(
            f"--retention-hours must be more than 0 and at most {LONGEST_RETENTION_HOURS:g} (a year); got {hours:g}."
        )
    audit.record(store, "retention", {"hours": hours, "before": before}, at_us=now_us())
    store.set_retention_hours(hours)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Receipt of an erasure.

    Attributes:
        store: URI of the gallery.
        at_us: Time of the request, microseconds since 1970 UTC.
        by: Operating system user.
        asked: The selection.
        purpose: Reason in the user's words.
        observations: Number of deleted observations.
        cameras: Number of deleted observations of each camera.
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
    """Return a selection that restricts something.

    Raises:
        UsageError: It selects everything.
    """
    if selection == Selection():
        raise UsageError("say what to erase: a camera, a time, a tracklet; --until now is everything up to now.")
    return selection


def erase_with_receipt(store: Store, selection: Selection, *, purpose: str, now_us: int) -> Receipt:
    """Delete the selected observations, keep out those that have not arrived yet, and record it in the audit.

    The audit gets an entry before and one after, so that an erasure that was interrupted can be seen and repeated.

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
        cameras=dict(Counter(camera for camera, _, _ in erased.keys)),
        ids_sha256=ids_sha256(erased.keys),
        leftovers=erased.leftovers,
    )
    audit.record(store, "erase", asdict(receipt), at_us=now_us, purpose=purpose)
    return receipt


def ids_sha256(keys: Sequence[Key]) -> str:
    """Return the digest of erased ids that a receipt holds."""
    digest = hashlib.sha256()
    for camera, incarnation, seq in keys:
        digest.update(f"{camera}/{incarnation}/{seq}\n".encode())
    return digest.hexdigest()
