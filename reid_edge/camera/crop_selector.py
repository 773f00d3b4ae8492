"""Choose the crops that are worth embedding.

The quality of a crop estimates, from its box and the boxes around it, how much the crop says about a person.  Each term
of it is the ranking quality (mAP) that crops keep when they are degraded in one way, as a fraction of the mAP that they
reach undegraded: people of Market-1501 as queries, features of a network that was not trained on them
(``benchmarks/gating.md``).  The detector's score and the sharpness of a crop are no terms: in the same measurement they
ranked the crops of a track in opposite ways for two networks.  Yet the score tells how surely the crop shows a person:
of two crops the one with the greater quality times score is the better one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.frame_edge import Area, touch_edge
from reid_edge.camera.frames import Boxes
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes

Reason = Literal["first", "better", "interval", "every"]
#: Why a crop is not chosen: waiting for a better first crop; a crop was chosen just now; it is no better than the ones
#: before; the track has its only one.
WhyNot = Literal["waits", "soon", "no_better", "has_one"]
Terms = npt.NDArray[np.float64]
Curve = tuple[tuple[float, ...], tuple[float, ...]]
#: Height of the crop in pixels → mAP kept.
HEIGHT: Curve = ((8, 16, 24, 32, 40, 48, 64), (0.05, 0.34, 0.60, 0.79, 0.90, 0.96, 1.0))
#: Width over height → mAP kept; narrow boxes cut sides off, wide ones legs.
ASPECT: Curve = ((0.15, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 1.0), (0.5, 0.84, 0.92, 0.95, 0.99, 1.0, 0.92, 0.79, 0.47))
#: Fraction of the box that no box in front covers → mAP kept.
VISIBLE: Curve = ((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), (0.05, 0.15, 0.28, 0.51, 0.77, 0.90, 0.95, 1.0))
#: mAP kept by boxes at the frame's edge, on video.  A constant: how much of the person lies beyond it is not known.
AT_EDGE = 0.6


class CropSelectorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules for the choice of crops that are embedded; the defaults were measured (``benchmarks/gating.md``).

    Attributes:
        mode: ``gated``: by the rules below; ``first``: one crop per track; ``every``: all crops, for comparison.
        interval_s: Time after which another crop of a live track is embedded, seconds.
        better_by: Before that, a crop is embedded if its quality times its score is this many times the best so far.
        better_s: Shortest time between such a crop and the one before it, seconds.
        min_quality: Quality that the first crop of a track should have.
        patience_s: Time to wait for a first crop of that quality, seconds.
    """

    mode: Literal["gated", "first", "every"] = "gated"
    interval_s: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    better_by: Annotated[float, msgspec.Meta(gt=1)] = 1.3
    better_s: Annotated[float, msgspec.Meta(ge=0)] = 0.2
    min_quality: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.95
    patience_s: Annotated[float, msgspec.Meta(ge=0)] = 0.3


@dataclass(frozen=True, eq=False)
class ChosenCrops:
    """Crops to embed.

    Attributes:
        rows: Rows of the tracked boxes, ascending.
        reasons: Reason for each.
        left: Reason against each of the other crops, by the number of its track.
    """

    rows: npt.NDArray[np.intp]
    reasons: tuple[Reason, ...]
    left: dict[int, WhyNot]


