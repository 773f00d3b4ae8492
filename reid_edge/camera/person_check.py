"""Tell tracks of one walking or standing person from those of body parts, furniture, cars and shadows.

No pixels are read: the check goes by how long a track lasts, how sure the detector is of it, how steady its height is,
and, for a detector that goes by movement, how far it has moved (``benchmarks/gallery_content.py``).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.crop_selector import touch_edge
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Failing = Literal["", "short", "weak", "cut_off", "unsteady", "still", "out_of_depth"]
#: Limits for a detector that goes by movement: its blobs are body parts, merged people, and things that only changed.
MOTION_HEIGHT_CHANGE, MOTION_TRAVEL = 0.06, 0.5
#: What to use in place of ``motion``.
BETTER_DETECTOR = "use a model: --detector person-detection-0202, after 'reid-edge detector get person-detection-0202'"
#: Number of changes of height that are remembered of a track.
_CHANGES = 64
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
        max_height_change: Largest median change of height from one strong box to the next, as a fraction. Default: 0.06
            for the detector ``motion``, no limit for others.
        min_travel: Smallest distance that a track must have moved from its first place, in heights of its box. Default:
            0.5 for the detector ``motion``, 0 for others.
        min_passing: Smallest part of the last 32 tracklets of the detector ``motion`` that must pass these rules. Below
            it, the detector does not suit the scene, and none is published. 0 publishes all that pass.
    """

    min_boxes: Annotated[int, msgspec.Meta(ge=1)] = 4
    min_s: NotNegative = 0.5
    min_strong: Fraction = 0.5
    max_height_change: NotNegative | None = None
    min_travel: NotNegative | None = None
    min_passing: Fraction = 0.3


@dataclass
class _Track:
    """What is remembered of a live track."""

    first_us: int
    last_us: int
    start: npt.NDArray[np.float32]
    boxes: int = 0
    strong: int = 0
    cut_off: int = 0
    has_crop: bool = False
    height: float = 0.0
    total_height: float = 0.0
    farthest: float = 0.0
    changes: deque[float] = field(default_factory=lambda: deque(maxlen=_CHANGES))

    def add(self, box: npt.NDArray[np.float32], captured_us: int) -> None:
        """Add a strong box."""
        height = float(box[3] - box[1])
        if self.strong:
            self.changes.append(abs(float(np.log(height / self.height))))
        self.height, self.last_us = height, captured_us
        self.strong += 1
        self.total_height += height
        self.farthest = max(self.farthest, float(np.hypot(*(_centre(box) - self.start))))


class PersonCheck:
    """Follows each track, and says what is against its being one whole person.

    Forgets a track when it ends.  To be used by one thread; the counts may be read by any.

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
        usual = (MOTION_HEIGHT_CHANGE, MOTION_TRAVEL) if by_motion else (np.inf, 0.0)
        self._max_change = usual[0] if change is None else change
        self._min_travel = usual[1] if travel is None else travel
        self._tracks: dict[int, _Track] = {}
        self._recent: deque[bool] = deque(maxlen=_JUDGED)
        self.failed: Counter[str] = Counter()
        self.passed = 0

    def __len__(self) -> int:
        return len(self._tracks)

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

    def update(self, tracked: TrackedBoxes, captured_us: int, size_wh: tuple[int, int]) -> None:
        """Take note of the boxes of a frame, which has this width and height in pixels."""
        cut_off = touch_edge(tracked.boxes, *size_wh)
        columns = tracked.boxes, self.strong(tracked.scores), cut_off, tracked.tracks.tolist()
        for box, is_strong, is_cut_off, number in zip(*columns, strict=True):
            track = self._tracks.get(number)
            if track is None:
                track = self._tracks[number] = _Track(captured_us, captured_us, _centre(box))
            track.boxes += 1
            if is_strong:
                track.add(box, captured_us)
                track.cut_off += bool(is_cut_off)

    def chose(self, numbers: Iterable[int]) -> None:
        """Take note that crops of these live tracks were chosen, so that they are tracklets."""
        for number in numbers:
            if (track := self._tracks.get(number)) is not None:
                track.has_crop = True

    def failing(self, number: int) -> Failing:
        """Name the first rule that a live track does not keep so far; "" if it may be published."""
        track = self._tracks.get(number)
        against: Failing = "short" if track is None else self._against(track)
        return against or ("out_of_depth" if self.out_of_depth else "")

    def end(self, ended: Iterable[EndedTrack]) -> tuple[EndedTrack, ...]:
        """Judge tracks that have ended, and forget them: the same tracks, with ``failing``."""
        return tuple(replace(track, failing=self._end(track.track)) for track in ended)

    def _end(self, number: int) -> Failing:
        track = self._tracks.pop(number, None)
        against: Failing = "short" if track is None else self._against(track)
        if track is not None and track.has_crop:
            self._note(against)
        return against or ("out_of_depth" if self.out_of_depth else "")

    def _note(self, against: Failing) -> None:
        self._recent.append(not against)
        if against:
            self.failed[against] += 1
        else:
            self.passed += 1

    def _against(self, track: _Track) -> Failing:
        settings = self._settings
        if track.strong < settings.min_boxes or track.last_us - track.first_us < settings.min_s * 1e6:
            return "short"
        if track.strong < settings.min_strong * track.boxes:
            return "weak"
        if self._by_motion and track.cut_off > track.strong / 2:
            return "cut_off"
        if track.changes and float(np.median(track.changes)) > self._max_change:
            return "unsteady"
        return "still" if track.farthest < self._min_travel * track.total_height / track.strong else ""


def _centre(box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return (box[:2] + box[2:]) * np.float32(0.5)
