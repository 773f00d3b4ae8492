"""Which crops are worth embedding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.tracking import EndedTrack, TrackedBoxes

Reason = Literal["first", "better", "interval", "every"]


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


@dataclass
class _Track:
    """State of a live track: times, and the quality of its best crop."""

    since_us: int
    chosen_us: int | None = None
    best: float = 0.0


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
