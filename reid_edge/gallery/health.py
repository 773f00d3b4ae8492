"""Health of a gallery: whether commits succeed, and every problem in one list, for people, metrics and the log."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from reid_edge.errors import StoreError
from reid_edge.gallery.repeating import repeating
from reid_edge.gallery.store import Store
from reid_edge.sparse_log import SparseLog

#: A commit that runs for longer is a problem.
SLOW_S = 20.0
#: A store that has taken nothing for so long is probed.
PROBE_S = 10.0
#: Setting that a probe writes: microseconds since 1970 UTC.
PROBED = "probed_us"
#: A failed commit is forgotten after so long without another, if the store then takes what a probe writes.
FORGIVEN_S = 120.0

log = logging.getLogger(__name__)


#: Kinds of problems, as metrics have them.
KINDS = ("store", "retention", "broker", "quota", "twins", "people", "moved")
#: Kinds that are logged where they happen, also without a server.
_LOGGED_ELSEWHERE = frozenset({"retention", "people", "moved"})


@dataclass(frozen=True)
class Problem:
    """What is wrong: a word to count by, and a short sentence without a full stop."""

    kind: str
    text: str


class CommitRecord:
    """What became of the last commit, and since when the next one runs; may be used from any thread.

    Args:
        clock: Returns seconds that only grow.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failure, self._failed_s = "", 0.0
        self._running: dict[object, float] = {}
        self._succeeded_s = clock()

    @property
    def running_s(self) -> float:
        """Seconds for which a commit or probe has been running; 0 if none is."""
        with self._lock:
            since = min(self._running.values(), default=None)
        return 0.0 if since is None else self._clock() - since

    @property
    def idle_s(self) -> float:
        """Seconds since the store last took something."""
        return self._clock() - self._succeeded_s

    @property
    def trouble(self) -> str:
        """Reason why nothing is stored, or an empty text."""
        if self.running_s > SLOW_S:
            return f"the store has not answered for {self.running_s:.0f} s"
        return self._failure

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Record that something is being stored, and a failure; a success is recorded by :meth:`succeeded`."""
        this = object()
        with self._lock:
            self._running[this] = self._clock()
        try:
            yield
        except StoreError as error:
            self._fail(f"cannot store: {error}")
            raise
        except Exception as error:
            self._fail(f"cannot store: {type(error).__name__}: {error}")
            raise
        finally:
            with self._lock:
                del self._running[this]

    def succeeded(self, *, probe: bool = False) -> None:
        """Record that the store took a commit, or what a probe wrote, which may be too small to prove much."""
        with self._lock:
            self._succeeded_s = self._clock()
            if not probe or self._succeeded_s - self._failed_s > FORGIVEN_S:
                self._failure = ""

    def _fail(self, reason: str) -> None:
        with self._lock:
            self._failure, self._failed_s = reason.rstrip(" ."), self._clock()


def probe(store: Store, commits: CommitRecord) -> None:
    """Have the store write and read a value, unless a commit has just shown that it can; record what came of it."""
    if commits.idle_s < PROBE_S or commits.running_s:
        return
    with contextlib.suppress(StoreError), commits.one():
        written = f"{time.time_ns() // 1000}"
        store.change_settings({PROBED: written})
        if store.settings(PROBED).get(PROBED) != written:
            raise StoreError("it does not hold what was just written.")
        commits.succeeded(probe=True)


@contextlib.contextmanager
def probing(
    store: Store, commits: CommitRecord, also: Callable[[], None], *, every_s: float = PROBE_S
) -> Iterator[None]:
    """Probe a store from a thread of its own: a full disk or a hung database is noticed while nothing arrives.

    Args:
        store: The store.
        commits: Gets to know of the outcome.
        also: Called after each probe; may wait for the store.
        every_s: Seconds between two probes.
    """

    def work() -> None:
        probe(store, commits)
        also()

    with repeating(work, doing="probing the store", every_s=every_s):
        yield


class Health:
    """All problems of a gallery; asking for them never waits.

    Args:
        sources: Each yields the problems that there are now.
    """

    def __init__(self, sources: Iterable[Callable[[], Iterable[Problem]]]) -> None:
        self._sources = tuple(sources)
        self._log = SparseLog(log)

    def problems(self) -> list[Problem]:
        """Return what is wrong now, the worst first."""
        return [problem for source in self._sources for problem in source()]

    def reason(self) -> str:
        """Return what is wrong in one line, or an empty text."""
        return "; ".join(problem.text for problem in self.problems())

    def log(self) -> None:
        """Log each kind of problem that there is, once a minute at most."""
        for problem in self.problems():
            if problem.kind in _LOGGED_ELSEWHERE:
                continue
            self._log.warning(problem.kind, "%s", problem.text)
