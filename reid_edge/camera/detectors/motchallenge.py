"""Take boxes from a file: MOTChallenge det.txt or gt.txt, or CSV with a header."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.detectors.box_file import NO_SCORE, Corners, read_box_file
from reid_edge.camera.frames import Boxes, Detections, Frame
from reid_edge.errors import DetectorError
from reid_edge.wording import counted

log = logging.getLogger(__name__)

Count = Annotated[int, msgspec.Meta(ge=1)]

#: Boxes whose edges all lie below this are fractions of the frame: none would have two pixels.
_MOST_FRACTION = 1.5
#: Part of the frame by which boxes may lie outside: people are also annotated where the frame cuts them off.
_MARGIN = 0.05
#: Highest scores of the usual ranges.
_USUAL_HIGHEST = (100, 255, 1000)


class MotChallengeSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="motchallenge"
):
    """Boxes from a file: MOTChallenge ``det.txt`` or ``gt.txt``, or CSV with a header.

    Attributes:
        path: The file.
        first_frame: Number of the video's first frame in the file; None: 0 if the file has a frame 0, else 1.
        period: Number of frames of a looped video; None for one that does not loop.
        score_range: Lowest and highest score in the file, mapped to 0 and 1.
        form: Columns of a box in a file without a header: ``xywh`` (left, top, width, height) or ``xyxy`` (two
            corners); None: ``xywh``, and what looks like corners is refused.
        normalised: Boxes are fractions of the frame; else pixels.
    """

    path: str
    first_frame: Annotated[int, msgspec.Meta(ge=0)] | None = None
    period: Count | None = None
    score_range: tuple[float, float] = (0.0, 1.0)
    form: Corners | None = None
    normalised: bool = False


class MotChallengeDetector:
    """Looks boxes up by the number of the frame.

    Args:
        settings: Which file, and how its frames, boxes and scores are to be read.

    Raises:
        DetectorError: The file does not exist, a line is malformed, or frames, boxes or scores are not as the settings
            say.
    """

    def __init__(self, settings: MotChallengeSettings) -> None:
        self._settings = settings
        self._path = path = Path(settings.path).expanduser()
        low, high = settings.score_range
        if not low < high:
            raise DetectorError(f"score_range: expected the lowest and then the highest score, got {low:g}, {high:g}.")
        file = read_box_file(path, settings.form)
        first = _first_frame(file.frames, settings.first_frame, path)
        self._frames = file.frames - first
        self._boxes = _checked_unit(file.boxes, settings, path).astype(np.float32)
        self._scores = _mapped(file.scores, low, high, path)
        self._may_be_corners = settings.form is None and file.looks_like_corners
        boxes, frames = counted(len(self._frames), "box", "boxes"), counted(len(np.unique(self._frames)), "frame")
        self.description = f"{path.name}: {boxes} in {frames}, counted from {first}"

    def __call__(self, frame: Frame) -> Detections:
        """See :class:`~reid_edge.camera.detectors.Detector`.

        Raises:
            DetectorError: The boxes lie outside the frame, as corners do that are read as widths and heights.
        """
        number = frame.index if self._settings.period is None else frame.index % self._settings.period
        first, last = np.searchsorted(self._frames, (number, number + 1))
        boxes, scores = self._boxes[first:last].copy(), self._scores[first:last].copy()
        size_wh = frame.image.shape[1], frame.image.shape[0]
        if self._settings.normalised:
            boxes *= np.array([*size_wh, *size_wh], np.float32)
        if self._may_be_corners:
            self._refuse_corners(boxes, size_wh)
        return Detections(boxes, scores)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _refuse_corners(self, boxes: Boxes, size_wh: tuple[int, int]) -> None:
        outside = (boxes[:, 2:] > np.array(size_wh) * (1 + _MARGIN)).any(1)
        if outside.any():
            left, top, right, bottom = boxes[outside][0].tolist()
            raise DetectorError(
                f"detections {self._path}: {left:g},{top:g},{right - left:g},{bottom - top:g} as left, top, width, "
                f"height lies outside the {size_wh[0]}x{size_wh[1]} frame. If each box is two corners x1,y1,x2,y2, "
                "set form = 'xyxy' (--set detector.form=xyxy); if not, set form = 'xywh'."
            )


def _first_frame(frames: npt.NDArray[np.int64], given: int | None, path: Path) -> int:
    """Return the number of the first frame; a file that has a frame 0 does not count from 1."""
    lowest = int(frames[0])
    if given is None and lowest == 0:
        log.info("%s has a frame 0, so its frames are counted from 0 (detector.first_frame = 0)", path)
    first = given if given is not None else min(1, max(0, lowest))
    if lowest < first:
        advice = "set first_frame = 0 (--set detector.first_frame=0)" if lowest == 0 else "expected 0 or more"
        raise DetectorError(
            f"detections {path}: the file has a frame {lowest}, and first_frame says that they are counted from "
            f"{first}: {advice}."
        )
    return first


def _checked_unit(
    boxes: npt.NDArray[np.float64], settings: MotChallengeSettings, path: Path
) -> npt.NDArray[np.float64]:
    """Return the boxes if they can be of the unit that the settings name."""
    are_fractions = bool((np.abs(boxes) <= _MOST_FRACTION).all())
    if are_fractions == settings.normalised:
        return boxes
    example = ",".join(f"{value:g}" for value in boxes[np.abs(boxes).max(1).argmax()])
    if settings.normalised:
        raise DetectorError(
            f"detections {path}: normalised = true says that boxes are fractions of the frame; got the corners "
            f"{example}. Leave normalised out for pixels."
        )
    raise DetectorError(
        f"detections {path}: all boxes lie within one pixel, e.g. the corners {example}. If they are fractions of the "
        "frame, set normalised = true (--set detector.normalised=true)."
    )


def _mapped(scores: npt.NDArray[np.float64], low: float, high: float, path: Path) -> npt.NDArray[np.float32]:
    """Map scores to 0 to 1; a missing one is 1."""
    absent = (scores == NO_SCORE) & ((low > NO_SCORE) | bool((scores == NO_SCORE).all()))
    outside = ~absent & ((scores < low) | (scores > high))
    if outside.any():
        lowest, highest = _advised_range(scores[~absent])
        raise DetectorError(
            f"detections {path}: {counted(int(np.count_nonzero(outside)), 'score')} outside {low:g} to {high:g}, "
            f"e.g. {scores[outside][0]:g}. Set score_range = [{lowest:g}, {highest:g}] "
            f"(--set detector.score_range=[{lowest:g},{highest:g}]), or the range that your detector documents; "
            "filter.confidence then is a part of it."
        )
    return np.where(absent, 1.0, (scores - low) / (high - low)).astype(np.float32)


def _advised_range(scores: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the range that these scores were probably given in: a usual one that they reach the upper half of.

    The lowest score of a file must not become 0, which no filter lets pass, unless its range is unknown.
    """
    lowest, highest = float(scores.min()), float(scores.max())
    if lowest < 0:
        return math.floor(lowest), max(1, math.ceil(highest))
    usual = [most for most in _USUAL_HIGHEST if most / 2 < highest <= most]
    return 0, usual[0] if usual else math.ceil(highest)
