"""Records that cameras and galleries exchange: observations, gaps, batches of them, acknowledgements.

``upstream.message`` turns them into bytes and back; ``docs/wire.md`` describes the bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reid_edge.types import Feature

GapReason = Literal["full", "expired", "lost"]

#: The gallery for which observations are, unless others are named.
DEFAULT_GALLERY = "gallery"
#: Most galleries that a batch can be for.
MAX_GALLERIES = 8


@dataclass(frozen=True, kw_only=True)
class TrackletReport:
    """Everything that a camera reports of a tracklet except the feature.

    To add a field, see ``docs/development.md``: the gallery stores every field of this class.

    Attributes:
        model_hash: Hash of the bundle that made the feature: 64 hexadecimal digits.
        track: Number of the tracklet, unique within (camera, incarnation).
        captured_us: Capture time of the frame of ``box``, microseconds since 1970 UTC, as the other times.
        first_us: First sight of the tracklet.
        last_us: Last sight of the tracklet so far.
        box: x1 y1 x2 y2 as fractions of the frame's width and height, 0..1.
        confidence: The detector's score of that box, 0..1.
        quality: Quality of the crops behind the feature, 0..1.
        crops: Number of crops that the feature averages, at least 1.
        final: True once the tracklet has ended.
    """

    model_hash: str
    track: int
    captured_us: int
    first_us: int
    last_us: int
    box: tuple[float, float, float, float]
    confidence: float
    quality: float
    crops: int
    final: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation(TrackletReport):
    """One published feature of a tracklet.

    Attributes:
        feature: D float32, unit length.
    """

    feature: Feature


@dataclass(frozen=True)
class Gap:
    """Observations that were made and will never arrive.

    Attributes:
        first_seq: First sequence number of the range.
        last_seq: Last sequence number of the range, included.
        count: Number of observations missing from the range; others of the same range may have been delivered.
        reason: ``full``: the outbox had reached its limit.  ``expired``: older than the camera's retention.  ``lost``:
            damaged on the camera's disk, or never written to it.
    """

    first_seq: int
    last_seq: int
    count: int
    reason: GapReason


@dataclass(frozen=True)
class Refusal:
    """Rows that the gallery does not store, and the reason in words for an operator."""

    seqs: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Batch:
    """One message from a camera to a gallery.

    Attributes:
        camera: Name of the camera, or its pseudonym.
        incarnation: Names the outbox file that the rows come from; ``epoch`` on the wire.
        observations: Sequence numbers and observations.
        gaps: Observations that the camera dropped before it could send them.
        unreadable: Rows that are damaged or of a later release; the gallery refuses them and stores the others.
        galleries: Names of the galleries that the batch is for; empty: of an older camera, for whoever gets it.
    """

    camera: str
    incarnation: str
    observations: tuple[tuple[int, Observation], ...]
    gaps: tuple[Gap, ...]
    unreadable: tuple[Refusal, ...] = ()
    galleries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Replay:
    """A restored gallery's request for observations that were acknowledged before and that the camera still has.

    Attributes:
        id: Names the request; a camera serves each once.
        since_us: Observations are asked for whose ``last_us`` is this or later, microseconds since 1970 UTC.
    """

    id: str
    since_us: int


@dataclass(frozen=True)
class Ack:
    """The gallery's answer: rows and gaps that it has committed, and rows that it refuses.

    Attributes:
        camera: As in the batch.
        incarnation: As in the batch.
        seqs: Rows that are stored, from this batch or an earlier one.
        gaps: (first_seq, last_seq) of each stored gap.
        refused: Rows that are not stored; the camera keeps them and tries again later.
        gallery: Name of the gallery that has committed; empty: of an older gallery.
        replay: Observations that the gallery asks for again.
    """

    camera: str
    incarnation: str
    seqs: tuple[int, ...]
    gaps: tuple[tuple[int, int], ...] = ()
    refused: tuple[Refusal, ...] = ()
    gallery: str = ""
    replay: Replay | None = None
