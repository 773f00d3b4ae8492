"""Average the features of a track's crops while it shows one person, and decide when to publish the average."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.tracking import EndedTrack
from reid_edge.camera.watcher import Watcher
from reid_edge.types import Feature
from reid_edge.upstream.observation import Observation

#: Least weight of a crop: if every quality were 0 there would be no mean.
LEAST_WEIGHT = 1e-3
#: Crops in a mean from which another crop may be doubted: the first crop of a track is often a bad one.
SURE_CROPS = 2
#: Natural logarithm of a crop's height over the usual one of its track → how surely it shows the same, whole person.
LIKENESS = ((0.1, 0.3), (1.0, 0.1))
#: Worth of the best crop inside the frame, as a multiple of that of any, from which none at the edge is the best one.
ENOUGH_INSIDE = 0.5
#: Number of crops of a tracklet among which the best one is chosen.
CANDIDATES = 64


class TrackletSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Publication of tracklets; the defaults were measured (``benchmarks/gating.md``).

    Every tracklet is published when it ends, marked final.

    Attributes:
        early_s: Time from its first crop after which a live tracklet is first published, seconds. inf: never.
        every_s: Time after which a live tracklet is published again, seconds. inf: never.
        max_live: Largest number of live tracklets. Above it, the oldest is published as if it had ended.
        split_cosine: If two crops in a row have a lower cosine similarity to the tracklet's mean, another tracklet
            begins. -1: never.
    """

    early_s: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    every_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    max_live: Annotated[int, msgspec.Meta(ge=1)] = 1024
    split_cosine: Annotated[float, msgspec.Meta(ge=-1, le=1)] = 0.6


@dataclass(frozen=True)
class CropDetails:
    """A crop that was chosen to be embedded, without its pixels.

    Attributes:
        track: Number of its track, from the tracker.
        captured_us: Capture time of its frame, microseconds since 1970 UTC.
        box: x1 y1 x2 y2 as fractions of the frame.
        confidence: Score of the detector, 0 to 1.
        quality: Estimate of :func:`~reid_edge.camera.crop_selector.crop_quality`, 0 to 1.
        failing: Why its track could not be published if it ended now (:mod:`~reid_edge.camera.person_check`); "" if it
            could.
        usual_height: Median height of its track's boxes so far, as a fraction of the frame's; 0 if that is not known.
        at_edge: Its box lies at the edge of the frame.
    """

    track: int
    captured_us: int
    box: tuple[float, float, float, float]
    confidence: float
    quality: float
    failing: str = ""
    usual_height: float = 0.0
    at_edge: bool = False

    @property
    def worth(self) -> float:
        """How much the crop says of a person: its quality times the detector's score."""
        return self.quality * self.confidence

    def likeness(self, usual_height: float) -> float:
        """Rate by its height how surely the crop shows what the track shows, 0.1 to 1.

        A box that has lost the head, or has taken in somebody else, is lower or higher than the others of its track.

        Args:
            usual_height: Median height of the track's boxes; 0 if that is not known.
        """
        height = self.box[3] - self.box[1]
        if usual_height <= 0 or height <= 0:
            return 1.0
        return float(np.interp(abs(np.log(height / usual_height)), *LIKENESS))


