"""What the SQL stores share: columns, conditions, and rows to entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from reid_edge.gallery.records import Entry, Selection

#: Columns of an entry, in the order of :func:`entry_row` and :func:`row_entry`; ``model`` holds the model's number.
COLUMNS = (
    "camera", "epoch", "seq", "model", "track", "captured_us", "first_us", "last_us",
    "x1", "y1", "x2", "y2", "confidence", "quality", "crops", "final",
)  # fmt: skip


def entry_row(entry: Entry, model: int) -> tuple[Any, ...]:
    """Values of :data:`COLUMNS`."""
    return (
        entry.camera, entry.epoch, entry.seq, model, entry.track, entry.captured_us, entry.first_us, entry.last_us,
        *entry.box, entry.confidence, entry.quality, entry.crops, entry.final,
    )  # fmt: skip


def row_entry(row: Sequence[Any], model_hash: str) -> Entry:
    """The entry of a row of :data:`COLUMNS`; what comes after them is ignored."""
    return Entry(
        camera=row[0],
        epoch=row[1],
        seq=row[2],
        model_hash=model_hash,
        track=row[4],
        captured_us=row[5],
        first_us=row[6],
        last_us=row[7],
        box=(row[8], row[9], row[10], row[11]),
        confidence=row[12],
        quality=row[13],
        crops=row[14],
        final=bool(row[15]),
    )


def condition(selection: Selection, mark: str) -> tuple[str, list[Any]]:
    """A selection as an SQL condition, with its parameters; ``mark`` is the engine's placeholder."""
    parts: list[str] = []
    values: list[Any] = []
    for names, operator in ((selection.cameras, "IN"), (selection.not_cameras, "NOT IN")):
        if names:
            parts.append(f"camera {operator} ({','.join([mark] * len(names))})")
            values += names
    for column, comparison, value in (
        ("epoch", "=", selection.epoch),
        ("track", "=", selection.track),
        ("last_us", ">=", selection.since_us),
        ("first_us", "<=", selection.until_us),
    ):
        if value is not None:
            parts.append(f"{column} {comparison} {mark}")
            values.append(value)
    return " AND ".join(parts) or "TRUE", values


def selection_json(selection: Selection) -> str:
    """A selection as text."""
    return msgspec.json.encode(selection).decode()


def json_selection(text: str) -> Selection:
    """The selection that a text holds."""
    return msgspec.json.decode(text, type=Selection)
