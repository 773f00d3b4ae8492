"""One feature for all that a track has shown, and when it goes upstream."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.tracking import EndedTrack
from reid_edge.upstream.message import Observation

#: A crop counts at least so much: with every quality 0 there would be no mean.
LEAST_WEIGHT = 1e-3


class TrackletConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a track's feature is published; the defaults were measured (``benchmarks/gating.md``).

    Every track is published when it ends, marked final.

    Attributes:
        early_s: Published also when crops of so long a time are in; inf: not.
        every_s: Published again so often after that; inf: not.
        max_live: Of more live tracks than this, the oldest is published as if it had ended.
    """

    early_s: Annotated[float, msgspec.Meta(ge=0)] = 3.0
    every_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    max_live: Annotated[int, msgspec.Meta(ge=1)] = 1024


@dataclass(frozen=True)
class Sighting:
    """A crop that was chosen to be embedded.

    Attributes:
        track: Number of its track.
        captured_us: When its frame was captured.
        box: x1 y1 x2 y2 as fractions of the frame.
        confidence: The detector's score, 0 to 1.
        quality: 0 to 1.
    """

    track: int
    captured_us: int
    box: tuple[float, float, float, float]
    confidence: float
    quality: float


class _Tracklet:
    """Sums over the crops of a track, and the best of them."""

    def __init__(self, first: Sighting, dim: int) -> None:
        self.best = first
        self.first_us = self.last_us = first.captured_us
        self.total = np.zeros(dim)
        self.weight = 0.0
        self.weighted_quality = 0.0
        self.crops = 0
        self.published_us: int | None = None

    def add(self, sighting: Sighting, feature: npt.NDArray[np.float32]) -> None:
        weight = max(sighting.quality, LEAST_WEIGHT)
        self.total += weight * feature.astype(np.float64)
        self.weight += weight
        self.weighted_quality += weight * sighting.quality
        self.crops += 1
        self.first_us = min(self.first_us, sighting.captured_us)
        self.last_us = max(self.last_us, sighting.captured_us)
        if sighting.quality > self.best.quality:
            self.best = sighting


class Tracklets:
    """Collects the features of live tracks and says what to publish.

    Not for several threads.  All features must be of one model.  What goes upstream is the mean of a track's features,
    weighted by the quality of their crops, at unit length, with the box and time of the best crop.

    Args:
        config: When to publish.
        model_hash: Of the bundle that made the features.

    Attributes:
        overflowed: Tracks that were ended for lack of room.
        late: Crops that came after that for such a track, left out.
    """

    def __init__(self, config: TrackletConfig | None = None, *, model_hash: str) -> None:
        self._config = config or TrackletConfig()
        self._model_hash = model_hash
        self._live: dict[int, _Tracklet] = {}
        self._closed = -1  # tracks up to this number were ended for lack of room
        self.overflowed = 0
        self.late = 0

    def __len__(self) -> int:
        return len(self._live)

    def add(self, sighting: Sighting, feature: npt.NDArray[np.float32]) -> list[Observation]:
        """Take in the feature of a crop.

        Args:
            sighting: What was embedded; crops of a track may come in any order.
            feature: D float32, unit length.

        Returns:
            What is to be published now: none, or this track's feature so far, and those of tracks that had to make
            room.
        """
        published = [] if sighting.track in self._live else self._make_room(sighting.track)
        if sighting.track <= self._closed:
            self.late += 1
            return published
        tracklet = self._live.setdefault(sighting.track, _Tracklet(sighting, len(feature)))
        tracklet.add(sighting, feature)
        if self._is_due(tracklet):
            published.append(self._publish(tracklet, final=False))
        return published

    def end(self, ended: Iterable[EndedTrack]) -> list[Observation]:
        """Final features of tracks that have ended; call it after all of their crops were added.

        A track of which nothing was embedded is not published.
        """
        published = []
        for track in ended:
            if (tracklet := self._live.pop(track.track, None)) is not None:
                tracklet.last_us = max(tracklet.last_us, track.last_us)
                published.append(self._publish(tracklet, final=True))
        return published

    def finish(self) -> list[Observation]:
        """Final features of all live tracks."""
        return self.end([EndedTrack(track, tracklet.last_us) for track, tracklet in self._live.items()])

    def _make_room(self, track: int) -> list[Observation]:
        """End the oldest live track if there are too many; numbers grow, so one number says which are closed."""
        if len(self._live) < self._config.max_live:
            return []
        oldest = min(self._live)
        self._closed = max(self._closed, min(oldest, track))
        if track < oldest:
            return []
        self.overflowed += 1
        return self.end([EndedTrack(oldest, self._live[oldest].last_us)])

    def _is_due(self, tracklet: _Tracklet) -> bool:
        if tracklet.published_us is None:
            since_us, wait_s = tracklet.first_us, self._config.early_s
        else:
            since_us, wait_s = tracklet.published_us, self._config.every_s
        return tracklet.last_us - since_us >= wait_s * 1e6

    def _publish(self, tracklet: _Tracklet, *, final: bool) -> Observation:
        tracklet.published_us = tracklet.last_us
        best = tracklet.best
        norm = float(np.linalg.norm(tracklet.total))
        feature = tracklet.total / norm if norm > 0 else tracklet.total
        return Observation(
            model_hash=self._model_hash,
            track=best.track,
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
