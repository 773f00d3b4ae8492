"""The one table of columns: how every store keeps each field of an entry.

A field that is added to :class:`~reid_edge.upstream.observation.TrackletReport` gets one line in :data:`FIELDS`; the
schema, the insert and the row mapping of SQLite, PostgreSQL and Milvus follow from it.  Galleries that exist already
need a migration in the store, and a higher ``SCHEMA_VERSION`` there.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
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
        columns: Another name of the column, or a column for each value of a field that is a tuple.
    """

    name: str
    kind: Kind
    columns: tuple[str, ...] = ()

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of its columns, one unless the field is a tuple."""
        return self.columns or (self.name,)


FIELDS = (
    StoredField("camera", "name"),
    StoredField("incarnation", "name", columns=("epoch",)),
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
_PYTHON: dict[Kind, Callable[[Any], Any]] = {"name": str, "integer": int, "real": float, "flag": bool, "model": str}
_TWO, _SIGNED = struct.Struct(">II"), struct.Struct(">q")
#: Name and kind of each column, in the order of the tables; stores add the feature and the checksum at the end.
COLUMNS: dict[str, Kind] = {column: field.kind for field in FIELDS for column in field.column_names}


def row_of(entry: Entry, model: Any = None) -> dict[str, Any]:
    """Return the value of each column; ``model`` is the store's number of the entry's model, if it has such numbers."""
    row: dict[str, Any] = {}
    for field in FIELDS:
        value = model if field.kind == "model" else getattr(entry, field.name)
        row.update(zip(field.column_names, value if isinstance(value, tuple) else (value,), strict=True))
    return row


def entry_of(row: Mapping[str, Any], model_hash: str) -> Entry:
    """Return the entry of a row; columns that are not in the table are ignored."""
    return Entry(**{field.name: _value(field, row, model_hash) for field in FIELDS})


def checksum_of(entry: Entry, feature: bytes) -> int:
    """Return the checksum that a row is stored with: CRC-32 of the feature, then CRC-32 of all fields, signed.

    Args:
        entry: The fields.
        feature: The feature's bytes, as they are stored.
    """
    texts = "\x1f".join(repr(value) for field in FIELDS for value in _canonical(field, getattr(entry, field.name)))
    checksum: int = _SIGNED.unpack(_TWO.pack(zlib.crc32(feature), zlib.crc32(texts.encode())))[0]
    return checksum


def intact_entry(row: Mapping[str, Any], model_hash: str, feature: Any, checksum: Any) -> Entry | None:
    """Return the entry of a row; None if it is not what was stored.

    Args:
        row: Value of each column.
        model_hash: Hash of its model.
        feature: The feature's bytes, as they are stored.
        checksum: The checksum that is stored with the row.
    """
    try:
        entry = entry_of(row, model_hash)
        return entry if checksum_of(entry, feature) == checksum else None
    except (TypeError, ValueError, OverflowError, KeyError, AttributeError):  # not even the types are right
        return None


def feature_checksum(checksum: int) -> int:
    """Return the part of a row's checksum that covers the feature alone."""
    return (checksum >> 32) & 0xFFFF_FFFF


def _canonical(field: StoredField, value: Any) -> tuple[Any, ...]:
    """Return a field's values as every store gives them back."""
    values = value if isinstance(value, tuple) else (value,)
    return tuple(map(_PYTHON[field.kind], values))


def _value(field: StoredField, row: Mapping[str, Any], model_hash: str) -> Any:
    if field.kind == "model":
        return model_hash
    values = tuple(row[column] for column in field.column_names)
    if len(values) > 1:
        return values
    return bool(values[0]) if field.kind == "flag" else values[0]  # SQLite has no booleans
