"""People while observations arrive: what the collector has stored is given to people at once."""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from reid_edge.errors import PeopleChangedError, ReidEdgeError
from reid_edge.gallery.clock import kept_since_us
from reid_edge.gallery.entries import Key, Record, Selection
from reid_edge.gallery.held_tracklets import gathered_tracklets, name_of, read_tracklets
from reid_edge.gallery.people import MOST_TOGETHER, circumstances, doubt_text, identify
from reid_edge.gallery.population import Changes, OnlinePopulation, constraints_of
from reid_edge.gallery.repeating import repeating
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.people import Assignment, PeopleChange, PersonEvent
from reid_edge.gallery.times import now_us, time_text
from reid_edge.identity.constraints import Pair
from reid_edge.identity.people_table import Numbers
from reid_edge.identity.transit import StatedTransits
from reid_edge.sparse_log import SparseLog

log = logging.getLogger(__name__)

#: New observations are looked at so often, seconds.
EVERY_S = 1.0
#: Tracklets that are not held any more are forgotten so often, seconds; those of other processes, the second time.
COMPARED_EVERY_S = 60.0
#: More tracklets than any gallery holds.
MOST_TRACKLETS = 10**9
#: Health says for so long that a camera was moved.
SAID_FOR_S = 600.0
#: Least number of tracklets of which strangers can be known.
LEAST = 20
#: Events that are read at a time.
PAGE = 1000


