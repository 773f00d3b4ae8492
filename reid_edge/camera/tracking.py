"""Join the boxes of a person in successive frames to a track (ByteTrack)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.advised_scores import AdvisedScores
from reid_edge.camera.filters import ious
from reid_edge.camera.frames import Boxes, Detections, Scores
from reid_edge.errors import MissingExtraError

if TYPE_CHECKING:
    from edgefirst.tracker import ByteTrack, TrackInfo

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class TrackerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Joining of boxes to tracks; the defaults were measured (``benchmarks/gating.md``).

    Attributes:
        high_confidence: Lowest score of a box that starts a track; boxes with lower scores only continue one. Default:
            what suits the detector (docs/detectors.md); 0.6 for an unknown one.
        min_iou: Smallest overlap (intersection over union) of a box with the predicted box of its track.
        weak_iou: Smallest overlap of a box of lower score with the last box of a track. Such boxes can continue a track
            for ``lifespan_s`` after its last box of high score.
        lifespan_s: Time without a box after which a track ends, seconds.
        max_tracks: Largest number of live tracks; above it no track starts.
        max_boxes: Largest number of boxes used in a frame; those with the highest scores are kept.
    """

    high_confidence: Fraction | None = None
    min_iou: Fraction = 0.25
    weak_iou: Fraction = 0.5
    lifespan_s: Seconds = 1.0
    max_tracks: Count = 512
    max_boxes: Count = 256


@dataclass(frozen=True)
class EndedTrack:
    """A track that will get no more boxes.

    Attributes:
        track: Number of the track.
        last_us: Time of its last box, microseconds since 1970 UTC.
        correction_us: What is to be added to all times of the track: it ended because the clock was wrong, and was set.
        failing: Why it is not published (:mod:`~reid_edge.camera.person_check`); "" if it may be; None if it was not
            judged at its end.
        usual_height: Median height of its boxes, as a fraction of the frame's; 0 if that is not known.
    """

    track: int
    last_us: int
    correction_us: int = 0
    failing: str | None = None
    usual_height: float = 0.0


