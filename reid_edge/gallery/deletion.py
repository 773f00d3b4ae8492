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

from reid_edge.errors import ReidEdgeError, StoreError, UsageError
from reid_edge.gallery import audit
from reid_edge.gallery.calibrating import forget_uncalibrated, learn_after_erasure
from reid_edge.gallery.clock import GalleryClock, Moment, latest_us
from reid_edge.gallery.entries import LONGEST_RETENTION_HOURS, Key, Selection
from reid_edge.gallery.repeating import repeating
from reid_edge.gallery.replay import replay_request
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import AuditEntry
from reid_edge.gallery.store.snapshots import check
from reid_edge.gallery.times import now_us
from reid_edge.upstream.clocks import Reading, read_clocks
from reid_edge.upstream.observation import Replay

log = logging.getLogger(__name__)

HOUR_US = 3600 * 1_000_000
#: The whole store is read so often, to find damage; the first time so long after the start.
CHECK_EVERY_S, CHECK_AFTER_S = 24 * 3600.0, 600.0
#: A warning that lasts is repeated so often.
WARN_EVERY_S = 60.0


class Retention:
    """Deletes what is older than the gallery's retention, at intervals.

    It waits where the machine's clock may be wrong (:mod:`reid_edge.gallery.clock`), and warns of it.

    Args:
        store: Which gallery.
        every_s: Seconds between two deletions.
        clock: Returns the machine's time of day, microseconds since 1970 UTC.
        read: Reads the machine's other clocks.

    Attributes:
        clock: The gallery's idea of the time.
        expired: Number of observations deleted so far.
        replay: Request to cameras to send again what they still have, as of the last deletion; None if there is none.
    """

    def __init__(
        self,
        store: Store,
        *,
        every_s: float = 60.0,
        clock: Callable[[], int] = now_us,
        read: Callable[[], Reading] = read_clocks,
    ) -> None:
        self._store = store
        self._every_s = every_s
        self._lock = threading.Lock()
        self._due = 0.0
        self._warn_at = 0.0
        self._failure = ""
        self._hours = store.retention_hours()
        self.clock = GalleryClock(store, wall=clock, read=read)
        self.expired = 0
        self.replay: Replay | None = replay_request(store)

    @property
    def trouble(self) -> str:
        """The reason why deletion waits, for a person; empty if it does not."""
        return self._failure or self.clock.trouble

    @property
    def damage(self) -> str:
        """What is damaged in the store, as far as it was read, for a person; empty if nothing is."""
        return self._store.damaged.trouble

    def oldest_us(self) -> int:
        """Return the time before which an observation was last seen too long ago to be kept."""
        return self._before(self.clock.now())

    def apply(self) -> int:
        """Delete what is too old, with a line in the audit; return the number of observations.

        Raises:
            StoreError: The store fails.
        """
        self._hours = self._store.retention_hours()
        self.replay = replay_request(self._store)
        moment = self.clock.tick()
        before_us = self._before(moment)
        detail = {"before_us": before_us, "retention_hours": self._hours}
        note = AuditEntry(at_us=moment.wall_us, user=audit.current_user(), action="expire", purpose="", detail=detail)
        count = self._store.expire(before_us, note)
        self.expired += count
        self._warn()
        return count

    def _look(self) -> None:
        """Read a part of the store; what is damaged is logged, and kept in its ``damaged``."""
        try:
            self._store.look()
        except StoreError:
            pass  # then nothing can be deleted or stored either, of which log and health tell
        except Exception:  # the thread's last resort
            log.exception("unexpected error while looking for damage")

    def _check_store(self) -> None:
        """Read all of the store; what is damaged is logged, and kept in its ``damaged``."""
        try:
            check(self._store)
        except Exception as error:  # the thread's last resort: it also deletes
            trace = None if isinstance(error, ReidEdgeError) else error
            log.error("cannot check the gallery; trying again tomorrow: %s", error, exc_info=trace)

    def _before(self, moment: Moment) -> int:
        return moment.earliest_us - int(self._hours * HOUR_US)

    def _warn(self) -> None:
        if self.clock.trouble and time.monotonic() >= self._warn_at:
            self._warn_at = time.monotonic() + WARN_EVERY_S
            log.warning("automatic deletion waits: %s", self.clock.trouble)

    def apply_if_due(self) -> None:
        """Delete what is too old if the last time is long enough ago; log a failure, to try again later."""
        with self._lock:
            if time.monotonic() < self._due:
                return
            self._due = time.monotonic() + self._every_s
        try:
            self.apply()
            self._failure = ""
        except Exception as error:  # the last resort: deletion goes on, and what was committed is acknowledged
            self._failure = f"{error}".rstrip(".") or type(error).__name__
            trace = None if isinstance(error, ReidEdgeError) else error
            log.error(
                "cannot delete what is older than the retention; trying again in %g s: %s",
                self._every_s,
                error,
                exc_info=trace,
            )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Apply the retention from a thread of its own, also while nothing arrives; look for damage."""
        checked_at = time.monotonic() - CHECK_EVERY_S + CHECK_AFTER_S

        def work() -> None:
            nonlocal checked_at
            self.apply_if_due()
            self._look()
            if time.monotonic() - checked_at >= CHECK_EVERY_S:
                checked_at = time.monotonic()
                self._check_store()

        self.apply_if_due()
        with repeating(work, doing="applying the retention", every_s=self._every_s):
            yield


def checked_hours(hours: float) -> float:
    """Return a retention that a gallery may have.

    Raises:
        UsageError: It is not more than 0, or is more than a year.
    """
    if not 0 < hours <= LONGEST_RETENTION_HOURS:  # also refuses what is not a number
        raise UsageError(
            f"--retention-hours must be more than 0 and at most {LONGEST_RETENTION_HOURS:g} (a year); got {hours:g}."
        )
    return hours


def change_retention(store: Store, hours: float) -> None:
    """Change the retention unless it is so long already, and record it in the audit.

    Raises:
        UsageError: ``hours`` are not more than 0, or are more than a year.
        StoreError: The store fails.
    """
    checked_hours(hours)
    before: float | None = None
    with contextlib.suppress(StoreError):  # what is damaged is set anew
        before = store.retention_hours()
    if hours == before:
        return
    audit.record(store, "retention", {"hours": hours, "before": before}, at_us=now_us())
    store.set_retention_hours(hours)


def believe_clock(store: Store, retention: Retention) -> None:
    """Believe the machine's clock, since a person says that it is right, and record it in the audit.

    Raises:
        StoreError: The store fails.
    """
    moment = retention.clock.now()
    detail = {"wall_us": moment.wall_us, "believed_us": moment.believed_us}
    audit.record(store, "clock", detail, at_us=moment.wall_us)
    retention.clock.believe()


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
        erasure: Names the rule that keeps them out, in the gallery, its journal and its backups; several, of the
            tracklets of a person, have spaces between.
        kept_out_until_us: Tracklets that the selection covers are kept out if they begin no later than this.
        leftovers: What is left of their bytes, or of what was learnt of them, in words; "none" if nothing is.
        not_promised: What may come back, in words; "" if nothing may.
    """

    store: str
    at_us: int
    by: str
    asked: dict[str, Any]
    purpose: str
    observations: int
    cameras: dict[str, int]
    ids_sha256: str
    erasure: str
    kept_out_until_us: int
    leftovers: str
    not_promised: str


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

    Args:
        store: Which gallery.
        selection: What to erase.
        purpose: Reason in the user's words, for the audit.
        now_us: The machine's time of day.  Where it is behind the gallery's own count, the count decides.

    Raises:
        UsageError: Nothing restricts the selection, or no purpose is given.
        StoreError: The store fails.
    """
    asked = checked_selection(selection).described()
    purpose = audit.checked_purpose(purpose)
    audit.record(store, "erase asked", {"asked": asked}, at_us=now_us, purpose=purpose)
    clock = GalleryClock(store, wall=lambda: now_us)
    forget_uncalibrated(store)  # before, since the erasure cleans up what it leaves in the file
    erased = store.erase(selection, now_us=max(clock.now().latest_us, latest_us(store, now_us)), boot=clock.boot)
    receipt = Receipt(
        store=store.name,
        at_us=now_us,
        by=audit.current_user(),
        asked=asked,
        purpose=purpose,
        observations=len(erased.keys),
        cameras=dict(Counter(camera for camera, _, _ in erased.keys)),
        ids_sha256=ids_sha256(erased.keys),
        erasure=erased.erasure.id if erased.erasure else "",
        kept_out_until_us=erased.erasure.until_us if erased.erasure else 0,
        leftovers=leftovers_text(erased.leftovers, learn_after_erasure(store, now_us=now_us)),
        not_promised=not_promised(clock),
    )
    audit.record(store, "erase", asdict(receipt), at_us=now_us, purpose=purpose)
    return receipt


def leftovers_text(left: str, learnt: str) -> str:
    """Return what is left of erased rows' bytes, and of what was learnt of them, in words; "none" if nothing is."""
    return "; ".join(one for one in (left, learnt) if one and one != "none") or "none"


def not_promised(clock: GalleryClock) -> str:
    """Return what may come back after an erasure because of the clock, in words; "" if nothing may."""
    if not clock.trouble:
        return ""
    return (
        "the clock of this machine may be wrong, so tracklets from before this erasure may be stamped later than "
        f"kept_out_until_us; erase again when it is right ({clock.trouble})"
    )


def ids_sha256(keys: Sequence[Key]) -> str:
    """Return the digest of erased ids that a receipt holds."""
    digest = hashlib.sha256()
    for camera, incarnation, seq in keys:
        digest.update(f"{camera}/{incarnation}/{seq}\n".encode())
    return digest.hexdigest()
