"""Find blobs of a person's shape in a mask of moving pixels, and cut groups between their heads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.camera.frames import Detections
from reid_edge.types import Image

Part = npt.NDArray[np.bool_]
Span = tuple[int, int, int, int]

#: A blob that is wider than this part of its height may be a group.
_GROUP_WIDTH = 0.5
#: Parts of a group's height: by how much its outline dips between two heads, and how high a head reaches at least.
_DIP, _HEAD = 0.1, 0.6
#: Pieces of one person: height over width of the whole, largest gap as a part of its height, and least part of the
#: narrower piece's width that the other piece covers.
_PIECES_ASPECT, _PIECES_GAP, _PIECES_SHARED = (1.4, 4.5), 0.1, 0.75
#: Number of blobs that are examined in a frame, the largest first.
_MAX_BLOBS = 100
#: Height over width, and moving part of the box, at which the likelihood is that of ``_LIKELIHOOD``.
_ASPECT = (1.1, 1.3, 1.9, 3.7, 5.0, 6.0)
_FILL = (0.2, 0.28, 0.38, 0.6, 0.72, 0.9)
_LIKELIHOOD = (0.0, 0.5, 1.0, 1.0, 0.5, 0.0)
#: Part of the time that a cell of the box belongs to a walking person, percent: the mean outline of people in five
#: videos, made symmetric; and its correlation with a blob's outline at which the likelihood is that beside it.
_OUTLINE = (
    (14, 29, 41, 41, 29, 14),
    (17, 40, 56, 56, 40, 17),
    (23, 53, 66, 66, 53, 23),
    (35, 59, 67, 67, 59, 35),
    (39, 62, 70, 70, 62, 39),
    (37, 64, 73, 73, 64, 37),
    (34, 62, 76, 76, 62, 34),
    (26, 56, 75, 75, 56, 26),
    (23, 53, 71, 71, 53, 23),
    (23, 49, 60, 60, 49, 23),
    (26, 41, 46, 46, 41, 26),
    (22, 29, 33, 33, 29, 22),
)
_CORRELATION, _ALIKE = (0.3, 0.6), (0.3, 1.0)
#: Nine in ten boxes of usual shape are people (docs/detectors.md).
_BEST_SCORE = 0.9
_LEAST_SCORE = 0.1


def find_people(moving: Image, min_height: float, max_height: float) -> Detections:
    """Find boxes of the shape of a person.

    Args:
        moving: H×W uint8, 0 or 255.
        min_height: Height of the smallest person, pixels.
        max_height: Height of the largest, likewise.

    Returns:
        Boxes in pixels of ``moving``, with scores by how usual their shape is, 0.1 to 0.9.
    """
    rows = [
        (*span, score)
        for span, part in _blobs(moving, min_height)
        if min_height <= span[3] - span[1] <= max_height and (score := _likeness(part)) >= _LEAST_SCORE
    ]
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Detections(table[:, :4].copy(), table[:, 4].copy())


def _blobs(moving: Image, min_height: float) -> Iterator[tuple[Span, Part]]:
    """Yield box and pixels of each blob, or of each part of a group."""
    count, labels, table, _centres = cv2.connectedComponentsWithStats(moving, connectivity=8)
    if count == 1:
        return
    large = np.argsort(-table[1:, cv2.CC_STAT_AREA], kind="stable")[:_MAX_BLOBS] + 1
    spans = [(int(blob), _span(table[blob])) for blob in large if table[blob, cv2.CC_STAT_HEIGHT] >= min_height / 6]
    for blobs, (x, y, right, bottom) in joined(spans):
        if bottom - y < min_height:
            continue
        labelled = labels[y:bottom, x:right]
        part = labelled == blobs[0] if len(blobs) == 1 else np.isin(labelled, blobs)
        for first, last in pairwise([0, *_cuts(part), right - x]):
            yield from _tight(part[:, first:last], x + first, y)


def _span(row: npt.NDArray[np.int32]) -> Span:
    x, y, width, height, _area = row.tolist()
    return x, y, x + width, y + height


def joined(spans: list[tuple[int, Span]]) -> list[tuple[list[int], Span]]:
    """Join blobs that are pieces of one person, such as head, body and legs with small gaps between them."""
    pieces = [([blob], span) for blob, span in spans]
    for _round in range(len(pieces)):
        pair = next(
            (pair for pair in combinations(range(len(pieces)), 2) if _belong(*(pieces[i][1] for i in pair))), None
        )
        if pair is None:
            break
        second, first = pieces.pop(pair[1]), pieces.pop(pair[0])
        pieces.append((first[0] + second[0], _union(first[1], second[1])))
    return pieces


def _belong(first: Span, second: Span) -> bool:
    left, top, right, bottom = _union(first, second)
    height = bottom - top
    gap = max(first[1], second[1]) - min(first[3], second[3])
    shared = min(first[2], second[2]) - max(first[0], second[0])
    narrower = min(first[2] - first[0], second[2] - second[0])
    slim = _PIECES_ASPECT[0] * (right - left) <= height <= _PIECES_ASPECT[1] * (right - left)
    return slim and gap <= _PIECES_GAP * height and shared >= _PIECES_SHARED * narrower


def _union(first: Span, second: Span) -> Span:
    return min(first[0], second[0]), min(first[1], second[1]), max(first[2], second[2]), max(first[3], second[3])


def _tight(part: Part, x: int, y: int) -> Iterator[tuple[Span, Part]]:
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    if not len(rows):
        return
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    yield (x + left, y + top, x + right, y + bottom), part[top:bottom, left:right]


def _cuts(part: Part) -> list[int]:
    """Find the columns at which a group is cut into people."""
    height, width = part.shape
    if width <= _GROUP_WIDTH * height:
        return []
    return dips(outline(part), _DIP * height, _HEAD * height)


def outline(part: Part) -> npt.NDArray[np.float64]:
    """Compute each column's highest pixel, as a height above the bottom, smoothed over a twelfth of the height."""
    height = len(part)
    top = np.where(part.any(0), height - part.argmax(0), 0).astype(np.float64)
    window = max(1, round(height / 12)) | 1
    return np.convolve(np.pad(top, window // 2, mode="edge"), np.full(window, 1 / window), "valid")


def dips(profile: npt.NDArray[np.float64], depth: float, head: float) -> list[int]:
    """Find the lowest columns between peaks that are at least ``head`` high and ``depth`` above them."""
    cuts = []
    peak, low, where = -np.inf, np.inf, -1
    for column, value in enumerate(profile.tolist()):
        if value < low and peak >= head and value < peak - depth:
            low, where = value, column
        elif where >= 0 and value >= head and value > low + depth:
            cuts.append(where)
            peak, low, where = value, np.inf, -1
        elif where < 0:
            peak = max(peak, value)
    return cuts


def _likeness(part: Part) -> float:
    """Rate how much a blob has the shape of a person, 0 to 0.9."""
    height, width = part.shape
    fill = np.count_nonzero(part) / part.size
    aspect = np.interp(height / width, _ASPECT, _LIKELIHOOD)
    likeness = _BEST_SCORE * aspect * np.interp(fill, _FILL, _LIKELIHOOD)
    return float(likeness and likeness * np.interp(correlation(part), _CORRELATION, _ALIKE))


def correlation(part: Part) -> float:
    """Correlate a blob's outline with the mean outline of walking people, -1 to 1: a car or an arm has another one."""
    cells = cv2.resize(part.astype(np.float32), _TEMPLATE.shape[::-1], interpolation=cv2.INTER_AREA)
    cells -= cells.mean()
    length = float(np.linalg.norm(cells))
    return float((cells * _TEMPLATE).sum() / length) if length > 0 else 0.0


def _centred(outline: tuple[tuple[int, ...], ...]) -> npt.NDArray[np.float32]:
    cells = np.array(outline, np.float32)
    cells -= cells.mean()
    return np.asarray(cells / np.linalg.norm(cells), np.float32)


_TEMPLATE = _centred(_OUTLINE)
