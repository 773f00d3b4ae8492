"""Read files of boxes: MOTChallenge's columns, or CSV with a header."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.errors import DetectorError

Corners = Literal["xywh", "xyxy"]

#: Columns of a file without a header.
_COLUMNS = {"frame": 0, "left": 2, "top": 3, "width": 4, "height": 5, "score": 6}
#: What the same columns hold in a file of corners.
_CORNER_COLUMNS = {"frame": 0, "left": 2, "top": 3, "right": 4, "bottom": 5, "score": 6}
_NAMES = {
    "frame": ("frame", "frame_id", "frame_index", "frameid"),
    "left": ("x", "left", "bb_left", "x1", "xmin"),
    "top": ("y", "top", "bb_top", "y1", "ymin"),
    "width": ("w", "width", "bb_width"),
    "height": ("h", "height", "bb_height"),
    "right": ("x2", "xmax", "right"),
    "bottom": ("y2", "ymax", "bottom"),
    "score": ("conf", "score", "confidence"),
}
#: Largest frame number; every whole number up to it is a float.
_LAST_FRAME = 1 << 53
#: MOTChallenge's mark for "not given".
NO_SCORE = -1.0


@dataclass(frozen=True, eq=False)
class BoxFile:
    """Rows of a file of boxes, sorted by frame.

    Attributes:
        frames: N int64, as the file numbers them.
        boxes: N×4 float64, x1 y1 x2 y2, in the file's unit.
        scores: N float64, as the file gives them; ``NO_SCORE`` where it gives none.
        form: The columns that were read: left, top, width, height, or two corners.
        is_named: A header named the columns.
    """

    frames: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    form: Corners
    is_named: bool

    @property
    def looks_like_corners(self) -> bool:
        """True if columns of widths and heights, which no header names, may be corners: each is beyond the other."""
        widths, heights = (self.boxes[:, 2:] - self.boxes[:, :2]).T
        beyond = (widths > self.boxes[:, 0]) & (heights > self.boxes[:, 1])
        return self.form == "xywh" and not self.is_named and bool(beyond.all())


def read_box_file(path: Path, form: Corners | None) -> BoxFile:
    """Read a file of boxes.

    Args:
        path: The file.
        form: Columns of a box in a file without a header; None: left, top, width, height.

    Raises:
        DetectorError: The file cannot be read, is empty, or a line is malformed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            columns, rows = _table(csv.reader(file), path, form)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DetectorError(
            f"detections {path}: expected a readable text file of values separated by commas: {error}."
        ) from error
    if not len(rows):
        raise DetectorError(f"detections {path}: the file is empty. Expected frame,id,left,top,width,height,score.")
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    as_corners = "right" in columns
    corners = rows[:, 3:5] if as_corners else rows[:, 1:3] + rows[:, 3:5]
    return BoxFile(
        frames=rows[:, 0].astype(np.int64),
        boxes=np.concatenate([rows[:, 1:3], corners], 1),
        scores=rows[:, 5],
        form="xyxy" if as_corners else "xywh",
        is_named=columns is not _COLUMNS and columns is not _CORNER_COLUMNS,
    )


def _table(
    lines: Iterable[Sequence[str]], path: Path, form: Corners | None
) -> tuple[dict[str, int], npt.NDArray[np.float64]]:
    """Return the index of each column by its name, and N×6 numbers in the order of ``_COLUMNS``."""
    numbered = [(number, cells) for number, cells in enumerate(lines, 1) if any(cell.strip() for cell in cells)]
    if not numbered:
        return _COLUMNS, np.empty((0, 6))
    if _is_number(numbered[0][1][0]):
        columns = _CORNER_COLUMNS if form == "xyxy" else _COLUMNS
    else:
        columns = _header(numbered.pop(0)[1], path)
    return columns, np.array(list(_rows(numbered, columns, path)), np.float64).reshape(-1, 6)


def _rows(
    numbered: Iterable[tuple[int, Sequence[str]]], columns: dict[str, int], path: Path
) -> Iterator[tuple[float, ...]]:
    for number, cells in numbered:
        yield _row(cells, columns, f"{path}, line {number}")


def _header(cells: Sequence[str], path: Path) -> dict[str, int]:
    """Find the index of each column: of a box its width and height, or its other corner."""
    names = [cell.strip().lower() for cell in cells]
    found = {key: names.index(name) for key, known in _NAMES.items() for name in known if name in names}
    has_corners = {"right", "bottom"} <= found.keys() and not {"width", "height"} <= found.keys()
    extent = ("right", "bottom") if has_corners else ("width", "height")
    wanted = ("frame", "left", "top", *extent)
    if missing := set(wanted) - found.keys():
        raise DetectorError(
            f"detections {path}: the header {','.join(names)[:200]!r} has no {', '.join(sorted(missing))}. "
            "Expected frame,x,y,w,h,score or frame,x1,y1,x2,y2,score, or MOTChallenge's numbers without a header."
        )
    return {key: found[key] for key in (*wanted, "score") if key in found}


def _row(cells: Sequence[str], columns: dict[str, int], where: str) -> tuple[float, ...]:
    numbers = [columns[key] for key in columns if key != "score"]
    texts = [cells[index] if index < len(cells) else "" for index in numbers]
    last = columns.get("score", len(cells))
    score_text = cells[last].strip() if last < len(cells) else ""
    try:
        box, score = [float(text) for text in texts], float(score_text) if score_text else NO_SCORE
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