class _Tracklet:
    """Sums over the crops of one person, the best crops, and a doubted one that may show someone else."""

    def __init__(self, details: CropDetails, feature: Feature) -> None:
        self.number: int | None = None
        self.candidates: list[CropDetails] = []
        self.first_us = self.last_us = details.captured_us
        self.total = np.zeros(len(feature))
        self.weight = 0.0
        self.weighted_quality = 0.0
        self.crops = 0
        self.published_us: int | None = None
        self.doubted: tuple[CropDetails, Feature] | None = None
        self.failing, self.usual_height = details.failing, details.usual_height
        self.add(details, feature)

    @property
    def best(self) -> CropDetails:
        """The crop that shows the person best: of great worth, inside the frame, as high as the track usually is."""
        inside = [crop for crop in self.candidates if not crop.at_edge]
        least = ENOUGH_INSIDE * max(crop.worth for crop in self.candidates)
        good_inside = any(crop.worth >= least for crop in inside)
        return max(inside if good_inside else self.candidates, key=self._value)

    def _value(self, crop: CropDetails) -> float:
        return crop.worth * crop.likeness(self.usual_height)

    def add(self, details: CropDetails, feature: Feature) -> None:
        weight = max(details.worth, LEAST_WEIGHT)
        self.total += weight * feature.astype(np.float64)
        self.weight += weight
        self.weighted_quality += weight * details.quality
        self.crops += 1
        self.first_us = min(self.first_us, details.captured_us)
        if details.captured_us >= self.last_us:
            self.last_us, self.failing = details.captured_us, details.failing
            self.usual_height = details.usual_height
        self.candidates.append(details)
        if len(self.candidates) > CANDIDATES:
            self.candidates.remove(min(self.candidates, key=self._value))
        self.doubted = None

    def shift(self, correction_us: int) -> None:
        self.first_us += correction_us
        self.last_us += correction_us
        if correction_us:
            self.candidates = [replace(crop, captured_us=crop.captured_us + correction_us) for crop in self.candidates]


