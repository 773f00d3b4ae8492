"""Choose the crops that are worth embedding.

The quality of a crop estimates, from its box and the boxes around it, how much the crop says about a person.  Each term
of it is the ranking quality (mAP) that crops keep when they are degraded in one way, as a fraction of the mAP that they
reach undegraded: people of Market-1501 as queries, features of a network that was not trained on them
(``benchmarks/gating.md``).  The detector's score and the sharpness of a crop are no terms: in the same measurement they
ranked the crops of a track in opposite ways for two networks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.frames import Boxes
from reid_edge.camera.tracking import EndedTrack, TrackedBoxes

Reason = Literal["first", "better", "interval", "every"]
Terms = npt.NDArray[np.float64]
Curve = tuple[tuple[float, ...], tuple[float, ...]]
#: Height of the crop in pixels → mAP kept.
HEIGHT: Curve = ((8, 16, 24, 32, 40, 48, 64), (0.05, 0.34, 0.60, 0.79, 0.90, 0.96, 1.0))
#: Width over height → mAP kept; narrow boxes cut sides off, wide ones legs.
ASPECT: Curve = ((0.15, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 1.0), (0.5, 0.84, 0.92, 0.95, 0.99, 1.0, 0.92, 0.79, 0.47))
#: Fraction that no box in front covers → mAP kept.
VISIBLE: Curve = ((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), (0.05, 0.15, 0.28, 0.51, 0.77, 0.90, 0.95, 1.0))
#: AP kept by boxes at the frame's edge, on video: how much of the person lies beyond it, nobody can say.
AT_EDGE = 0.6
#: A box is at the edge if it comes so near, as a fraction of the frame.
EDGE = 0.005


class CropSelectorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a crop of a track is embedded; the defaults were measured (``benchmarks/gating.md``).

    Attributes:
        mode: ``gated``: as the others say; ``first``: one crop per track; ``every``: all, for comparison.
        interval_s: A live track gets a crop embedded so often.
        better_by: Between two of those, a crop is embedded whose quality is so many times the best so far.
        better_s: At most so often.
        min_quality: What a track's first crop should have…
        patience_s: … but when the track is so old, any will do.
    """

    mode: Literal["gated", "first", "every"] = "gated"
    interval_s: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    better_by: Annotated[float, msgspec.Meta(gt=1)] = 1.3
    better_s: Annotated[float, msgspec.Meta(ge=0)] = 0.2
    min_quality: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.95
    patience_s: Annotated[float, msgspec.Meta(ge=0)] = 0.3


@dataclass(frozen=True, eq=False)
class Selection:
    """Crops to embed: rows of the tracked boxes, ascending, and why each."""

    rows: npt.NDArray[np.intp]
    reasons: tuple[Reason, ...]


class CropSelector:
    """Chooses crops, frame by frame.

    Keeps nothing of a track that has ended.  Not for several threads.

    Args:
        settings: When.
    """

    def __init__(self, settings: CropSelectorSettings | None = None) -> None:
        self._settings = settings or CropSelectorSettings()
        self._tracks: dict[int, _Track] = {}

    def __len__(self) -> int:
        return len(self._tracks)

    def select(self, tracked: TrackedBoxes, quality: npt.NDArray[np.float32], captured_us: int) -> Selection:
        """The crops of a frame that are worth embedding.

        Args:
            tracked: Boxes of the frame, and tracks that have ended.
            quality: Of each box, N, 0 to 1.
            captured_us: When the frame was captured.
        """
        rows, reasons = [], []
        for row, (track, value) in enumerate(zip(tracked.tracks.tolist(), quality.tolist(), strict=True)):
            state = self._tracks.setdefault(track, _Track(captured_us))
            if (reason := self._reason(state, value, captured_us)) is not None:
                state.chosen_us, state.best = captured_us, max(state.best, value)
                rows.append(row)
                reasons.append(reason)
        self.end(tracked.ended)
        return Selection(np.array(rows, np.intp), tuple(reasons))

    def dropped(self, track: int) -> None:
        """A chosen crop of this track was not embedded after all: the next one counts as its first."""
        if (state := self._tracks.get(track)) is not None:
            state.chosen_us, state.best = None, 0.0

    def end(self, ended: Iterable[EndedTrack]) -> None:
        """Forget tracks that ended without another frame; those in tracked boxes are forgotten by ``select``."""
        for track in ended:
            self._tracks.pop(track.track, None)

    def _reason(self, state: _Track, quality: float, now_us: int) -> Reason | None:
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
        return "better" if since_s >= settings.better_s and quality > settings.better_by * state.best else None


@dataclass
class _Track:
    """State of a live track: times, and the quality of its best crop."""

    since_us: int
    chosen_us: int | None = None
    best: float = 0.0


def crop_quality(boxes: Boxes, *, width: int, height: int) -> npt.NDArray[np.float32]:
    """Quality of each crop of a frame, 0 to 1; takes about 0.1 ms.

    Args:
        boxes: N×4 x1 y1 x2 y2 in pixels: all boxes of the frame, since they hide one another.
        width: Of the frame, pixels.
        height: Of the frame, pixels.

    Returns:
        N float32.
    """
    sizes = boxes[:, 2:] - boxes[:, :2]
    quality = height_term(sizes) * aspect_term(sizes) * edge_term(boxes, width, height) * visible_term(boxes)
    return np.asarray(quality, np.float32)


def height_term(sizes: Boxes) -> Terms:
    """What crops of these widths and heights (N×2) keep for being small."""
    return np.interp(sizes[:, 1], *HEIGHT)


def aspect_term(sizes: Boxes) -> Terms:
    """What crops of these widths and heights (N×2) keep for being narrow or wide."""
    return np.interp(sizes[:, 0] / np.maximum(sizes[:, 1], 1e-6), *ASPECT)


def edge_term(boxes: Boxes, width: int, height: int) -> Terms:
    """What boxes keep for lying at the frame's edge."""
    near = np.array([width, height]) * EDGE
    at_edge = (boxes[:, :2] <= near) | (boxes[:, 2:] >= np.array([width, height]) - near)
    return np.where(at_edge.any(axis=1), AT_EDGE, 1.0)


def visible_term(boxes: Boxes) -> Terms:
    """What boxes keep for being covered; in front is the box that reaches lower in the picture, hence is nearer."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=2)
    in_front = boxes[None, :, 3] > boxes[:, None, 3]
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    covered = (overlap * in_front).max(axis=1, initial=0) / area
    kept: Terms = np.interp(1 - covered, *VISIBLE)
    return kept
