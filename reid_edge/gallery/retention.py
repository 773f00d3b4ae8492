"""Nothing is kept longer than the gallery's retention."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from reid_edge.errors import StoreError
from reid_edge.gallery.store import Store

log = logging.getLogger(__name__)

HOUR_US = 3600 * 1_000_000
#: A deletion that another process holds up longer ends with this one: nothing of it is committed.
STOP_S = 2.0


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


class Retention:
    """Deletes what is too old, now and then.

    Args:
        store: Which gallery.
        every_s: Time between two deletions.
        clock: Microseconds since 1970 UTC.
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
        """What was last seen before is too old."""
        return self._clock() - int(self._hours * HOUR_US)

    def apply(self) -> int:
        """Delete what is too old; returns the number of observations.

        Raises:
            StoreError: The store fails.
        """
        self._hours = self._store.retention_hours()
        count = self._store.expire(self.oldest_us())
        self.expired += count
        return count

    def apply_if_due(self) -> None:
        """Delete what is too old if the last time is long enough ago; a failure is logged and tried again."""
        with self._lock:
            if time.monotonic() < self._due:
                return
            self._due = time.monotonic() + self._every_s
        try:
            self.apply()
        except StoreError as error:
            log.error("retention not applied, tried again in %g s: %s", self._every_s, error)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Keep applying it from a thread of its own, also while nothing arrives."""
        stopped = threading.Event()

        def keep() -> None:
            while not stopped.wait(self._every_s):
                self.apply_if_due()

        self.apply_if_due()
        thread = threading.Thread(target=keep, name="retention", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join(STOP_S)
