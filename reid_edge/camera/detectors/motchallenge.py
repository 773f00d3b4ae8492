"""Read boxes from a file: MOTChallenge det.txt or gt.txt, or CSV with a header."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.frames import Detections, Frame
from reid_edge.errors import DetectorError

Count = Annotated[int, msgspec.Meta(ge=1)]

#: Columns of a file without a header, and their possible names in a header.
_COLUMNS = {"frame": 0, "left": 2, "top": 3, "width": 4, "height": 5, "score": 6}
_NAMES = {
    "frame": ("frame", "frame_id", "frame_index", "frameid"),
    "left": ("x", "left", "bb_left", "x1", "xmin"),
    "top": ("y", "top", "bb_top", "y1", "ymin"),
    "width": ("w", "width", "bb_width"),
    "height": ("h", "height", "bb_height"),
    "score": ("conf", "score", "confidence"),
}
#: Largest frame number; every whole number up to it is a float.
_LAST_FRAME = 1 << 53
#: MOTChallenge's mark for "not given".
_NO_SCORE = -1.0


class MotChallengeSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="motchallenge"
):
    """Boxes from a file: MOTChallenge ``det.txt`` or ``gt.txt``, or CSV with a header.

    Attributes:
        path: The file.
        first_frame: Number of the video's first frame in the file.
        period: Number of frames of a looped video; None for one that does not loop.
        score_range: Lowest and highest score in the file, mapped to 0 and 1.
    """

    path: str
    first_frame: Annotated[int, msgspec.Meta(ge=0)] = 1
    period: Count | None = None
    score_range: tuple[float, float] = (0.0, 1.0)


class MotChallengeDetector:
    """Looks boxes up by the number of the frame.

    Args:
        settings: Which file, and how its frames and scores are numbered.

    Raises:
        DetectorError: The file does not exist, or a line is malformed.
    """

    def __init__(self, settings: MotChallengeSettings) -> None:
        self._settings = settings
        path = Path(settings.path).expanduser()
        low, high = settings.score_range
        if not low < high:
            raise DetectorError(f"score_range: expected the lowest and then the highest score, got {low:g}, {high:g}.")
        table = _read(path)
        table = table[np.argsort(table[:, 0], kind="stable")]
        self._frames = table[:, 0].astype(np.int64) - settings.first_frame
        self._boxes = np.concatenate([table[:, 1:3], table[:, 1:3] + table[:, 3:5]], 1).astype(np.float32)
        self._scores = _mapped(table[:, 5], low, high, path)
        self.description = f"{path.name}: {len(table)} boxes in {len(np.unique(self._frames))} frames"

    def __call__(self, frame: Frame) -> Detections:
        """See :class:`~reid_edge.camera.detectors.Detector`."""
        number = frame.index if self._settings.period is None else frame.index % self._settings.period
        first, last = np.searchsorted(self._frames, (number, number + 1))
        return Detections(self._boxes[first:last].copy(), self._scores[first:last].copy())

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _read(path: Path) -> npt.NDArray[np.float64]:
    """Read rows of frame, left, top, width, height, score."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(csv.reader(file), path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DetectorError(
            f"detections {path}: expected a readable text file of values separated by commas: {error}."
        ) from error
    if not rows:
        raise DetectorError(f"detections {path}: the file is empty. Expected frame,id,left,top,width,height,score.")
    return np.array(rows, np.float64)


def _rows(lines: Iterable[Sequence[str]], path: Path) -> Iterator[tuple[float, ...]]:
    columns: dict[str, int] | None = None
    for number, cells in enumerate(lines, 1):
        if not any(cell.strip() for cell in cells):
            continue
        if columns is None:
            columns = _header(cells, path)
            if columns is not _COLUMNS:
                continue
        yield _row(cells, columns, f"{path}, line {number}")


def _header(cells: Sequence[str], path: Path) -> dict[str, int]:
    """Find the index of each column; MOTChallenge's order if the line holds numbers already."""
    if _is_number(cells[0]):
        return _COLUMNS
    names = [cell.strip().lower() for cell in cells]
    found = {key: names.index(name) for key, known in _NAMES.items() for name in known if name in names}
    if missing := _NAMES.keys() - found.keys() - {"score"}:
        raise DetectorError(
            f"detections {path}: the header {','.join(names)[:200]!r} has no {', '.join(sorted(missing))}. "
            "Expected frame,x,y,w,h,score, or MOTChallenge's numbers without a header."
        )
    return found


def _row(cells: Sequence[str], columns: dict[str, int], where: str) -> tuple[float, ...]:
    texts = [cells[index] if (index := columns.get(key, len(cells))) < len(cells) else "" for key in _COLUMNS]
    try:
        *box, score = [float(text) for text in texts[:-1]] + [float(texts[-1]) if texts[-1].strip() else _NO_SCORE]
    except ValueError:
        raise DetectorError(
            f"detections {where}: expected numbers frame,id,left,top,width,height,score; got {','.join(cells)[:200]!r}."
        ) from None
    if not all(map(math.isfinite, (*box, score))) or box[0] != int(box[0]) or abs(box[0]) > _LAST_FRAME:
        raise DetectorError(
            f"detections {where}: expected finite numbers and a whole frame number, got {box}, {score}."
        )
    return (*box, score)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _mapped(scores: npt.NDArray[np.float64], low: float, high: float, path: Path) -> npt.NDArray[np.float32]:
    """Map scores to 0 to 1; a missing one is 1."""
    absent = (scores == _NO_SCORE) & ((low > _NO_SCORE) | bool((scores == _NO_SCORE).all()))
    outside = ~absent & ((scores < low) | (scores > high))
    if outside.any():
        raise DetectorError(
            f"detections {path}: {np.count_nonzero(outside)} scores lie outside {low:g} to {high:g}, "
            f"e.g. {scores[outside][0]:g}. Set score_range = [{scores.min():g}, {scores.max():g}]."
        )
    return np.where(absent, 1.0, (scores - low) / (high - low)).astype(np.float32)
