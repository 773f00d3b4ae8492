"""What the messages hold, as Python sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

GapReason = Literal["full", "expired", "lost"]


@dataclass(frozen=True, eq=False)
class Observation:
    """One published tracklet feature.

    Attributes:
        model_hash: The bundle's: 64 hexadecimal digits.
        track: Number of the tracklet, unique within (camera, epoch).
        captured_us: When the frame of ``box`` was captured.
        first_us: First sight of the tracklet.
        last_us: Last sight of the tracklet so far.
        box: x1 y1 x2 y2 as fractions of the frame, 0..1.
        confidence: The detector's score of that box, 0..1.
        quality: Of the crops behind the feature, 0..1.
        crops: How many crops the feature averages, at least 1.
        final: The tracklet has ended.
        feature: D float32, unit length.
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
    feature: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Gap:
    """Observations that were made and will never come: ``count`` of those from ``first_seq`` to ``last_seq``.

    ``full``: the outbox had reached its bound.  ``expired``: older than the camera's retention.  ``lost``: damaged on
    the camera's disk, or never written to it.
    """

    first_seq: int
    last_seq: int
    count: int
    reason: GapReason


@dataclass(frozen=True)
class Refusal:
    """Rows that the receiving end does not store, and why, for a person."""

    seqs: tuple[int, ...]
    reason: str


@dataclass(frozen=True)
class Batch:
    """What a camera sends at once.

    Attributes:
        camera: Pseudonym.
        epoch: Names the outbox file that the rows come from.
        observations: Each with its sequence number.
        gaps: Dropped before they could be sent.
        unreadable: Rows that are damaged or of a later release; the receiving end refuses them, and stores the others.
    """

    camera: str
    epoch: str
    observations: tuple[tuple[int, Observation], ...]
    gaps: tuple[Gap, ...]
    unreadable: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class Ack:
    """What the receiving end has committed, and what it refuses.

    Attributes:
        camera: As in the batch.
        epoch: As in the batch.
        seqs: Rows that are stored, now or before.
        gaps: (first_seq, last_seq) of gaps that are stored.
        refused: Rows that are not; the camera keeps them and tries again later.
    """

    camera: str
    epoch: str
    seqs: tuple[int, ...]
    gaps: tuple[tuple[int, int], ...] = ()
    refused: tuple[Refusal, ...] = ()
