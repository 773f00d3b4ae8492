"""The collector: checks batches from cameras, stores them, and acknowledges what the cameras may delete."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from reid_edge.errors import ModelMismatchError, StoreError, UsageError
from reid_edge.gallery.admission import Admission, Circumstances, SortedBatch
from reid_edge.gallery.deletion import Retention
from reid_edge.gallery.entries import Record
from reid_edge.gallery.health import CommitRecord
from reid_edge.gallery.quota import Quota
from reid_edge.gallery.replay import ReplayLog
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import Added
from reid_edge.gallery.times import now_us
from reid_edge.upstream.clocks import Reading, read_clocks
from reid_edge.upstream.observation import Replay
from reid_edge.wire_names import checked_wire_name

#: Name of a gallery that is given none.
DEFAULT_NAME = "gallery"
#: Longest wait for the commit of another thread.
WAIT_S = 30.0


@dataclass
class CollectorStats:
    """Counts since the start.

    Attributes:
        batches: Batches received, malformed ones included.
        malformed: Batches that could not be read; they get no acknowledgement.
        stored: Observations newly stored.
        duplicates: Observations that had been stored before.
        erased: Observations kept out because they were erased before they arrived.
        gaps: Gaps newly stored that cameras declared.
        refused: Observations refused, by kind of reason.
        elsewhere: Batches that were for other galleries.
        observations_elsewhere: Observations of these, each counted once.
        last_stored_us: Time of the last commit that stored an observation; 0 for never.
    """

    batches: int = 0
    malformed: int = 0
    stored: int = 0
    duplicates: int = 0
    erased: int = 0
    gaps: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    elsewhere: int = 0
    observations_elsewhere: int = 0
    last_stored_us: int = 0


class Collector:
    """Stores each observation that cameras send once; may be called from several threads.

    The first model that an empty gallery sees is accepted; features of another are refused until someone runs
    ``reid-edge gallery accept-model``.  Batches also trigger the retention, once a minute at most; a process that may
    receive nothing for long should run ``collector.retention.running()`` too.

    Args:
        store: Gallery to store in.
        name: Name of the gallery, which acknowledgements carry.
        quota: What each camera may bring.
        expire_every_s: Seconds between two applications of the retention.
        clock: Returns the machine's time of day, microseconds since 1970 UTC.
        read: Reads the machine's other clocks, against which that one is checked.
        stored: Called with what was committed, observations that had been stored before included; must not block.

    Attributes:
        name: Name of the gallery.
        retention: Deletes what is older than the gallery's retention.
        accounts: What each camera has brought, and which of them go beyond.
        commits: What became of the last commits.
        replays: What cameras were asked to send again, and what came.

    Raises:
        UsageError: A name that cannot be on the wire.
    """

    def __init__(
        self,
        store: Store,
        *,
        name: str = DEFAULT_NAME,
        quota: Quota | None = None,
        expire_every_s: float = 60.0,
        clock: Callable[[], int] = now_us,
        read: Callable[[], Reading] = read_clocks,
        stored: Callable[[Sequence[Record]], None] | None = None,
    ) -> None:
        self._tell_stored = stored
        self.name = checked_wire_name(name, "the name of a gallery", UsageError)
        self._store = store
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._stats = CollectorStats()
        self._admission = Admission(store, quota or Quota())
        self.accounts = self._admission.accounts
        self.commits = CommitRecord()
        self.replays = ReplayLog()
        self.retention = Retention(store, every_s=expire_every_s, clock=clock, read=read)

    @property
    def stats(self) -> CollectorStats:
        """A copy of the counts up to now, also while a commit takes long."""
        with self._counting:
            return replace(self._stats, refused=Counter(self._stats.refused))

    def receive(
        self, batches: Sequence[bytes], *, senders: Sequence[str | None] = (), shared_as: str | None = None
    ) -> list[bytes]:
        """Store batches in one commit.

        Args:
            batches: Encoded batches, N, of any cameras.
            senders: Camera named by the topic or certificate of each batch, N, None if unknown; a batch that claims to
                be of another camera is refused.  Empty: no sender is known.
            shared_as: Name of this gallery on a transport by which several galleries get the same batches: those for
                others get no acknowledgement.  None: batches are sent to this gallery alone, and are answered.

        Returns:
            An encoded acknowledgement for each, N; ``b""`` for bytes that are not a batch, or one for other galleries.

        Raises:
            StoreError: Nothing was stored: send no acknowledgement.
        """
        name = shared_as or self.name
        if not self._lock.acquire(timeout=WAIT_S):
            raise StoreError(f"the gallery has been busy with another commit for {WAIT_S:g} s.")
        try:
            with self.commits.one():
                parts = self._stored(batches, senders or [None] * len(batches), name)
        finally:
            self._lock.release()
        self.retention.apply_if_due()
        silent = [part is None or (part.elsewhere and shared_as is not None) for part in parts]
        replay = self.retention.replay
        if replay is not None:
            self._note_replay(parts, replay)
        return [b"" if no or part is None else part.ack(name, replay) for no, part in zip(silent, parts, strict=True)]

    def _stored(self, batches: Sequence[bytes], senders: Sequence[str | None], name: str) -> list[SortedBatch | None]:
        clock = self.retention.clock
        now = Circumstances(now_us=clock.now().latest_us, oldest_us=self.retention.oldest_us(), gallery=name)
        self._admission.forget_models()  # what was refused last time may have been accepted since
        parts: list[SortedBatch | None] = []
        try:
            for payload, sender in zip(batches, senders, strict=True):
                parts.append(self._admission.sort(payload, sender, now))
            added = self._added(_present(parts))
        except BaseException:
            self._admission.undo(_present(parts))
            raise
        self._admission.stored(_present(parts))
        for sender, part in zip(senders, parts, strict=True):
            if sender is not None and part is not None and part.records:  # from another machine
                clock.heard(sender, max(record.entry.last_us for record in part.records))
        self._count(parts, added, now.now_us)
        return parts

    def _note_replay(self, parts: Sequence[SortedBatch | None], replay: Replay) -> None:
        for part in _present(parts):
            if part.records or (part.gaps and not part.elsewhere):
                self.replays.came(part.records)
                self.replays.asked(part.batch.camera, replay, self.retention.clock.now().latest_us)
        self.replays.report()

    def _count(self, parts: Sequence[SortedBatch | None], added: Added, moment: int) -> None:
        with self._counting:
            stats = self._stats
            stats.batches += len(parts)
            stats.malformed += parts.count(None)
            stats.stored += added.stored
            stats.duplicates += added.duplicates
            stats.erased += added.erased
            stats.gaps += added.gaps
            stats.observations_elsewhere += added.elsewhere
            stats.last_stored_us = moment if added.stored else stats.last_stored_us
            for part in _present(parts):
                stats.elsewhere += part.elsewhere
                for fault, seqs in part.refused.items():
                    stats.refused[fault.kind] += len(seqs)

    def _added(self, parts: Sequence[SortedBatch]) -> Added:
        records = [record for part in parts for record in part.records]
        gaps = [gap for part in parts for gap in part.gaps]
        if not records and not gaps:
            return Added(0, 0, 0, 0)
        try:
            added = self._store.add(records, gaps)
        except ModelMismatchError as error:  # another gallery is in its place now
            raise StoreError(f"the gallery was replaced while it was open: {error}") from error
        self.commits.succeeded()
        if self._tell_stored is not None and records:
            self._tell_stored(records)
        return added


def _present(parts: Iterable[SortedBatch | None]) -> list[SortedBatch]:
    return [part for part in parts if part is not None]
