"""Nearest neighbours of many features by exact comparison, in blocks that fit into memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.types import Features

#: Rows compared at a time: 512 rows against 100,000 take 205 MB of float32.
BLOCK = 512
#: Columns whose maximum is taken before the largest entries are looked for.
GROUP = 32


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The nearest others of each of N rows, best first.

    Attributes:
        rows: N×k row numbers, int32; -1 where there are fewer.
        cosines: N×k cosines, float32; -inf where there are fewer.
    """

    rows: npt.NDArray[np.int32]
    cosines: npt.NDArray[np.float32]


def nearest(features: Features, count: int, *, among: Features | None = None, above: float = -np.inf) -> Neighbours:
    """Find the rows of largest cosine with each row, by comparing all of them.

    Equal cosines keep the order of the rows.

    Args:
        features: N×D float32, unit length.
        count: Largest number of neighbours of a row.
        among: M×D to search in; None: the rows themselves, of which each leaves itself out.
        above: Only neighbours of at least this cosine.
    """
    rest = features if among is None else among
    room = min(count, len(rest) - (among is None))
    rows = np.full((len(features), max(room, 0)), -1, np.int32)
    cosines = np.full(rows.shape, -np.inf, np.float32)
    if room < 1:
        return Neighbours(rows=rows, cosines=cosines)
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK] @ rest.T
        if among is None:
            np.fill_diagonal(block[:, start:], -np.inf)
        found, values = _largest(block, room)
        values[values < above] = -np.inf
        rows[start : start + len(block)] = np.where(np.isfinite(values), found, -1)
        cosines[start : start + len(block)] = values
    return Neighbours(rows=rows, cosines=cosines)


def _largest(block: npt.NDArray[np.float32], count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Return columns and values of the largest entries of each row, largest first."""
    columns = _among(block, count)
    values = np.take_along_axis(block, columns, axis=1)
    if count < columns.shape[1]:
        chosen = np.argpartition(values, -count, axis=1)[:, -count:]
        columns = np.sort(np.take_along_axis(columns, chosen, axis=1), axis=1)
        values = np.take_along_axis(block, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def _among(block: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """Return columns of each row among which its largest entries are.

    Of groups of 32 columns, those with the highest maxima hold them all; a maximum costs much less than a partition.
    """
    rows, width = len(block), block.shape[1] // GROUP
    if width < 4 * count:
        return np.broadcast_to(np.arange(block.shape[1]), block.shape)
    highest = block[:, : GROUP * width].reshape(rows, GROUP, width).max(axis=1)
    groups = np.argpartition(highest, -count, axis=1)[:, -count:]
    columns = (groups[:, None] + width * np.arange(GROUP)[:, None]).reshape(rows, -1)
    rest = np.broadcast_to(np.arange(GROUP * width, block.shape[1]), (rows, block.shape[1] - GROUP * width))
    return np.concatenate([columns, rest], axis=1)


def pairs_of(neighbours: Neighbours) -> npt.NDArray[np.int32]:
    """Return each pair of neighbours once, P×2 with the smaller row first, in ascending order."""
    first = np.repeat(np.arange(len(neighbours.rows), dtype=np.int32), neighbours.rows.shape[1])
    second = neighbours.rows.ravel()
    kept = second >= 0
    pairs = np.stack([first[kept], second[kept]], axis=1)
    pairs.sort(axis=1)
    return np.unique(pairs, axis=0)
