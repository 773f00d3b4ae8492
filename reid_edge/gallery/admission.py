"""Admission of batches: what of each may be stored, what is refused and why, and what a camera's quota allows."""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from reid_edge.errors import MessageError
from reid_edge.features import l2_normalised
from reid_edge.gallery.accepted_models import AcceptedModels
from reid_edge.gallery.entries import CLOCK_TOLERANCE_US, LONGEST_TRACKLET_US, Entry, Record
from reid_edge.gallery.quota import Account, Accounts, Quota
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import ELSEWHERE, AcceptedModel, StoredGap
from reid_edge.gallery.times import duration_text
from reid_edge.gallery.twins import Twins
from reid_edge.sparse_log import SparseLog
from reid_edge.upstream.clocks import IMPLAUSIBLE_US
from reid_edge.upstream.message import decode_batch, encode_ack
from reid_edge.upstream.observation import Ack, Batch, Gap, Observation, Refusal, Replay
from reid_edge.wire_names import EXPECTED, is_wire_name

#: Most different reasons in one acknowledgement, and most characters of one: its size is bounded by that.
MOST_REASONS, MOST_CHARACTERS = 16, 400
#: Size of an observation's other fields as stored, roughly.
_FIELDS_BYTES = 200
_MOST_ELSEWHERE = 10_000

