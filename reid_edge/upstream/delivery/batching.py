"""Batches that fit: rows and gaps divided so that no batch is larger than the other end takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from reid_edge.upstream.observation import Gap

Row = tuple[int, bytes]

#: Most bytes that a row takes in a batch besides its observation: two lengths, two tags, and its number.
ROW_BYTES = 24
#: Most bytes of a gap: four numbers of up to 10 bytes, their tags, its own tag and length.
GAP_BYTES = 48


@dataclass(frozen=True)
class Part:
    """Rows and gaps of one batch."""

    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]


def divided(rows: Sequence[Row], gaps: Sequence[Gap], most_bytes: int) -> tuple[list[Part], list[Row]]:
    """Divide rows and gaps into batches, in their order, gaps last.

    Args:
        rows: Sequence numbers and encoded observations.
        gaps: Gaps to declare; one that does not fit alone gets a batch of its own all the same.
        most_bytes: Room for rows and gaps in a batch.

    Returns:
        The batches, and the rows that are too large for any.
    """
    fitting = [row for row in rows if _row_bytes(row) <= most_bytes]
    too_large = [row for row in rows if _row_bytes(row) > most_bytes]
    return [*_parts(fitting, gaps, most_bytes)], too_large


def _parts(rows: Iterable[Row], gaps: Iterable[Gap], most_bytes: int) -> Iterator[Part]:
    some_rows: list[Row] = []
    some_gaps: list[Gap] = []
    left = most_bytes
    items: list[Row | Gap] = [*rows, *gaps]
    for item in items:
        size = GAP_BYTES if isinstance(item, Gap) else _row_bytes(item)
        if size > left and (some_rows or some_gaps):
            yield Part(tuple(some_rows), tuple(some_gaps))
            some_rows, some_gaps, left = [], [], most_bytes
        left -= size
        if isinstance(item, Gap):
            some_gaps.append(item)
        else:
            some_rows.append(item)
    if some_rows or some_gaps:
        yield Part(tuple(some_rows), tuple(some_gaps))


def _row_bytes(row: Row) -> int:
    return len(row[1]) + ROW_BYTES
