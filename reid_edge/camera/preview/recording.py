"""Record what became of each box and track, within a bound of memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.camera.crop_selector import ChosenCrops
from reid_edge.camera.filters import Point
from reid_edge.camera.frames import Frame
from reid_edge.camera.preview.drawing import drawn
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes
from reid_edge.camera.tracklets import CropDetails
from reid_edge.camera.watcher import Use, Watcher
from reid_edge.crops import crop_boxes
from reid_edge.pages import jpeg
from reid_edge.types import Image
from reid_edge.upstream.observation import Observation

#: Largest size of a crop on the page, and of the frame, pixels.
CROP_HEIGHT, CROP_WIDTH, FRAME_WIDTH = 128, 128, 960
#: Shortest time between two crops of a track that are shown though they were not chosen, microseconds.
APART_US = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds on what is kept for the page: some 4 kB for each crop.

    Attributes:
        tracks: Largest number of tracks, the first ones.
        chosen: Largest number of chosen crops of a track, evenly from all.
        left: Largest number of other crops of a track.
        crops: Largest number of crops, all together.
    """

    tracks: int = 300
    chosen: int = 12
    left: int = 4
    crops: int = 2000


@dataclass(eq=False)
class SeenCrop:
    """A crop on the page.

    Attributes:
        picture: JPEG.
        captured_us: Capture time of its frame.
        score: The detector's score.
        quality: Quality of the crop, 0 to 1.
        reason: Why it was chosen, or was not.
        chosen: Whether it was.
        use: What became of it; "" if nothing did, or it is not known.
    """

    picture: bytes
    captured_us: int
    score: float
    quality: float
    reason: str
    chosen: bool
    use: Use | str = ""


@dataclass(eq=False)
class SeenTrack:
    """A track on the page.

    Attributes:
        number: The tracker's number.
        first_us: Capture time of its first box.
        last_us: Capture time of its last box.
        boxes: Number of its boxes.
        lowest: Lowest score of its boxes.
        highest: Highest score of its boxes.
        chosen: Number of crops that were chosen, by reason.
        left: Number of crops that were not, by reason.
        uses: Number of chosen crops by what became of them.
        crops: Those that are shown.
        every: One in so many chosen crops is shown.
        failing: Why the track is not like one whole person; "" if it is, None if that is not known.
        published: Last observation of each tracklet that was published of it, without its feature: number and crops.
    """

    number: int
    first_us: int
    last_us: int
    boxes: int = 0
    lowest: float = 1.0
    highest: float = 0.0
    chosen: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    uses: Counter[str] = field(default_factory=Counter)
    crops: list[SeenCrop] = field(default_factory=list)
    every: int = 1
    failing: str | None = None
    published: dict[int, int] = field(default_factory=dict)

    def shown(self, *, chosen: bool) -> int:
        """Return the number of crops that are shown, of those that were chosen or of the others."""
        return sum(crop.chosen == chosen for crop in self.crops)


