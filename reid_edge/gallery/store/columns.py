"""The one table of columns: how every store keeps each field of an entry.

A field that is added to :class:`~reid_edge.upstream.observation.Sighting` gets one line in :data:`FIELDS`; the schema,
the insert and the row mapping of SQLite, PostgreSQL and Milvus follow from it.  Galleries that exist already need a
migration in the store, and a higher ``SCHEMA_VERSION`` there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reid_edge.gallery.entries import Entry

#: ``name`` is a text of at most 64 characters, ``model`` the number that an SQL store gives a model hash (Milvus has a
#: collection for each model instead).
Kind = Literal["name", "integer", "real", "flag", "model"]


@dataclass(frozen=True)
class StoredField:
    """A field of an entry.

    Attributes:
        name: Name of the field, and of its column unless ``columns`` are given.
        kind: Type of its values.
        columns: Columns of a field that is a tuple, one for each of its values.
    """

    name: str
    kind: Kind
    columns: tuple[str, ...] = ()


FIELDS = (
    StoredField("camera", "name"),
    StoredField("epoch", "name"),
    StoredField("seq", "integer"),
    StoredField("model_hash", "model", columns=("model",)),
    StoredField("track", "integer"),
    StoredField("captured_us", "integer"),
    StoredField("first_us", "integer"),
    StoredField("last_us", "integer"),
    StoredField("box", "real", columns=("x1", "y1", "x2", "y2")),
    StoredField("confidence", "real"),
    StoredField("quality", "real"),
    StoredField("crops", "integer"),
    StoredField("final", "flag"),
)
#: Name and kind of each column, in the order of the tables; stores add the feature at the end.
COLUMNS: dict[str, Kind] = {column: field.kind for field in FIELDS for column in field.columns or (field.name,)}


def row_of(entry: Entry, model: Any = None) -> dict[str, Any]:
    """Return the value of each column; ``model`` is the store's number of the entry's model, if it has such numbers."""
    row: dict[str, Any] = {}
    for field in FIELDS:
        if field.kind == "model":
            row[field.columns[0]] = model
        elif field.columns:
            row.update(zip(field.columns, getattr(entry, field.name), strict=True))
        else:
            row[field.name] = getattr(entry, field.name)
    return row


def entry_of(row: Mapping[str, Any], model_hash: str) -> Entry:
    """Return the entry of a row; columns that are not in the table are ignored."""
    return Entry(**{field.name: _value(field, row, model_hash) for field in FIELDS})


def _value(field: StoredField, row: Mapping[str, Any], model_hash: str) -> Any:
    if field.kind == "model":
        return model_hash
    if field.columns:
        return tuple(row[column] for column in field.columns)
    return bool(row[field.name]) if field.kind == "flag" else row[field.name]  # SQLite has no booleans