@dataclass(frozen=True, eq=False)
class TrackedBoxes:
    """The boxes of a frame that belong to tracks, and the tracks that ended before it.

    Attributes:
        boxes: N×4 float32, x1 y1 x2 y2 in pixels, as :meth:`Tracker.update` was given them: not smoothed.
        scores: N float32.
        tracks: N int64: the number of each box's track, no two alike.
        ended: Tracks that have ended; each is listed once.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    tracks: npt.NDArray[np.int64]
    ended: tuple[EndedTrack, ...]

    def take(self, rows: npt.NDArray[np.bool_]) -> TrackedBoxes:
        """Select boxes by a mask of N booleans; the tracks that ended stay."""
        return TrackedBoxes(self.boxes[rows], self.scores[rows], self.tracks[rows], self.ended)


@dataclass(frozen=True, eq=False)
class _Place:
    """Last box of a live track, 4 float32, and the time of its last one of high score."""

    box: npt.NDArray[np.float32]
    strong_us: int


class Tracker:
    """ByteTrack with growing track numbers, for frames at any rate.

    Forgets a track when it ends.  To be used by one thread.

    Args:
        settings: Thresholds and limits; None takes the defaults.
        start: Lowest score of a box that starts a track, where the settings give none.

    Attributes:
        high_confidence: Lowest score of a box that starts a track, as it is used.

    Raises:
        MissingExtraError: ``edgefirst-tracker`` is not installed.
    """

    def __init__(self, settings: TrackerSettings | None = None, *, start: float = AdvisedScores().start) -> None:
        self._settings = settings or TrackerSettings()
        self.high_confidence = start if self._settings.high_confidence is None else self._settings.high_confidence
        self._lifespan_us = round(self._settings.lifespan_s * 1e6)
        self._bytetrack = self._new_bytetrack()
        self._live: dict[str, EndedTrack] = {}
        self._places: dict[str, _Place] = {}
        self._next = 1
        self._now_us = 0
        self._origin_us = 0

    @property
    def live(self) -> int:
        """Number of tracks that have not ended."""
        return len(self._live)

    def update(self, detections: Detections, captured_us: int) -> TrackedBoxes:
        """Join the boxes of the next frame to tracks.

        Boxes without area or with a coordinate that is not finite are dropped, as are boxes of low score that continue
        no track.

        Args:
            detections: Boxes of one frame; there may be none.
            captured_us: Capture time, microseconds since 1970 UTC; a time before the last one counts as the last one.
        """
        ended = self._end_all(captured_us) if captured_us - self._now_us > self._lifespan_us else ()
        self._now_us = max(captured_us, self._now_us)
        usable = self._usable(detections)
        boxes = np.asarray(detections.boxes[usable], np.float32)
        scores = np.asarray(detections.scores[usable], np.float32)
        credible = self._credible(boxes, scores)
        boxes, scores = boxes[credible], scores[credible]
        infos = self._associate(boxes, scores)
        joined = [(row, info.uuid) for row, info in enumerate(infos) if info is not None]
        rows = np.array([row for row, _ in joined], np.intp)
        tracks = [self._seen(uuid, boxes[row], scores[row]) for row, uuid in joined]
        return TrackedBoxes(boxes[rows], scores[rows], np.array(tracks, np.int64), ended + self._end_unseen())

    def finish(self) -> tuple[EndedTrack, ...]:
        """End every live track: no more frames will come, or the next ones have times of another clock."""
        self._now_us = 0
        return self._end_all(0)

    def _usable(self, detections: Detections) -> npt.NDArray[np.intp]:
        boxes, scores = detections.boxes, detections.scores
        # A box that is not finite would be joined to a track and spoil its motion for good.
        good = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
        good &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        rows = np.flatnonzero(good)
        if len(rows) > self._settings.max_boxes:
            rows = np.sort(rows[np.argsort(-scores[rows], kind="stable")[: self._settings.max_boxes]])
        return rows

    def _associate(self, boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32]) -> list[TrackInfo | None]:
        if len(self._live) >= self._settings.max_tracks:  # too low to start a track, high enough to continue one
            scores = np.minimum(scores, np.nextafter(np.float32(self.high_confidence), np.float32(0)))
        infos: list[TrackInfo | None] = self._bytetrack.update(
            np.ascontiguousarray(boxes),
            np.ascontiguousarray(scores),
            np.zeros(len(boxes), np.uintp),
            (self._now_us - self._origin_us) * 1000,  # 64 bits of nanoseconds since 1970 end in 2262
        )
        return infos

    def _credible(self, boxes: Boxes, scores: Scores) -> npt.NDArray[np.bool_]:
        """Tell which boxes may continue or start a track: those of high score, and others where a track was last seen.

        The library would let a weak box anywhere near continue a track, and a chain of them carry it to other things.
        """
        credible: npt.NDArray[np.bool_] = scores >= self.high_confidence
        weak = np.flatnonzero(~credible)
        since_us = self._now_us - self._lifespan_us
        places = [place.box for place in self._places.values() if place.strong_us >= since_us]
        if len(weak) and places:
            credible[weak] = ious(boxes[weak], np.stack(places)).max(1) >= self._settings.weak_iou
        return credible

    def _seen(self, uuid: str, box: npt.NDArray[np.float32], score: np.float32) -> int:
        known = self._live.get(uuid)
        if known is None:
            number, self._next = self._next, self._next + 1
        else:
            number = known.track
        self._live[uuid] = EndedTrack(number, self._now_us)
        is_strong = known is None or score >= self.high_confidence
        self._places[uuid] = _Place(box, self._now_us if is_strong else self._places[uuid].strong_us)
        return number

    def _end_unseen(self) -> tuple[EndedTrack, ...]:
        alive = {active.info.uuid for active in self._bytetrack.get_active_tracks()}
        return self._end(uuid for uuid in tuple(self._live) if uuid not in alive)

    def _end_all(self, origin_us: int) -> tuple[EndedTrack, ...]:
        self._origin_us = origin_us
        # The library matches before it checks ages: after a gap it would continue tracks that ended long ago.
        self._bytetrack = self._new_bytetrack()
        return self._end(tuple(self._live))

    def _end(self, uuids: Iterable[str]) -> tuple[EndedTrack, ...]:
        uuids = tuple(uuids)
        for uuid in uuids:
            del self._places[uuid]
        return tuple(self._live.pop(uuid) for uuid in uuids)

    def _new_bytetrack(self) -> ByteTrack:
        try:
            from edgefirst.tracker import ByteTrack
        except ImportError as error:
            raise MissingExtraError("edgefirst-tracker", "camera", "tracking") from error
        return ByteTrack(
            high_conf=self.high_confidence,
            iou=self._settings.min_iou,
            update=1.0,  # the plain Kalman filter; a lower value lags behind, and loses people at 10 frames a second
            lifespan_ns=self._lifespan_us * 1000,
        )