class Tracklets:
    """Averages the features of live tracks and makes the observations to publish.

    To be used by one thread.  An observation has the mean of a tracklet's features, weighted by the quality of their
    crops times the detector's scores, at unit length, with the box and time of the best crop.  Which one that
    is depends on its quality, its score, and how near its height is to the usual one of the track.

    A tracklet whose track fails the check of persons is held back; if it still does at its end, it is left out.  One
    that waits for its check (``unproven``) is held back too, and is published if it ends without one.

    A track is one tracklet as long as it shows one person.  A crop unlike the mean of two or more is held back.  If the
    next one is unlike the mean too, and like the one held back, the track now shows someone else, and the two begin
    another tracklet.  Otherwise it was a bad crop, or the last of its track, and is left out.

    Args:
        settings: When to publish; None takes the defaults.
        model_hash: Hash of the model that makes the features.
        first_tracklet: Number of the first tracklet that is published; the next ones count up.
        watcher: Is told what becomes of each crop and track.

    Attributes:
        split: Number of times that a track began to show someone else.
        overflowed: Number of tracks that were ended for lack of room.
        late: Number of crops that came for such a track afterwards, left out.
        withheld: Number of tracklets that ended unpublished because their tracks failed the check, by reason.
    """

    def __init__(
        self,
        settings: TrackletSettings | None = None,
        *,
        model_hash: str,
        first_tracklet: int = 1,
        watcher: Watcher | None = None,
    ) -> None:
        self._settings = settings or TrackletSettings()
        self._model_hash = model_hash
        self._next = first_tracklet
        self._watcher = watcher or Watcher()
        self._live: dict[int, _Tracklet] = {}
        self._closed = -1  # all tracks up to this number were ended for lack of room
        self.split = 0
        self.overflowed = 0
        self.late = 0
        self.withheld: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._live)

    @property
    def next_tracklet(self) -> int:
        """Number of the next tracklet that is published."""
        return self._next

    def add(self, details: CropDetails, feature: Feature) -> list[Observation]:
        """Add the feature of a crop.

        Args:
            details: The crop; those of a track may come in any order.
            feature: D float32, unit length.

        Returns:
            Observations to publish now: of this tracklet if it is due, of a track that had to make room, and of the
            person whom the track no longer shows.
        """
        published = [] if details.track in self._live else self._make_room(details.track)
        if details.track <= self._closed:
            self.late += 1
            self._watcher.used(details, "late")
            return published
        tracklet, left = self._add_to_track(details, feature)
        if left is not None:
            published += self._conclude(left)
        if self._is_due(tracklet):
            published.append(self._publish(tracklet, final=False))
        return published

    def _add_to_track(self, details: CropDetails, feature: Feature) -> tuple[_Tracklet, _Tracklet | None]:
        """Add a crop to the tracklet of its track; return this one, and the one before it if it has just ended."""
        tracklet = self._live.get(details.track)
        if tracklet is None:
            tracklet = self._live[details.track] = _Tracklet(details, feature)
        elif tracklet.crops < SURE_CROPS or self._are_alike(tracklet.total, feature):
            tracklet.add(details, feature)
        elif tracklet.doubted is not None and self._are_alike(tracklet.doubted[1], feature):
            self.split += 1
            self._watcher.used(details, "split")
            following = self._live[details.track] = _Tracklet(*tracklet.doubted)
            following.add(details, feature)
            return following, tracklet
        else:
            tracklet.doubted = details, feature
            self._watcher.used(details, "doubted")
            return tracklet, None
        self._watcher.used(details, "averaged")
        return tracklet, None

    def _are_alike(self, one: npt.NDArray[np.floating], other: Feature) -> bool:
        lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
        return float(one @ other) >= self._settings.split_cosine * lengths or self._settings.split_cosine == -1

    def end(self, ended: Iterable[EndedTrack]) -> list[Observation]:
        """Make the final observations of tracks that have ended; to be called after all of their crops were added.

        A track without an embedded crop has none.
        """
        published = []
        for track in ended:
            if (tracklet := self._live.pop(track.track, None)) is not None:
                tracklet.last_us = max(tracklet.last_us, track.last_us)
                tracklet.shift(track.correction_us)
                tracklet.failing = tracklet.failing if track.failing is None else track.failing
                tracklet.usual_height = track.usual_height or tracklet.usual_height
                published += self._conclude(tracklet)
            self._watcher.ended(track)
        return published

    def _conclude(self, tracklet: _Tracklet) -> list[Observation]:
        """Make the final observation of a tracklet, unless it fails and nothing of it was published."""
        if tracklet.failing not in ("", "unproven") and tracklet.number is None:
            self.withheld[tracklet.failing] += 1
            return []
        return [self._publish(tracklet, final=True)]

    def finish(self) -> list[Observation]:
        """Make the final observations of all live tracks; a track that goes on afterwards is another tracklet."""
        return self.end([EndedTrack(track, tracklet.last_us) for track, tracklet in self._live.items()])

    def change_model(self, model_hash: str) -> list[Observation]:
        """Make the final observations of all live tracks; features that are added afterwards are of another model."""
        published = self.finish()
        self._model_hash = model_hash
        return published

    def _make_room(self, track: int) -> list[Observation]:
        """End the oldest live track if there are too many; track numbers grow, so one number tells which are closed."""
        if len(self._live) < self._settings.max_live:
            return []
        oldest = min(self._live)
        self._closed = max(self._closed, min(oldest, track))
        if track < oldest:
            return []
        self.overflowed += 1
        return self.end([EndedTrack(oldest, self._live[oldest].last_us)])

    def _is_due(self, tracklet: _Tracklet) -> bool:
        if tracklet.failing:
            return False
        if tracklet.published_us is None:
            since_us, wait_s = tracklet.first_us, self._settings.early_s
        else:
            since_us, wait_s = tracklet.published_us, self._settings.every_s
        return tracklet.last_us - since_us >= wait_s * 1e6

    def _publish(self, tracklet: _Tracklet, *, final: bool) -> Observation:
        tracklet.published_us = tracklet.last_us
        if tracklet.number is None:
            tracklet.number, self._next = self._next, self._next + 1
        best = tracklet.best
        norm = float(np.linalg.norm(tracklet.total))
        feature = tracklet.total / norm if norm > 0 else tracklet.total
        observation = Observation(
            model_hash=self._model_hash,
            track=tracklet.number,
            captured_us=best.captured_us,
            first_us=tracklet.first_us,
            last_us=tracklet.last_us,
            box=best.box,
            confidence=best.confidence,
            quality=min(1.0, tracklet.weighted_quality / tracklet.weight),
            crops=tracklet.crops,
            final=final,
            feature=feature.astype(np.float32),
        )
        self._watcher.published(best.track, observation)
        return observation