class LivePeople:
    """Gives tracklets to people as they come; :meth:`take` may be called from any thread, the rest from one.

    Args:
        store: Which gallery.
        transits: Stated times between cameras; None: none.
        tell: Called with each event of the gallery's people, whoever made it, from the start on.
        clock: Returns the machine's time of day, microseconds since 1970 UTC.

    Attributes:
        trouble: Why tracklets are not given to people now; "" if they are.
    """

    def __init__(
        self,
        store: Store,
        *,
        transits: StatedTransits | None = None,
        tell: Callable[[PersonEvent], None] | None = None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self._store, self._transits, self._tell, self._clock = store, transits, tell, clock
        self._queue: queue.SimpleQueue[Sequence[Record]] = queue.SimpleQueue()
        self._populations: dict[str, OnlinePopulation] = {}
        self._numbers = Numbers(1)
        self._revision = -1
        self._compare_at_s = 0.0
        self._told: int | None = None
        self._log = SparseLog(log)
        self._moved: dict[str, tuple[float, float]] = {}
        self._doubted: set[Pair] = set()
        self._waiting: dict[Key, int] = {}
        self._passed: dict[Key, int] = {}
        self.trouble = ""

    def take(self, records: Sequence[Record]) -> None:
        """Note what has been stored."""
        self._queue.put(records)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Work from a thread of its own until the block ends."""
        with repeating(self.work_or_log, doing="giving tracklets to people", every_s=EVERY_S):
            yield

    def work_or_log(self) -> None:
        """Work; a failure is logged, and everything is read again the next time."""
        try:
            self.work()
            self.trouble = ""
        except ReidEdgeError as error:
            self._revision = -1
            self.trouble = f"{error}".rstrip(" .")
            self._log.warning("failed", "tracklets are not given to people for now: %s", error)
        except Exception as error:
            self._revision = -1
            self.trouble = f"{type(error).__name__}: {error}"
            raise

    def work(self) -> None:
        """Give what has arrived to people, and tell of events.

        Raises:
            StoreError: The store fails.
            ContradictionError: Operators have joined tracklets that cannot be one person.
        """
        records = [record for some in self._drained() for record in some]
        if self._told is None:
            self._told = self._last_event()
        if self._store.people_state().revision != self._revision:
            self._read_again(again=False)
        elif records:
            self._assign(records)
        if time.monotonic() >= self._compare_at_s:
            self._compare()
        outgrown = [
            one for one in self._populations.values() if one.moved_since or len(one) >= max(2 * one.learnt_from, LEAST)
        ]
        if outgrown:
            self._read_again(again=sum(map(len, self._populations.values())) <= MOST_TOGETHER)
        self._tell_events()

    @property
    def moved(self) -> list[str]:
        """Cameras that were moved, or whose light is another, as noticed within the last ten minutes, in words."""
        since_s = time.monotonic() - SAID_FOR_S
        return [
            _moved_text(camera, at_s) for camera, (at_s, noticed_s) in self._moved.copy().items() if noticed_s > since_s
        ]

    def _drained(self) -> Iterator[Sequence[Record]]:
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._queue.get_nowait()

    def _read_again(self, *, again: bool) -> None:
        """Give all tracklets of the gallery to people, and go on from there."""
        before = {model_hash: one.moved for model_hash, one in self._populations.items()}
        for done in identify(self._store, now_us=self._clock(), again=again, transits=self._transits):
            for pair in set(done.doubtful) - self._doubted:
                self._doubted.add(pair)
                log.warning("%s", doubt_text(pair))
        state, assignments = self._store.people_state(), self._store.assignments()
        operator = constraints_of(self._store.decisions())
        self._numbers = Numbers(state.next_person)
        known = {name_of(one.tracklet): one for one in assignments}
        held = read_tracklets(self._store, since_us=kept_since_us(self._store, self._clock()))
        self._populations = {
            model_hash: OnlinePopulation(
                tracklets,
                {name: known[name] for name in tracklets if name in known and known[name].model_hash == model_hash},
                circumstances(
                    self._store, model_hash, operator=operator, transits=self._transits, numbers=self._numbers
                ),
            )
            for model_hash, tracklets in held.items()
        }
        self._revision = state.revision
        self._compare_at_s = time.monotonic() + COMPARED_EVERY_S
        for model_hash, moved in before.items():
            self._note_moves(moved, self._populations.get(model_hash))

    def _note_moves(self, before: Mapping[str, tuple[float, ...]], now: OnlinePopulation | None) -> None:
        """Note the cameras that were moved since they were last looked at, and log each once."""
        for camera, times in {} if now is None else now.moved.items():
            if times[-1] > before.get(camera, (-math.inf,))[-1]:
                self._moved[camera] = (times[-1], time.monotonic())
                log.warning("%s", _moved_text(camera, times[-1]))

    def _assign(self, records: Sequence[Record]) -> None:
        assignments: list[Assignment] = []
        events: list[PersonEvent] = []
        for model_hash, tracklets in gathered_tracklets(records).items():
            population = self._populations.get(model_hash)
            if population is None:
                self._read_again(again=False)
                return
            changes = Changes()
            for one in sorted(tracklets.values(), key=lambda one: (one.last_us, one.key)):
                population.add(one, changes, at_us=self._clock())
            assignments += changes.assignments.values()
            events += changes.events
        if not assignments:
            return
        change = PeopleChange(assignments=assignments, events=events, next_person=self._numbers.next)
        try:
            self._revision = self._store.change_people(change, revision=self._revision).revision
        except PeopleChangedError:
            self._read_again(again=False)

    def _compare(self) -> None:
        """Forget tracklets that have been deleted, and give those to people that another process has stored.

        A tracklet counts as another process's once it was found without a person, or with more than is known of it, by
        two comparisons in a row: one that was stored by this process is on its way.
        """
        self._compare_at_s = time.monotonic() + COMPARED_EVERY_S
        known = {one.tracklet: one.seq for one in self._store.assignments()}
        held = {name_of(tracklet) for tracklet in known}
        for population in self._populations.values():
            population.remove([name for name in population.assignments if name not in held])
        kept = Selection(since_us=kept_since_us(self._store, self._clock()))
        spans = self._store.tracklets(kept, limit=MOST_TRACKLETS)
        stored = {(one.camera, one.incarnation, one.track): one.seq for one in spans}
        before, self._waiting = self._waiting, {key: seq for key, seq in stored.items() if seq > known.get(key, -1)}
        missed = {key: seq for key, seq in before.items() if key in self._waiting and seq > known.get(key, -1)}
        self._passed = {key: seq for key, seq in self._passed.items() if key in self._waiting}
        if any(seq > self._passed.get(key, -1) for key, seq in missed.items()):
            self._passed.update(missed)  # what has no person after that never gets one, as a feature of zeros
            self._read_again(again=False)

    def _last_event(self) -> int:
        last = 0
        while page := self._store.person_events(last, limit=PAGE):
            last = page[-1].number
        return last

    def _tell_events(self) -> None:
        if self._tell is None:
            return
        while page := self._store.person_events(self._told or 0, limit=PAGE):
            for event in page:
                self._tell(event)
                self._told = event.number


def _moved_text(camera: str, at_s: float) -> str:
    since = time_text(round(at_s * 1e6), utc=True)
    return (
        f"the features of {camera} are others since {since}: it was moved, or its light is another; what it sees since "
        "is compared by a mean of its own"
    )
