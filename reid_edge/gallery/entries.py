"""Entries of a gallery: stored observations, the ids that name them, and selections of them.

Times are microseconds since 1970 UTC.  Boxes are x1 y1 x2 y2 as fractions of the frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from reid_edge.errors import UsageError
from reid_edge.types import Feature
from reid_edge.upstream.observation import TrackletReport

if TYPE_CHECKING:
    from reid_edge.gallery.store.people import Assignment

#: Key of a stored observation: camera, incarnation of the camera's outbox, sequence number in that outbox.
Key = tuple[str, str, int]
#: No tracklet lasts longer than a week: erasures rely on it.
LONGEST_TRACKLET_US = 7 * 24 * 3600 * 1_000_000
#: Longest retention that a gallery takes: a leap year.
LONGEST_RETENTION_HOURS = 8784.0
#: Two clocks are seldom further apart than this; what is from later than now plus this is refused.
CLOCK_TOLERANCE_US = 5 * 60 * 1_000_000


@dataclass(frozen=True, kw_only=True)
class Entry(TrackletReport):
    """A stored observation without its feature: the camera's report and its key.

    Attributes:
        camera: Name of the camera, or its pseudonym.
        incarnation: Names the outbox file that the observation went through; ``epoch`` in stores, JSON and commands.
        seq: Sequence number of the observation in that outbox.
    """

    camera: str
    incarnation: str
    seq: int

    @classmethod
    def of(cls, report: TrackletReport, *, camera: str, incarnation: str, seq: int) -> Entry:
        """Make the entry of a report that arrived under a key."""
        seen = {field.name: getattr(report, field.name) for field in fields(TrackletReport)}
        return cls(camera=camera, incarnation=incarnation, seq=seq, **seen)

    @property
    def key(self) -> Key:
        """Camera, incarnation, sequence number."""
        return self.camera, self.incarnation, self.seq

    @property
    def id(self) -> str:
        """``camera/epoch/seq``: the name by which commands ask for the entry."""
        return f"{self.camera}/{self.incarnation}/{self.seq}"

    @property
    def tracklet(self) -> Key:
        """Camera, incarnation, track."""
        return self.camera, self.incarnation, self.track

    @property
    def whole_tracklet(self) -> Selection:
        """Selection of every observation of the same tracklet."""
        return Selection(cameras=(self.camera,), incarnation=self.incarnation, track=self.track)


@dataclass(frozen=True, eq=False)
class Record:
    """An entry with its feature: D float32, unit length."""

    entry: Entry
    feature: Feature


@dataclass(frozen=True, eq=False)
class Match:
    """An entry, the cosine of its feature with the query's, and that feature: D float32, unit length."""

    entry: Entry
    cosine: float
    feature: Feature


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A selection of observations; a field that is left out restricts nothing.

    A tracklet is within a time window if it was in sight at any moment of it: ``last_us >= since_us`` and
    ``first_us <= until_us``.

    Attributes:
        cameras: Only these.
        not_cameras: None of these.
        incarnation: Only this outbox.
        track: Only this tracklet number.
        since_us: Start of the window.
        until_us: End of the window, included.
    """

    cameras: tuple[str, ...] = ()
    not_cameras: tuple[str, ...] = ()
    incarnation: str | None = None
    track: int | None = None
    since_us: int | None = None
    until_us: int | None = None

    def covers(self, entry: Entry | Assignment) -> bool:
        """Return True if an entry is selected, or any that an assigned tracklet may have."""
        return (
            (not self.cameras or entry.camera in self.cameras)
            and entry.camera not in self.not_cameras
            and (self.incarnation is None or entry.incarnation == self.incarnation)
            and (self.track is None or entry.track == self.track)
            and (self.since_us is None or entry.last_us >= self.since_us)
            and (self.until_us is None or entry.first_us <= self.until_us)
        )

    def described(self) -> dict[str, Any]:
        """Return the fields that restrict something, for the audit and receipts."""
        return {name: value for name, value in self.by_stored_name().items() if value not in (None, ())}

    def by_stored_name(self) -> dict[str, Any]:
        """Return all fields under the names that stores and the audit keep: the incarnation is ``epoch`` there."""
        return {"epoch" if name == "incarnation" else name: value for name, value in vars(self).items()}


def not_before(selection: Selection, since_us: int) -> Selection:
    """Return a selection without what was last seen before a time."""
    return replace(selection, since_us=max(selection.since_us or 0, since_us))


def parse_id(text: str) -> Key:
    """Return camera, beginning of the incarnation and sequence number of an id as a person types it.

    Raises:
        UsageError: The text is not ``camera/epoch/seq``.
    """
    parts = text.strip().split("/")
    number = parts[-1]
    if len(parts) != 3 or not all(parts) or not text.isascii() or not number.isdigit() or len(number) > 18:
        raise UsageError(
            f"expected an id of the form camera/epoch/number, e.g. door/3fa2/17 (the first characters of the epoch are "
            f"enough); got {text!a}."
        )
    return parts[0], parts[1], int(number)