log = logging.getLogger(__name__)


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
    if seen.last_us > now_us + CLOCK_TOLERANCE_US or seen.last_us >= IMPLAUSIBLE_US:
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
class SortedBatch:
    """A batch, sorted into what to store and what to refuse; of one for other galleries only a gap is stored."""

    batch: Batch
    records: list[Record] = field(default_factory=list)
    gaps: list[StoredGap] = field(default_factory=list)
    refused: dict[Fault, list[int]] = field(default_factory=lambda: defaultdict(list))
    elsewhere: bool = False

    def refuse(self, fault: Fault, seqs: Iterable[int]) -> None:
        """Refuse rows; of very many different reasons, the last ones get a common one."""
        if fault not in self.refused and len(self.refused) >= MOST_REASONS:
            fault = Fault(fault.kind, "refused, like others of this batch.")
        self.refused[fault] += seqs

    def ack(self, gallery: str, replay: Replay | None = None) -> bytes:
        """Return the acknowledgement, which is true once the batch is committed.

        Args:
            gallery: Name of the gallery.
            replay: Request of a restored gallery.
        """
        return encode_ack(
            Ack(
                camera=self.batch.camera,
                incarnation=self.batch.incarnation,
                seqs=tuple(record.entry.seq for record in self.records),
                gaps=() if self.elsewhere else tuple((gap.first_seq, gap.last_seq) for gap in self.gaps),
                refused=tuple(
                    Refusal(tuple(seqs), fault.reason[:MOST_CHARACTERS]) for fault, seqs in self.refused.items()
                ),
                gallery=gallery,
                replay=replay,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What holds for all batches of a commit.

    Attributes:
        now_us: Time, microseconds since 1970 UTC.
        oldest_us: What was last seen before has expired.
        gallery: Name of this gallery.
    """

    now_us: int
    oldest_us: int
    gallery: str


class Admission:
    """Sorts batches; to be used by one thread at a time.

    Args:
        store: Whose models are accepted.
        quota: What each camera may bring.

    Attributes:
        accounts: What each camera has brought.
    """

    def __init__(self, store: Store, quota: Quota) -> None:
        self.accounts = Accounts(quota)
        self._store = store
        self._models = AcceptedModels(store)
        self._log = SparseLog(log)
        self._elsewhere: OrderedDict[tuple[str, str], int] = OrderedDict()

    def forget_models(self) -> None:
        """Ask the store again which models it accepts when an unknown one comes: a person may have accepted it."""
        self._models.forget()

    def sort(self, payload: bytes, sender: str | None, now: Circumstances) -> SortedBatch | None:
        """Sort a batch; None if it is none.

        Raises:
            StoreError: The store does not say which models it accepts.
        """
        try:
            if sender is not None and not is_wire_name(sender):
                raise MessageError(f"a camera's name must be {EXPECTED}; its topic or certificate has another.")
            batch = decode_batch(payload)
        except MessageError as error:
            self._log.warning(f"malformed/{sender}", "a batch of %s is not taken: %s", _shown(sender), error)
            return None
        part = SortedBatch(batch)
        if sender not in (None, batch.camera):
            reason = (
                f"sent by '{sender}', but claims to be of '{batch.camera}'. Use the certificate that was made for "
                f"'{batch.camera}' ('reid-edge run --check' shows a camera's name), or name the camera '{sender}'."
            )
            part.refuse(Fault("sender", reason), _seqs(batch))
            return part
        account = self.accounts.of(batch.camera)
        if not (batch.observations or batch.gaps or batch.unreadable):
            return part  # 'run --check' asks for an answer, maybe beside the agent: that is no second camera
        if not account.comes_from(batch.incarnation, self.accounts.clock()):
            part.refuse(_over(batch.camera, "outboxes", self.accounts.quota), _seqs(batch))
        elif batch.galleries and now.gallery not in batch.galleries:
            self._sort_elsewhere(part, now)
        else:
            self._sort_rows(part, account, now)
            self._sort_gaps(part, batch.gaps, account, now)
        self._warn_of_twins(batch.camera, account)
        return part

    def undo(self, parts: Iterable[SortedBatch]) -> None:
        """Take back what was counted against quotas: nothing of it was stored, and another gallery may be next."""
        self._models.clear()
        for part in parts:
            if part.elsewhere:
                continue
            account = self.accounts.of(part.batch.camera)
            account.give_back("rows", len(part.records))
            account.give_back("megabytes", sum(map(_megabytes, part.records)))
            account.give_back("gaps", len(part.gaps))

    def stored(self, parts: Iterable[SortedBatch]) -> None:
        """Remember up to where rows of other galleries have been counted."""
        for part in parts:
            if part.elsewhere and part.gaps:
                key = (part.batch.camera, part.batch.incarnation)
                self._elsewhere[key] = part.gaps[0].last_seq
                self._elsewhere.move_to_end(key)
                if len(self._elsewhere) > _MOST_ELSEWHERE:
                    self._elsewhere.popitem(last=False)

    def _sort_rows(self, part: SortedBatch, account: Account, now: Circumstances) -> None:
        camera, incarnation = part.batch.camera, part.batch.incarnation
        for refusal in part.batch.unreadable:
            part.refuse(Fault("unreadable", refusal.reason), refusal.seqs)
        for seq, seen in part.batch.observations:
            fault = time_fault(seen, now_us=now.now_us, oldest_us=now.oldest_us)
            fault = fault or self._model_fault(seen, camera, account, now)
            record = None if fault else record_of(camera, incarnation, seq, seen)
            fault = fault or self._quota_fault(camera, account, record)
            if record is None or fault is not None:
                part.refuse(fault or Fault("unreadable", ""), [seq])
            else:
                part.records.append(record)

    def _sort_gaps(self, part: SortedBatch, gaps: Iterable[Gap], account: Account, now: Circumstances) -> None:
        """Take gaps as far as the quota allows; the camera sends the others again."""
        for gap in gaps:
            if not account.take("gaps", 1, self.accounts.clock()):
                self._warn_over(part.batch.camera, "gaps")
                return
            part.gaps.append(stored_gap(part.batch.camera, part.batch.incarnation, gap, now.now_us))

    def _sort_elsewhere(self, part: SortedBatch, now: Circumstances) -> None:
        """Refuse rows of other galleries, and let one gap that grows tell that there were some."""
        batch, part.elsewhere = part.batch, True
        named = ", ".join(f"'{name}'" for name in batch.galleries)
        fault = Fault(
            "destination",
            f"sent for the gallery {named}, and this one is '{now.gallery}'. On the camera, put the name into "
            f"upstream.galleries, or start this gallery with --name.",
        )
        part.refuse(fault, _seqs(batch))
        self._log.warning(
            f"elsewhere/{batch.camera}",
            "observations of %s are not stored: its batches are for the gallery %s, and this one is '%s'. Put the name "
            "into upstream.galleries on the camera, or start this gallery with --name",
            batch.camera,
            named,
            now.gallery,
        )
        counted = self._elsewhere.get((batch.camera, batch.incarnation), 0)
        if new := [seq for seq in _seqs(batch) if seq > counted]:
            gap = Gap(min(new), max(new), min(len(set(new)), max(new) - min(new) + 1), "lost")
            part.gaps.append(replace(stored_gap(batch.camera, batch.incarnation, gap, now.now_us), reason=ELSEWHERE))

    def _model_fault(self, seen: Observation, camera: str, account: Account, now: Circumstances) -> Fault | None:
        models = self._models.known(seen, now.now_us)
        fault = model_fault(seen, models)
        if seen.model_hash in models or fault is None:
            return fault
        if not account.names_model(seen.model_hash, self.accounts.clock()):
            self._warn_over(camera, "models")
            return Fault("model", "features of so many models that this gallery has not accepted.")
        self._log.warning(
            f"model/{camera}",
            "features of a model that is not accepted are refused; to take them: reid-edge gallery accept-model %s %s",
            self._store.name,
            seen.model_hash,
        )
        return fault

    def _quota_fault(self, camera: str, account: Account, record: Record | None) -> Fault | None:
        if record is None:
            return None
        now_s = self.accounts.clock()
        if not account.take("rows", 1, now_s):
            over = "rows"
        elif not account.take("megabytes", _megabytes(record), now_s):
            account.give_back("rows", 1)
            over = "megabytes"
        else:
            return None
        self._warn_over(camera, over)
        return _over(camera, over, self.accounts.quota)

    def _warn_over(self, camera: str, what: str) -> None:
        self._log.warning(f"quota/{camera}/{what}", "%s", _over(camera, what, self.accounts.quota).reason)

    def _warn_of_twins(self, camera: str, account: Account) -> None:
        if account.twins is not None and self.accounts.clock() < account.twins[2]:
            self._log.warning(f"twins/{camera}", "%s", Twins(camera, *account.twins[:2], 0))


def _over(camera: str, what: str, quota: Quota) -> Fault:
    return Fault(
        "quota",
        f"camera '{camera}' brings more than {getattr(quota, what):g} {what} an hour, its quota at this gallery. If "
        f"that is right, start the gallery with a larger --quota-{what}.",
    )


def _seqs(batch: Batch) -> list[int]:
    seqs = [seq for seq, _ in batch.observations]
    return seqs + [seq for refusal in batch.unreadable for seq in refusal.seqs]


def _megabytes(record: Record) -> float:
    return (2 * record.feature.size + _FIELDS_BYTES) / 1e6


def _shown(sender: str | None) -> str:
    return "an unknown sender" if sender is None else ascii(sender[:80])