class CropSelector:
    """Chooses the crops of each frame that are to be embedded.

    Forgets a track when it ends.  To be used by one thread.

    Args:
        settings: Rules of the choice; None takes the defaults.
    """

    def __init__(self, settings: CropSelectorSettings | None = None) -> None:
        self._settings = settings or CropSelectorSettings()
        self._tracks: dict[int, _Track] = {}

    def __len__(self) -> int:
        return len(self._tracks)

    def select(self, tracked: TrackedBoxes, quality: npt.NDArray[np.float32], captured_us: int) -> ChosenCrops:
        """Choose the crops of a frame.

        Args:
            tracked: Boxes of the frame, and tracks that have ended.
            quality: N float32, quality of each box, 0 to 1.
            captured_us: Capture time of the frame, microseconds since 1970 UTC.
        """
        rows, reasons = [], []
        left: dict[int, WhyNot] = {}
        values = zip(tracked.tracks.tolist(), quality.tolist(), (quality * tracked.scores).tolist(), strict=True)
        for row, (track, value, worth) in enumerate(values):
            state = self._tracks.setdefault(track, _Track(captured_us))
            if (reason := self._reason(state, value, worth, captured_us)) is not None:
                state.chosen_us, state.best = captured_us, max(state.best, worth)
                rows.append(row)
                reasons.append(reason)
            else:
                left[track] = self._why_not(state, captured_us)
        self.end(tracked.ended)
        return ChosenCrops(np.array(rows, np.intp), tuple(reasons), left)

    def dropped(self, track: int) -> None:
        """Note that a chosen crop of this track was dropped before it was embedded: the next one counts as first."""
        if (state := self._tracks.get(track)) is not None:
            state.chosen_us, state.best = None, 0.0

    def end(self, ended: Iterable[EndedTrack]) -> None:
        """Forget tracks that ended without another frame; :meth:`select` forgets those of ``tracked.ended`` itself."""
        for track in ended:
            self._tracks.pop(track.track, None)

    def _reason(self, state: _Track, quality: float, worth: float, now_us: int) -> Reason | None:
        settings = self._settings
        if settings.mode == "every":
            return "every"
        if state.chosen_us is None:
            waited = now_us - state.since_us >= settings.patience_s * 1e6
            return "first" if waited or quality >= settings.min_quality else None
        if settings.mode == "first":
            return None
        since_s = (now_us - state.chosen_us) / 1e6
        if since_s >= settings.interval_s:
            return "interval"
        return "better" if since_s >= settings.better_s and worth > settings.better_by * state.best else None

    def _why_not(self, state: _Track, now_us: int) -> WhyNot:
        if state.chosen_us is None:
            return "waits"
        if self._settings.mode == "first":
            return "has_one"
        return "soon" if (now_us - state.chosen_us) / 1e6 < self._settings.better_s else "no_better"


@dataclass
class _Track:
    """State of a live track: when it began, when a crop was last chosen, and the best quality times score so far."""

    since_us: int
    chosen_us: int | None = None
    best: float = 0.0


def crop_quality(boxes: Boxes, *, area: Area) -> npt.NDArray[np.float32]:
    """Estimate the quality of each crop of a frame; takes about 0.1 ms.

    Args:
        boxes: N×4 float32, x1 y1 x2 y2 in pixels: all boxes of the frame, since they hide one another.
        area: Where in the frame there is a picture.

    Returns:
        N float32, 0 to 1.
    """
    sizes = boxes[:, 2:] - boxes[:, :2]
    quality = height_term(sizes) * aspect_term(sizes) * edge_term(boxes, area) * visible_term(boxes)
    return np.asarray(quality, np.float32)


def height_term(sizes: Boxes) -> Terms:
    """Return the mAP kept by crops of these widths and heights (N×2, pixels), by their height."""
    return np.interp(sizes[:, 1], *HEIGHT)


def aspect_term(sizes: Boxes) -> Terms:
    """Return the mAP kept by crops of these widths and heights (N×2, pixels), by their aspect ratio."""
    return np.interp(sizes[:, 0] / np.maximum(sizes[:, 1], 1e-6), *ASPECT)


def edge_term(boxes: Boxes, area: Area) -> Terms:
    """Return the mAP kept by boxes (N×4, pixels), by whether they lie at the edge of the picture."""
    return np.where(touch_edge(boxes, area), AT_EDGE, 1.0)


def visible_term(boxes: Boxes) -> Terms:
    """Return the mAP kept by boxes (N×4, pixels), by the part that no other box covers.

    Of two boxes the one that reaches lower in the picture is nearer to the camera, hence in front.
    """
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=2)
    in_front = boxes[None, :, 3] > boxes[:, None, 3]
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    covered = (overlap * in_front).max(axis=1, initial=0) / area
    kept: Terms = np.interp(1 - covered, *VISIBLE)
    return kept
