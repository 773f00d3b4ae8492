"""The collector: checks batches from cameras, stores them, and acknowledges what the cameras may delete."""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reid_edge.errors import MessageError, ModelMismatchError, StoreError
from reid_edge.features import l2_normalised
from reid_edge.gallery.deletion import Retention
from reid_edge.gallery.entries import LONGEST_TRACKLET_US, Entry, Record
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import AcceptedModel, Added, StoredGap
from reid_edge.gallery.times import duration_text, now_us
from reid_edge.upstream.message import decode_batch, encode_ack
from reid_edge.upstream.observation import Ack, Batch, Gap, Observation, Refusal

log = logging.getLogger(__name__)

#: Two clocks are seldom further apart than this; what is from later than now plus this is refused.
CLOCK_TOLERANCE_US = 5 * 60 * 1_000_000
#: A faulty camera must not fill the log with models.
MOST_WARNINGS = 20


@dataclass
class CollectorStats:
    """Counts since the start.

    Attributes:
        batches: Batches received, malformed ones included.
        malformed: Batches that could not be read; they get no acknowledgement.
        stored: Observations newly stored.
        duplicates: Observations that had been stored before.
        erased: Observations kept out because they were erased before they arrived.
        gaps: Gaps newly stored.
        refused: Observations refused, by kind of reason.
        last_stored_us: Time of the last commit that stored an observation; 0 for never.
    """

    batches: int = 0
    malformed: int = 0
    stored: int = 0
    duplicates: int = 0
    erased: int = 0
    gaps: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    last_stored_us: int = 0


@dataclass(frozen=True)
class Fault:
    """Reason to refuse an observation: a word to count by, and a sentence for an operator."""

    kind: str
    reason: str


def time_fault(seen: Observation, *, now_us: int, oldest_us: int) -> Fault | None:
    """Return the fault in the times of an observation, or None."""
    if not 0 < seen.first_us <= seen.captured_us <= seen.last_us:
        return Fault("time", "expected times with 0 < first_us ≤ captured_us ≤ last_us.")
    if seen.last_us - seen.first_us > LONGEST_TRACKLET_US:
        return Fault("time", "a tracklet cannot last longer than a week.")
    if seen.last_us > now_us + CLOCK_TOLERANCE_US:
        return Fault(
            "future",
            "last seen later than the gallery's clock shows: the camera's clock is ahead, or its video file was "
            "stamped in the future.",
        )
    if seen.last_us < oldest_us:
        kept = duration_text(now_us - oldest_us)
        return Fault("expired", f"last seen longer ago than the {kept} for which this gallery keeps observations.")
    return None


def model_fault(seen: Observation, models: Mapping[str, AcceptedModel]) -> Fault | None:
    """Return the fault if the model is not accepted or its features have another size, or None."""
    accepted = models.get(seen.model_hash)
    if accepted is None:
        return Fault(
            "model",
            f"features of model {seen.model_hash} cannot be compared with those of this gallery; to take them "
            f"nevertheless, where the gallery is: reid-edge gallery accept-model STORE {seen.model_hash}",
        )
    if accepted.dim != seen.feature.size:
        short = f"{seen.model_hash[:12]}…"
        return Fault(
            "model", f"expected {accepted.dim} numbers in a feature of model {short}; got {seen.feature.size}."
        )
    return None


def record_of(camera: str, incarnation: str, seq: int, seen: Observation) -> Record:
    """Return the record that the gallery stores of an observation."""
    entry = Entry.of(seen, camera=camera, incarnation=incarnation, seq=seq)
    return Record(entry, l2_normalised(seen.feature[None])[0])


def stored_gap(camera: str, incarnation: str, gap: Gap, received_us: int) -> StoredGap:
    """Return the gap as the gallery stores it."""
    return StoredGap(
        camera=camera,
        incarnation=incarnation,
        first_seq=gap.first_seq,
        last_seq=gap.last_seq,
        count=gap.count,
        reason=gap.reason,
        received_us=received_us,
    )


@dataclass
class _Sorted:
    """A batch, sorted into what to store and what to refuse."""

    batch: Batch
    records: list[Record] = field(default_factory=list)
    gaps: list[StoredGap] = field(default_factory=list)
    refused: dict[Fault, list[int]] = field(default_factory=lambda: defaultdict(list))

    def ack(self) -> bytes:
        return encode_ack(
            Ack(
                camera=self.batch.camera,
                incarnation=self.batch.incarnation,
                seqs=tuple(record.entry.seq for record in self.records),
                gaps=tuple((gap.first_seq, gap.last_seq) for gap in self.gaps),
                refused=tuple(Refusal(tuple(seqs), fault.reason) for fault, seqs in self.refused.items()),
            )
        )


