"""People while observations arrive: what the collector has stored is given to people at once."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from reid_edge.errors import PeopleChangedError, ReidEdgeError
from reid_edge.gallery.clock import aging_us, kept_since_us
from reid_edge.gallery.entries import Key, Record, Selection
from reid_edge.gallery.held_tracklets import gathered_tracklets, name_of, read_tracklets
from reid_edge.gallery.people import MOST_TOGETHER, circumstances, doubt_text, identify
from reid_edge.gallery.people_lease import PeopleLease
from reid_edge.gallery.population import Changes, Circumstances, OnlinePopulation, constraints_of
from reid_edge.gallery.renewal import renewed
from reid_edge.gallery.repeating import STOP_S, repeating
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import TrackletSpan
from reid_edge.gallery.store.erasures import Erasure, covering_selections, not_erased
from reid_edge.gallery.store.people import Assignment, Decision, PeopleChange, PersonEvent
from reid_edge.gallery.times import now_us, time_text
from reid_edge.identity.constraints import Pair
from reid_edge.identity.people_table import Numbers
from reid_edge.identity.transit import StatedTransits
from reid_edge.sparse_log import SparseLog
from reid_edge.types import Feature

log = logging.getLogger(__name__)

#: New observations are looked at so often, seconds.
EVERY_S = 1.0
#: Tracklets that are too old are forgotten, and those of other processes looked for, so often, seconds.
COMPARED_EVERY_S = 60.0
#: Time within which a tracklet was seen that is looked for each time, microseconds.
RECENT_US = 15 * 60 * 1_000_000
#: Each time all tracklets of one camera are looked for as well; not more often than so, seconds, those of each camera.
ROUND_EVERY_S = 3600.0
#: More tracklets than any gallery holds.
MOST_TRACKLETS = 10**9
#: Health says for so long that a camera was moved.
SAID_FOR_S = 600.0
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
        self._lease = PeopleLease(store, clock=clock)
        self._queue: queue.SimpleQueue[Sequence[Record]] = queue.SimpleQueue()
        self._populations: dict[str, OnlinePopulation] = {}
        self._numbers = Numbers(1)
        self._revision = -1
        self._decisions: list[Decision] = []
        self._erasures: list[Erasure] = []
        self._compare_at_s = self._round_at_s = 0.0
        self._round: list[str] = []
        self._told: int | None = None
        self._log = SparseLog(log)
        self._moved: dict[str, tuple[float, float]] = {}
        self._doubted: set[Pair] = set()
        self._waiting: dict[Key, TrackletSpan] = {}
        self._passed: dict[Key, TrackletSpan] = {}
        self.trouble = ""

    def take(self, records: Sequence[Record]) -> None:
        """Note what has been stored."""
        self._queue.put(records)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Work from a thread of its own until the block ends."""
        try:
            with repeating(self.work_or_log, doing="giving tracklets to people", every_s=EVERY_S):
                yield
        finally:
            thread = threading.Thread(target=self._give_back, daemon=True)  # a store that hangs holds up nobody
            thread.start()
            thread.join(STOP_S)

    def _give_back(self) -> None:
        with contextlib.suppress(ReidEdgeError):
            self._lease.give_back()

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
            PeopleServedError: Another process does this work.
        """
        records = [record for some in self._drained() for record in some]
        self._lease.take()
        if self._told is None:
            self._told = self._last_event()
        if self._store.people_state().revision != self._revision:
            self._read_again(again=False)
        elif records or time.monotonic() >= self._compare_at_s:
            self._forget_erased()
            self._assign(not_erased(records, self._erasures))
        if time.monotonic() >= self._compare_at_s:
            self._compare()
        self._learn_again()
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
        self._erasures = self._store.erasures()  # before: what is erased meanwhile is noticed afterwards
        before = {model_hash: one.moved for model_hash, one in self._populations.items()}
        for done in identify(self._store, now_us=self._clock(), again=again, transits=self._transits):
            for pair in set(done.doubtful) - self._doubted:
                self._doubted.add(pair)
                log.warning("%s", doubt_text(pair))
        state, assignments = self._store.people_state(), self._store.assignments()
        self._decisions = self._store.decisions()
        self._numbers = Numbers(state.next_person)
        known = {name_of(one.tracklet): one for one in assignments}
        held = read_tracklets(self._store, since_us=kept_since_us(self._store, self._clock()))
        self._populations = {
            model_hash: OnlinePopulation(
                tracklets,
                {name: known[name] for name in tracklets if name in known and known[name].model_hash == model_hash},
                self._given(model_hash),
            )
            for model_hash, tracklets in held.items()
        }
        self._revision = state.revision
        self._compare_at_s, self._round_at_s = time.monotonic() + COMPARED_EVERY_S, time.monotonic() + ROUND_EVERY_S
        self._round = []
        for model_hash, moved in before.items():
            self._note_moves(moved, self._populations.get(model_hash))

    def _note_moves(self, before: Mapping[str, tuple[float, ...]], now: OnlinePopulation | None) -> None:
        """Note the cameras that were moved since they were last looked at, and log each once."""
        for camera, at_s in ({} if now is None else now.moved_after(before)).items():
            self._moved[camera] = (at_s, time.monotonic())
            log.warning("%s", _moved_text(camera, at_s))

    def _given(self, model_hash: str) -> Circumstances:
        return circumstances(
            self._store,
            model_hash,
            operator=constraints_of(self._decisions),
            transits=self._transits,
            numbers=self._numbers,
        )

    def _forget_erased(self) -> None:
        """Forget what has been erased since the last look, and what was learnt of it.

        Of a tracklet of which a part is left, the part is read again.
        """
        known = {rule.id: rule.until_us for rule in self._erasures}
        self._erasures = self._store.erasures()
        new = [rule for rule in self._erasures if known.get(rule.id) != rule.until_us]
        if not new:
            return
        covering_it = covering_selections(new)
        for model_hash, population in list(self._populations.items()):
            erased = {name: rules for name, one in population.assignments.items() if (rules := list(covering_it(one)))}
            if any(
                all((rule.since_us or 0) > population.assignments[name].first_us for rule in rules)
                for name, rules in erased.items()
            ):
                self._read_again(again=False)
                return
            if erased:
                population.remove(erased)
                self._learn_anew(model_hash)

    def _learn_again(self) -> None:
        """Learn centring and background again where they are out of date; compare all tracklets, if they are not many.

        That is where as many tracklets have come as there were before, a camera was moved, or one is new.
        """
        outgrown = {name for name, one in self._populations.items() if one.moved_since or one.outgrown}
        if outgrown and sum(map(len, self._populations.values())) <= MOST_TOGETHER:
            self._read_again(again=True)
            return
        for model_hash, population in list(self._populations.items()):
            if model_hash in outgrown or population.has_new_camera:
                self._learn_anew(model_hash)

    def _learn_anew(self, model_hash: str) -> None:
        """Learn centring and background from the tracklets of a model in memory, whose people stay."""
        before = self._populations.pop(model_hash)
        if len(before):
            now = self._populations[model_hash] = before.learnt_again(self._given(model_hash))
            self._note_moves(before.moved, now)

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
        said = self._renewed()
        change = PeopleChange(assignments=assignments, decisions=said, events=events, next_person=self._numbers.next)
        try:
            self._revision = self._store.change_people(change, revision=self._revision).revision
        except PeopleChangedError:
            self._read_again(again=False)
            return
        if said:
            self._decisions += said
            operator = constraints_of(self._decisions)
            for population in self._populations.values():
                population.follow(operator)

    def _renewed(self) -> list[Decision]:
        """Return what operators have said, for the tracklets that people have now."""
        if not self._decisions:
            return []
        rows: list[Assignment] = []
        features: dict[str, Feature] = {}
        for population in self._populations.values():
            some = population.of_people_in(self._decisions)
            rows += some
            features |= population.features_of(some)
        return renewed(self._decisions, rows, features, aging_us=aging_us(self._store, self._clock()))

    def _compare(self) -> None:
        """Forget tracklets that are too old to be kept, and give those to people that another process has stored.

        A tracklet counts as another process's if it was found without a person, or with more than is known of it, and
        that is still so a minute later: one that was stored by this process is on its way.
        """
        self._compare_at_s = time.monotonic() + COMPARED_EVERY_S
        kept_us = kept_since_us(self._store, self._clock())
        for population in self._populations.values():
            population.remove([name for name, one in population.assignments.items() if one.last_us < kept_us])
        self._decisions = self._store.decisions()
        missed = {key: one for key, one in self._waiting.items() if one.last_us >= kept_us and self._is_news(one)}
        self._waiting = {_key_of(one): one for one in self._listed(kept_us) if self._is_news(one)}
        self._passed = {key: one for key, one in self._passed.items() if one.last_us >= kept_us}
        if any(key not in self._passed or self._passed[key].seq < one.seq for key, one in missed.items()):
            self._passed |= missed  # what has no person after that never gets one, as a feature of zeros
            self._read_again(again=False)

    def _is_news(self, one: TrackletSpan) -> bool:
        """Return whether more is stored of a tracklet than is known of it."""
        name = name_of(_key_of(one))
        known = [each.assignments[name].seq for each in self._populations.values() if name in each.assignments]
        return one.seq > max(known, default=-1)

    def _listed(self, since_us: int) -> list[TrackletSpan]:
        """Return the tracklets that the gallery holds of the last minutes, and all of one camera after the other."""
        recent = Selection(since_us=max(since_us, self._clock() - RECENT_US))
        spans = self._store.tracklets(recent, limit=MOST_TRACKLETS)
        if not self._round and time.monotonic() >= self._round_at_s:
            self._round_at_s = time.monotonic() + ROUND_EVERY_S
            self._round = [one.camera for one in self._store.cameras(since_us)]
        if self._round:
            of_camera = Selection(cameras=(self._round.pop(),), since_us=since_us)
            spans += self._store.tracklets(of_camera, limit=MOST_TRACKLETS)
        return spans

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


def _key_of(one: TrackletSpan) -> Key:
    return one.camera, one.incarnation, one.track


def _moved_text(camera: str, at_s: float) -> str:
    since = time_text(round(at_s * 1e6), utc=True)
    return (
        f"the features of {camera} are others since {since}: it was moved, or its light is another; what it sees since "
        "is compared by a mean of its own"
    )