class Recorder(Watcher):
    """Keeps what a page shows: the first tracks, some crops of each, and the frame with the most boxes.

    Args:
        masks: Polygons, to be drawn on the frame.
        limits: Bounds of what is kept.
        also: Called with each frame and its boxes.

    Attributes:
        tracks: By the tracker's number.
        more_tracks: Numbers of further live tracks that are not kept.
        not_kept: Number of tracks that are not kept.
        observations: Number of observations that would have been published.
        tracklets: Number of tracklets that would have been published.
        frames: Number of frames.
        first_us: Capture time of the first frame; None before it.
        last_us: Capture time of the last frame.
        picture: The frame with the most boxes, with boxes and masks drawn; JPEG.
        picture_us: Its capture time.
    """

    def __init__(
        self,
        masks: Sequence[Sequence[Point]] = (),
        limits: Limits | None = None,
        also: Callable[[Frame, TrackedBoxes], object] = lambda _frame, _tracked: None,
    ) -> None:
        self._masks = masks
        self._limits = limits or Limits()
        self._also = also
        self._lock = threading.Lock()
        self._crops = 0
        self._most = -1
        self.tracks: dict[int, SeenTrack] = {}
        self.more_tracks: set[int] = set()
        self.not_kept = 0
        self.observations = 0
        self.tracklets = 0
        self.frames = 0
        self.first_us: int | None = None
        self.last_us = 0
        self.picture = b""
        self.picture_us = 0

    def saw(self, frame: Frame, tracked: TrackedBoxes, quality: npt.NDArray[np.float32], chosen: ChosenCrops) -> None:
        """See :class:`~reid_edge.camera.watcher.Watcher`."""
        reasons: dict[int, str] = dict(zip(chosen.rows.tolist(), chosen.reasons, strict=True))
        with self._lock:
            self._see_frame(frame, tracked)
            for row, number in enumerate(tracked.tracks.tolist()):
                if (track := self._track(number, frame.captured_us)) is not None:
                    score, value = float(tracked.scores[row]), float(quality[row])
                    reason = reasons[row] if row in reasons else str(chosen.left.get(number, "low_score"))
                    self._see_box(track, score, frame.captured_us)
                    (track.chosen if row in reasons else track.left)[reason] += 1
                    if self._is_to_be_shown(track, frame.captured_us, chosen=row in reasons):
                        picture = thumbnail(crop_boxes(frame.image, tracked.boxes[row : row + 1])[0][0])
                        crop = SeenCrop(picture, frame.captured_us, score, value, reason, row in reasons)
                        track.crops.append(crop)
                        self._crops += 1
                        if track.shown(chosen=True) > self._limits.chosen:
                            self._thin(track)
        self._also(frame, tracked)

    def dropped(self, crop: CropDetails) -> None:
        """See :class:`~reid_edge.camera.watcher.Watcher`."""
        self._use(crop, "dropped")

    def used(self, crop: CropDetails, use: Use) -> None:
        """See :class:`~reid_edge.camera.watcher.Watcher`."""
        self._use(crop, use)

    def published(self, track: int, observation: Observation) -> None:
        """See :class:`~reid_edge.camera.watcher.Watcher`."""
        with self._lock:
            self.observations += 1
            self.tracklets = max(self.tracklets, observation.track)
            if (seen := self.tracks.get(track)) is not None:
                seen.published[observation.track] = observation.crops

    def ended(self, track: EndedTrack) -> None:
        """See :class:`~reid_edge.camera.watcher.Watcher`."""
        with self._lock:
            self.more_tracks.discard(track.track)
            if (seen := self.tracks.get(track.track)) is not None and track.failing is not None:
                seen.failing = track.failing

    def _see_frame(self, frame: Frame, tracked: TrackedBoxes) -> None:
        self.frames += 1
        self.first_us = frame.captured_us if self.first_us is None else self.first_us
        self.last_us = frame.captured_us
        if len(tracked.boxes) > self._most:
            self._most, self.picture_us = len(tracked.boxes), frame.captured_us
            self.picture = jpeg(_within(drawn(frame.image, tracked, self._masks), FRAME_WIDTH, FRAME_WIDTH))

    def _track(self, number: int, now_us: int) -> SeenTrack | None:
        if number in self.tracks:
            return self.tracks[number]
        if len(self.tracks) < self._limits.tracks:
            return self.tracks.setdefault(number, SeenTrack(number, now_us, now_us))
        if number not in self.more_tracks:
            self.more_tracks.add(number)
            self.not_kept += 1
        return None

    @staticmethod
    def _see_box(track: SeenTrack, score: float, now_us: int) -> None:
        track.boxes += 1
        track.last_us = now_us
        track.lowest, track.highest = min(track.lowest, score), max(track.highest, score)

    def _is_to_be_shown(self, track: SeenTrack, now_us: int, *, chosen: bool) -> bool:
        if self._crops >= self._limits.crops:
            return False
        if chosen:
            return (track.chosen.total() - 1) % track.every == 0
        others = [crop.captured_us for crop in track.crops if not crop.chosen]
        return len(others) < self._limits.left and (not others or now_us - others[-1] >= APART_US)

    def _thin(self, track: SeenTrack) -> None:
        """Leave every second of the chosen crops out, of these and of those to come."""
        out = [crop for crop in track.crops if crop.chosen][1::2]
        track.crops = [crop for crop in track.crops if crop not in out]
        track.every *= 2
        self._crops -= len(out)

    def _use(self, crop: CropDetails, use: Use | str) -> None:
        with self._lock:
            if (track := self.tracks.get(crop.track)) is not None:
                track.uses[use] += 1
                for seen in track.crops:
                    if seen.chosen and seen.captured_us == crop.captured_us:
                        seen.use = use


def thumbnail(crop: Image) -> bytes:
    """Encode a crop, h×w×3 uint8 BGR, as a JPEG that is no larger than the page shows it."""
    return jpeg(_within(crop, CROP_WIDTH, CROP_HEIGHT), quality=80)


def _within(image: Image, width: int, height: int) -> Image:
    factor = min(1.0, width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