class Collector:
    """Stores each observation that cameras send once; may be called from several threads.

    The first model that an empty gallery sees is accepted; features of another are refused until someone runs
    ``reid-edge gallery accept-model``.  Batches also trigger the retention, once a minute at most; a process that may
    receive nothing for long should run ``collector.retention.running()`` too.

    Args:
        store: Gallery to store in.
        expire_every_s: Seconds between two applications of the retention.
        clock: Returns microseconds since 1970 UTC.

    Attributes:
        retention: Deletes what is older than the gallery's retention.
    """

    def __init__(self, store: Store, *, expire_every_s: float = 60.0, clock: Callable[[], int] = now_us) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._stats = CollectorStats()
        self._models: dict[str, AcceptedModel] = {}
        self._not_accepted: set[str] = set()
        self._warned: set[str] = set()
        self.retention = Retention(store, every_s=expire_every_s, clock=clock)

    @property
    def stats(self) -> CollectorStats:
        """A copy of the counts up to now."""
        with self._lock:
            return replace(self._stats, refused=Counter(self._stats.refused))

    def receive(self, batches: Sequence[bytes], *, senders: Sequence[str | None] = ()) -> list[bytes]:
        """Store batches in one commit.

        Args:
            batches: Encoded batches, N, of any cameras.
            senders: Camera named by the topic or certificate of each batch, N, None if unknown; a batch that claims to
                be of another camera is refused.  Empty: no sender is known.

        Returns:
            An encoded acknowledgement for each, N; ``b""`` for bytes that are not a batch.

        Raises:
            StoreError: Nothing was stored: send no acknowledgement.
        """
        with self._lock:
            moment = self._clock()
            self._not_accepted.clear()  # what was refused last time may have been accepted since
            parts = [
                self._sorted(payload, sender, moment)
                for payload, sender in zip(batches, senders or [None] * len(batches), strict=True)
            ]
            self._store_all([part for part in parts if part is not None], moment)
            self._stats.batches += len(batches)
            self._stats.malformed += parts.count(None)
        self.retention.apply_if_due()
        return [b"" if part is None else part.ack() for part in parts]

    def _store_all(self, parts: Sequence[_Sorted], moment: int) -> None:
        records = [record for part in parts for record in part.records]
        gaps = [gap for part in parts for gap in part.gaps]
        if records or gaps:
            added = self._added(records, gaps)
            self._stats.stored += added.stored
            self._stats.duplicates += added.duplicates
            self._stats.erased += added.erased
            self._stats.gaps += added.gaps
            self._stats.last_stored_us = moment if added.stored else self._stats.last_stored_us
        for part in parts:
            for fault, seqs in part.refused.items():
                self._stats.refused[fault.kind] += len(seqs)

    def _added(self, records: Sequence[Record], gaps: Sequence[StoredGap]) -> Added:
        try:
            return self._store.add(records, gaps)
        except ModelMismatchError as error:  # another gallery is in its place now
            self._models = {}
            raise StoreError(f"the gallery was replaced while it was open: {error}") from error
        except StoreError:
            self._models = {}  # what works again may be another gallery
            raise

    def _sorted(self, payload: bytes, sender: str | None, moment: int) -> _Sorted | None:
        try:
            batch = decode_batch(payload)
        except MessageError:
            return None
        part = _Sorted(batch)
        if sender not in (None, batch.camera):
            foreign = Fault("sender", f"sent by '{sender}', but claims to be of '{batch.camera}'.")
            part.refused[foreign] += [seq for seq, _ in batch.observations]
            return part
        for refusal in batch.unreadable:
            part.refused[Fault("unreadable", refusal.reason)] += refusal.seqs
        oldest_us = self.retention.oldest_us()
        for seq, seen in batch.observations:
            fault = time_fault(seen, now_us=moment, oldest_us=oldest_us) or self._model_fault(seen, moment)
            if fault:
                part.refused[fault].append(seq)
            else:
                part.records.append(record_of(batch.camera, batch.incarnation, seq, seen))
        part.gaps += [stored_gap(batch.camera, batch.incarnation, gap, moment) for gap in batch.gaps]
        return part

    def _model_fault(self, seen: Observation, moment: int) -> Fault | None:
        known = self._models.get(seen.model_hash)
        if (known is None or known.dim is None) and seen.model_hash not in self._not_accepted:
            self._accept_if_first(seen, moment)
            if seen.model_hash not in self._models:
                self._not_accepted.add(seen.model_hash)
                self._warn_of(seen.model_hash)
        return model_fault(seen, self._models)

    def _warn_of(self, model_hash: str) -> None:
        if model_hash not in self._warned and len(self._warned) < MOST_WARNINGS:
            self._warned.add(model_hash)
            log.warning(
                "features of a model that is not accepted are refused; to take them: "
                "reid-edge gallery accept-model %s %s",
                self._store.name,
                model_hash,
            )

    def _accept_if_first(self, seen: Observation, moment: int) -> None:
        """Accept the model of an empty gallery, and learn the feature size of one that a person accepted without it."""
        accepted = {model.model_hash: model for model in self._store.models()}
        known = accepted.get(seen.model_hash)
        if not accepted or (known is not None and known.dim is None):
            self._store.accept_model(seen.model_hash, seen.feature.size, now_us=moment, only_first=known is None)
            accepted = {model.model_hash: model for model in self._store.models()}
        self._models = accepted
