"""The collections of a gallery in Milvus, and the migration from those of earlier releases."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import numpy as np

from reid_edge.gallery.entries import Record
from reid_edge.gallery.store.chain import AuditEntry, chained_all
from reid_edge.gallery.store.columns import COLUMNS, Kind, checksum_of, entry_of, row_of
from reid_edge.gallery.store.erasures import Erasure, erasure_fields, json_selection, old_erasure_id
from reid_edge.gallery.store.milvus_audit import line_row
from reid_edge.gallery.store.milvus_client import ROWS, Client, DataType, Row
from reid_edge.gallery.store.milvus_meta import Meta, entry_row

log = logging.getLogger(__name__)

SCHEMA_VERSION = 2
VERSION_SETTING = "schema_version"
#: Form of a feature whose checksum is stored.
STORED = np.dtype("<f4")

_TYPES: dict[Kind, tuple[Any, int]] = {
    "name": (DataType.VARCHAR, 64),
    "integer": (DataType.INT64, 0),
    "real": (DataType.DOUBLE, 0),
    "flag": (DataType.BOOL, 0),
}
_FIELDS = {
    "id": (DataType.VARCHAR, 160),
    **{name: _TYPES[kind] for name, kind in COLUMNS.items() if kind != "model"},
    "checksum": (DataType.INT64, 0),
}
#: Fields of an observation, all but the feature.
NAMES = list(_FIELDS)


def collection_fields(dim: int) -> dict[str, tuple[Any, int]]:
    """Return the fields of a collection of features of ``dim`` numbers."""
    return {**_FIELDS, "feature": (DataType.FLOAT_VECTOR, dim)}


def collection_of(model_hash: str) -> str:
    """Return the name of a model's collection."""
    return f"reid_edge_2_{model_hash}"


def row_with_checksum(record: Record) -> Row:
    """Return a record as a row of its model's collection."""
    columns = {name: value for name, value in row_of(record.entry).items() if name in _FIELDS}
    checksum = checksum_of(record.entry, record.feature.astype(STORED).tobytes())
    return {"id": record.entry.id, **columns, "checksum": checksum, "feature": record.feature}


def migrate(client: Client, meta: Meta) -> None:
    """Bring a gallery of format 1 to the present one; an interrupted migration is completed by the next.

    What is there stays until all of it has been copied and the format is written.
    """
    log.warning("%s is a gallery of an earlier release: it is migrated to format %d.", client.name, SCHEMA_VERSION)
    models = [body for body in meta.bodies("model").values() if body["dim"] is not None]
    for body in models:
        _copy_observations(client, body["model_hash"], body["dim"])
    meta.put_rows([line_row(line) for line in _chained(meta.bodies("audit"))])
    old = {name: body for name, body in meta.bodies("erasure").items() if "selection" not in body}
    meta.put_rows([_named(body) for body in old.values()])
    for name in old:
        meta.remove("erasure", name)
    meta.put("setting", VERSION_SETTING, SCHEMA_VERSION)
    meta.remove_kind("audit")
    for body in models:
        client.drop(f"reid_edge_{body['model_hash']}")


def _copy_observations(client: Client, model: str, dim: int) -> None:
    client.create(collection_of(model), collection_fields(dim))
    if not client.has(f"reid_edge_{model}"):
        return  # an interrupted migration had come so far
    names = [name for name in NAMES if name != "checksum"]
    some: list[Row] = []
    for row in client.rows(f"reid_edge_{model}", "seq >= 0", [*names, "feature"]):
        record = Record(entry_of(row, model), np.asarray(row["feature"], np.float32))
        some.append(row_with_checksum(record))
        if len(some) == ROWS:
            client.put(collection_of(model), some)
            some = []
    if some:
        client.put(collection_of(model), some)


def _chained(old: dict[str, Any]) -> list[AuditEntry]:
    lines = [AuditEntry(number=number, **body) for number, (_, body) in enumerate(sorted(old.items()), 1)]
    return chained_all(lines, at_us=time.time_ns() // 1000)


def _named(selection: dict[str, Any]) -> Row:
    text = json.dumps(selection)
    erasure = Erasure(id=old_erasure_id(text), made_us=0, boot="", selection=json_selection(text))
    return entry_row("erasure", erasure.id, erasure_fields(erasure), erasure.until_us)
