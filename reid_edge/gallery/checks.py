"""What a gallery refuses of what is well formed: times and models (``upstream.message`` checks all else)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reid_edge.features import l2_normalised
from reid_edge.gallery.entries import LONGEST_TRACKLET_US, Entry, Record
from reid_edge.gallery.store.base import AcceptedModel, StoredGap
from reid_edge.gallery.times import duration_text
from reid_edge.upstream.observation import Gap, Observation

#: Two clocks are seldom further apart than this; what is from later than now plus this is refused.
CLOCK_TOLERANCE_US = 5 * 60 * 1_000_000
DAY_US = 24 * 3600 * 1_000_000


@dataclass(frozen=True)
class Fault:
    """Why an observation is refused: a word to count by, and a sentence for a person."""

    kind: str
    reason: str


def time_fault(seen: Observation, *, now_us: int, oldest_us: int) -> Fault | None:
    """What is wrong with the times of an observation."""
    if not 0 < seen.first_us <= seen.captured_us <= seen.last_us:
        return Fault("time", "times must be 0 < first_us ≤ captured_us ≤ last_us.")
    if seen.last_us - seen.first_us > LONGEST_TRACKLET_US:
        return Fault("time", "a tracklet cannot last longer than a week.")
    if seen.last_us > now_us + CLOCK_TOLERANCE_US:
        return Fault(
            "future",
            "from later than the gallery's clock shows: the camera's clock is ahead, or its video file was stamped in "
            "the future.",
        )
    if seen.last_us < oldest_us:
        kept = duration_text(now_us - oldest_us)
        return Fault("expired", f"last seen longer ago than the {kept} for which this gallery keeps anything.")
    return None


def model_fault(seen: Observation, models: Mapping[str, AcceptedModel]) -> Fault | None:
    """Whether the model is accepted and the feature has as many numbers as that model's."""
    accepted = models.get(seen.model_hash)
    if accepted is None:
        return Fault(
            "model",
            f"features of model {seen.model_hash} cannot be compared with those held here; to take them "
            f"nevertheless, where the gallery is: reid-edge gallery accept-model STORE {seen.model_hash}",
        )
    if accepted.dim != seen.feature.size:
        return Fault("model", f"features of model {seen.model_hash[:12]}… have {accepted.dim} numbers here.")
    return None


def record_of(camera: str, epoch: str, seq: int, seen: Observation) -> Record:
    """Return the record that the gallery stores of an observation."""
    entry = Entry.of(seen, camera=camera, epoch=epoch, seq=seq)
    return Record(entry, l2_normalised(seen.feature[None])[0])


def stored_gap(camera: str, epoch: str, gap: Gap, received_us: int) -> StoredGap:
    """What is stored of a gap."""
    return StoredGap(
        camera=camera,
        epoch=epoch,
        first_seq=gap.first_seq,
        last_seq=gap.last_seq,
        count=gap.count,
        reason=gap.reason,
        received_us=received_us,
    )
