"""What a gallery holds and hands out.

Times are microseconds since 1970 UTC.  Boxes are x1 y1 x2 y2 as fractions of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError

Feature = npt.NDArray[np.float32]
#: What names a stored observation: camera, epoch of the camera's outbox, sequence number in that epoch.
Key = tuple[str, str, int]
#: No tracklet lasts longer than a week: erasures rely on it.
LONGEST_TRACKLET_US = 7 * 24 * 3600 * 1_000_000


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A stored observation, all but its feature.

    Attributes:
        camera: Its name, or its pseudonym.
        epoch: Names the outbox that the observation went through.
        seq: Number of the observation in that outbox.
        model_hash: The model that made the feature.
        track: Number of the tracklet, unique within (camera, epoch).
        captured_us: When the frame of ``box`` was captured.
        first_us: First sight of the tracklet.
        last_us: Last sight of the tracklet up to this observation.
        box: Where in that frame.
        confidence: The detector's score of that box, 0..1.
        quality: Of the crops behind the feature, 0..1.
        crops: How many crops the feature averages.
        final: The tracklet had ended.
    """

    camera: str
    epoch: str
    seq: int
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

    @property
    def key(self) -> Key:
        """Camera, epoch, sequence number."""
        return self.camera, self.epoch, self.seq

    @property
    def id(self) -> str:
        """``camera/epoch/seq``: the name under which it can be asked for."""
        return f"{self.camera}/{self.epoch}/{self.seq}"

    @property
    def tracklet(self) -> Key:
        """Camera, epoch, track."""
        return self.camera, self.epoch, self.track

    @property
    def whole_tracklet(self) -> Selection:
        """All observations of the same tracklet."""
        return Selection(cameras=(self.camera,), epoch=self.epoch, track=self.track)


@dataclass(frozen=True, eq=False)
class Record:
    """An observation with its feature: D float32, unit length."""

    entry: Entry
    feature: Feature


@dataclass(frozen=True)
class Match:
    """A stored observation and the cosine of its feature with the query's."""

    entry: Entry
    cosine: float


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which observations are meant; what is left out restricts nothing.

    A tracklet is within a time window if it was in sight at any moment of it: ``last_us >= since_us`` and
    ``first_us <= until_us``.

    Attributes:
        cameras: Only these.
        not_cameras: None of these.
        epoch: Only this outbox.
        track: Only this tracklet number.
        since_us: Start of the window.
        until_us: End of the window, included.
    """

    cameras: tuple[str, ...] = ()
    not_cameras: tuple[str, ...] = ()
    epoch: str | None = None
    track: int | None = None
    since_us: int | None = None
    until_us: int | None = None

    def covers(self, entry: Entry) -> bool:
        """Whether an observation is meant."""
        return (
            (not self.cameras or entry.camera in self.cameras)
            and entry.camera not in self.not_cameras
            and (self.epoch is None or entry.epoch == self.epoch)
            and (self.track is None or entry.track == self.track)
            and (self.since_us is None or entry.last_us >= self.since_us)
            and (self.until_us is None or entry.first_us <= self.until_us)
        )

    def described(self) -> dict[str, Any]:
        """What restricts it, for the audit and receipts."""
        return {name: value for name, value in vars(self).items() if value not in (None, ())}


@dataclass(frozen=True, kw_only=True)
class StoredGap:
    """Observations that a camera dropped before they were delivered: ``count`` of first_seq..last_seq."""

    camera: str
    epoch: str
    first_seq: int
    last_seq: int
    count: int
    reason: str
    received_us: int


@dataclass(frozen=True)
class Span:
    """How many observations are meant, from the first to the last sight of their tracklets; None for none."""

    observations: int
    first_us: int | None
    last_us: int | None


@dataclass(frozen=True)
class Added:
    """What became of the records of one :meth:`Store.add`.

    Attributes:
        stored: Newly stored.
        duplicates: Stored before.
        erased: Kept out, since they were erased before they came.
        gaps: Newly stored gaps.
    """

    stored: int
    duplicates: int
    erased: int
    gaps: int


@dataclass(frozen=True)
class Erased:
    """What was deleted.

    Attributes:
        keys: Of the observations, sorted.
        leftovers: What is left of their bytes, in words; "none" if nothing is.
    """

    keys: tuple[Key, ...]
    leftovers: str


@dataclass(frozen=True)
class AcceptedModel:
    """A model whose features the gallery takes; ``dim`` is None until the first feature came."""

    model_hash: str
    dim: int | None
    accepted_us: int


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One line of the audit.

    Attributes:
        number: Ascending.
        at_us: When.
        user: Operating system user who asked.
        action: ``search``, ``erase``, ``expire``, ``accept-model`` or ``retention``.
        purpose: Why, in the user's words; "" where none is asked for.
        detail: JSON-able; never a feature.
    """

    number: int = 0
    at_us: int
    user: str
    action: str
    purpose: str
    detail: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CameraSummary:
    """What is held of one camera; ``lost`` counts the observations that its gaps stand for."""

    camera: str
    observations: int
    tracklets: int
    first_us: int | None
    last_us: int | None
    gaps: int
    lost: int


def parse_id(text: str) -> Key:
    """Camera, beginning of the epoch and sequence number of an id as a person types it.

    Raises:
        InputError: Not ``camera/epoch/seq``.
    """
    parts = text.strip().split("/")
    number = parts[-1]
    if len(parts) != 3 or not all(parts) or not text.isascii() or not number.isdigit() or len(number) > 18:
        raise InputError(
            f"an id is camera/epoch/number, where the first characters of the epoch will do, e.g. door/3fa2/17; "
            f"got {text!a}."
        )
    return parts[0], parts[1], int(number)
