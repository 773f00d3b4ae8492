"""Tell tracks of one walking or standing person from those of body parts, furniture, cars and shadows.

No pixels are read: the check goes by how long a track lasts, how sure the detector is of it, whether the edge of the
frame cuts it off, how steady its height is, and, for a detector that goes by movement, how far it has moved and whether
it is as high as others in its place (``benchmarks/gallery_content.py``).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.frame_edge import Area, cut_off, touch_edge
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes
from reid_edge.camera.usual_heights import Heights, TrackHeights, UsualHeights

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Failing = Literal["", "short", "weak", "cut_off", "unsteady", "still", "odd_size", "out_of_depth", "unproven"]
#: Limits for a detector that goes by movement: its blobs are body parts, merged people, and things that only changed.
#: The legs of a person are half as high as the whole; a child of six years is two thirds as high as an adult.
MOTION_HEIGHT_CHANGE, MOTION_TRAVEL, MOTION_HEIGHT_RATIO = 0.06, 0.5, 1.5
#: What to use in place of ``motion``.
BETTER_DETECTOR = "use a model: --detector person-detection-0202, after 'reid-edge detector get person-detection-0202'"
#: Number of changes of height that are remembered of a track, and number of heights.
_CHANGES, _HEIGHTS = 64, 256
#: Number of ended tracklets by which a detector is judged, and number from which it is.
_JUDGED, _ENOUGH = 32, 16
#: Number of tracklets below which nothing is said of a whole run.
_FEW = 4


class PersonSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a track must be like before it is published.

    A strong box has at least the score ``tracker.high_confidence``.

    Attributes:
        min_boxes: Smallest number of strong boxes of a track.
        min_s: Shortest time from the first of them to the last, seconds.
        min_strong: Smallest part of a track's boxes that are strong.
        min_whole: Smallest number of a track's strong boxes that the edge of the frame does not cut off, or half of its
            strong boxes if that is fewer. With the detector ``motion``, half of them must lie inside the frame. 0
            publishes people who are cut off in every box.
        max_height_change: Largest median change of height from one strong box to the next, as a fraction. Default: 0.06
            for the detector ``motion``, no limit for others.
        min_travel: Smallest distance that a track must have moved from its first place, in heights of its box. Default:
            0.5 for the detector ``motion``, 0 for others.
        max_height_ratio: Largest factor by which a track may be higher or lower than other tracks in its place in the
            picture. Default: 1.5 for the detector ``motion``, no limit for others.
        evidence_s: Longest time from a track's first box during which it is held back because fewer than three others
            were seen in its place, or these had another height, seconds. Only with a ``max_height_ratio``.
        min_passing: Smallest part of the last 32 tracklets of the detector ``motion`` that must pass these rules. Below
            it, the detector does not suit the scene, and none is published. 0 publishes all that pass.
    """

    min_boxes: Annotated[int, msgspec.Meta(ge=1)] = 4
    min_s: NotNegative = 0.5
    min_strong: Fraction = 0.5
    min_whole: Annotated[int, msgspec.Meta(ge=0)] = 4
    max_height_change: NotNegative | None = None
    min_travel: NotNegative | None = None
    max_height_ratio: Annotated[float, msgspec.Meta(ge=1)] | None = None
    evidence_s: NotNegative = 60.0
    min_passing: Fraction = 0.3


@dataclass
class _Track:
    """What is remembered of a live track."""

    first_us: int
    last_us: int
    start: npt.NDArray[np.float32]
    boxes: int = 0
    strong: int = 0
    whole: int = 0
    inside: int = 0
    has_crop: bool = False
    height: float = 0.0
    total_height: float = 0.0
    farthest: float = 0.0
    changes: deque[float] = field(default_factory=lambda: deque(maxlen=_CHANGES))
    heights: deque[float] = field(default_factory=lambda: deque(maxlen=_HEIGHTS))
    heights_at_edge: deque[float] = field(default_factory=lambda: deque(maxlen=_HEIGHTS))
    by_place: TrackHeights = field(default_factory=TrackHeights)

    def add(
        self, box: npt.NDArray[np.float32], captured_us: int, frame_height: int, *, whole: bool, inside: bool
    ) -> None:
        """Add a strong box, which is whole or cut off by the edge of the frame, and inside the frame or at its edge."""
        height = float(box[3] - box[1])
        self.whole += whole
        if inside:
            self.inside += 1
            self.heights.append(height / frame_height)
            self.by_place.add(box, frame_height)
        else:
            self.heights_at_edge.append(height / frame_height)
        if self.strong:
            self.changes.append(abs(float(np.log(height / self.height))))
        self.height, self.last_us = height, captured_us
        self.strong += 1
        self.total_height += height
        self.farthest = max(self.farthest, float(np.hypot(*(_centre(box) - self.start))))

    @property
    def usual_height(self) -> float:
        """Median height of the strong boxes, of those inside the frame if there are any; 0 if there is none."""
        heights = self.heights or self.heights_at_edge
        return float(np.median(list(heights))) if heights else 0.0


@dataclass(frozen=True, eq=False)
class _Ended:
    """A track that has ended: as the tracker reports it, what is remembered of it, and its heights by place."""

    track: EndedTrack
    seen: _Track
    heights: Heights
    against: Failing


class PersonCheck:
    """Follows each track, and says what is against its being one whole person.

    Forgets a track when it has been judged.  To be used by one thread; the counts may be read by any.

    Args:
        settings: The rules; None takes the defaults.
        high_confidence: Score from which a box is strong.
        by_motion: The detector goes by movement alone.

    Attributes:
        failed: Number of ended tracks with crops that failed, by the first rule that they failed.
        passed: Number of ended tracks with crops that passed all of them.
    """

    def __init__(
        self, settings: PersonSettings | None = None, *, high_confidence: float = 0.6, by_motion: bool = False
    ) -> None:
        self._settings = settings or PersonSettings()
        self._high_confidence = high_confidence
        self._by_motion = by_motion
        change, travel = self._settings.max_height_change, self._settings.min_travel
        ratio = self._settings.max_height_ratio
        usual = (MOTION_HEIGHT_CHANGE, MOTION_TRAVEL, MOTION_HEIGHT_RATIO) if by_motion else (np.inf, 0.0, np.inf)
        self._max_change = usual[0] if change is None else change
        self._min_travel = usual[1] if travel is None else travel
        self._max_ratio = usual[2] if ratio is None else ratio
        self._tracks: dict[int, _Track] = {}
        self._waiting: list[_Ended] = []
        self._usual = UsualHeights()
        self._now_us = 0
        self._recent: deque[bool] = deque(maxlen=_JUDGED)
        self.failed: Counter[str] = Counter()
        self.passed = 0

    def __len__(self) -> int:
        """Return the number of tracks that are live or wait to be judged."""
        return len(self._tracks) + len(self._waiting)

    @property
    def mostly_failed(self) -> bool:
        """True if the detector goes by movement, and more of its tracklets failed than passed."""
        failed = self.failed.total()
        return self._by_motion and failed > self.passed and failed + self.passed >= _FEW

    @property
    def passing(self) -> tuple[int, int]:
        """How many of the last tracklets passed, and how many these are."""
        recent = tuple(self._recent)
        return sum(recent), len(recent)

    @property
    def out_of_depth(self) -> bool:
        """True if the detector goes by movement, and few of the things that move here are one person."""
        passed, judged = self.passing
        return self._by_motion and judged >= _ENOUGH and passed < self._settings.min_passing * judged

    def strong(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Tell which scores are those of strong boxes: N booleans.  Other boxes continue a track, and give no crops."""
        return np.asarray(scores >= self._high_confidence, np.bool_)

    def update(self, tracked: TrackedBoxes, captured_us: int, frame_height: int, area: Area) -> None:
        """Take note of the boxes of a frame, which has this height in pixels and a picture in this area."""
        self._now_us = captured_us
        whole, inside = ~cut_off(tracked.boxes, area), ~touch_edge(tracked.boxes, area)
        columns = tracked.boxes, self.strong(tracked.scores), whole, inside, tracked.tracks.tolist()
        for box, is_strong, is_whole, is_inside, number in zip(*columns, strict=True):
            track = self._tracks.get(number)
            if track is None:
                track = self._tracks[number] = _Track(captured_us, captured_us, _centre(box))
            track.boxes += 1
            if is_strong:
                track.add(box, captured_us, frame_height, whole=bool(is_whole), inside=bool(is_inside))

    def chose(self, numbers: Iterable[int]) -> None:
        """Take note that crops of these live tracks were chosen, so that they are tracklets."""
        for number in numbers:
            if (track := self._tracks.get(number)) is not None:
                track.has_crop = True

    def failing(self, number: int) -> Failing:
        """Name the first rule that a live track does not keep so far; "" if it may be published."""
        track = self._tracks.get(number)
        if track is None:
            return "short"
        if against := self._against(track):
            return against
        odd = self._odd_size(track, track.by_place.medians())
        return odd if odd == "odd_size" else "out_of_depth" if self.out_of_depth else odd

    def usual_height(self, number: int) -> float:
        """Return the median height of a live track's strong boxes, as a fraction of the frame's; 0 if it has none.

        Those at the edge of the frame count only where there are no others.
        """
        track = self._tracks.get(number)
        return track.usual_height if track is not None else 0.0

    def end(self, ended: Iterable[EndedTrack]) -> tuple[EndedTrack, ...]:
        """Take note that tracks have ended, and judge those that can be judged now.

        Returns:
            The tracks that were judged, with ``failing`` and ``usual_height``, some of which may have ended earlier.
            Each is returned once; those that wait for others to be seen in their place are returned later.
        """
        added = [self._ended(track) for track in ended]
        for each in added:
            if each.against != "short":
                self._usual.add(each.heights)
        waiting, self._waiting = self._waiting + added, []
        due: list[_Ended] = []
        for each in waiting:
            (due if self._is_due(each, changed=bool(added)) else self._waiting).append(each)
        return tuple(map(self._judged, due))

    def finish(self, ended: Iterable[EndedTrack]) -> tuple[EndedTrack, ...]:
        """Judge tracks that have ended, and those that wait, by what is known now."""
        judged = self.end(ended)
        left, self._waiting = self._waiting, []
        return judged + tuple(map(self._judged, left))

    def _ended(self, ended: EndedTrack) -> _Ended:
        track = self._tracks.pop(ended.track, None) or _Track(0, 0, np.zeros(2, np.float32))
        against = self._against(track)
        if track.has_crop:
            self._recent.append(not against)
        return _Ended(ended, track, track.by_place.medians(), against)

    def _is_due(self, ended: _Ended, *, changed: bool) -> bool:
        """Tell whether an ended track can be judged; ``changed`` if others have ended since the last time."""
        if ended.against or self._now_us - ended.seen.first_us >= self._settings.evidence_s * 1e6:
            return True
        return changed and not self._odd_size(ended.seen, ended.heights)

    def _judged(self, ended: _Ended) -> EndedTrack:
        against = ended.against or self._odd_size(ended.seen, ended.heights)
        against = "" if against == "unproven" else against
        if ended.seen.has_crop:
            self._count(against)
        failing = against or ("out_of_depth" if self.out_of_depth else "")
        return replace(ended.track, failing=failing, usual_height=ended.seen.usual_height)

    def _count(self, against: Failing) -> None:
        if against:
            self.failed[against] += 1
        else:
            self.passed += 1

    def _odd_size(self, track: _Track, heights: Heights) -> Failing:
        """Compare a track's height with that of others in its place."""
        if self._max_ratio == np.inf:
            return ""
        ratio = self._usual.ratio(heights)
        if ratio is None:
            return "unproven" if self._now_us - track.first_us < self._settings.evidence_s * 1e6 else ""
        return "" if 1 / self._max_ratio <= ratio <= self._max_ratio else "odd_size"

    def _against(self, track: _Track) -> Failing:
        settings = self._settings
        if track.strong < settings.min_boxes or track.last_us - track.first_us < settings.min_s * 1e6:
            return "short"
        if track.strong < settings.min_strong * track.boxes:
            return "weak"
        if self._is_cut_off(track):
            return "cut_off"
        if track.changes and float(np.median(track.changes)) > self._max_change:
            return "unsteady"
        return "still" if track.farthest < self._min_travel * track.total_height / track.strong else ""

    def _is_cut_off(self, track: _Track) -> bool:
        """Tell whether the edge of the frame cuts off too many boxes; with motion, every box at the edge is."""
        half, least = track.strong / 2, self._settings.min_whole
        return track.inside < half if self._by_motion and least else track.whole < min(half, least)


def _centre(box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return (box[:2] + box[2:]) * np.float32(0.5)
