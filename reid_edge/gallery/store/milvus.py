"""A gallery in Milvus: a collection of observations for each model, and one collection for everything else.

Milvus has no transactions.  Where that matters, the order of the steps lets a repeated call complete an earlier one.
"""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from reid_edge.errors import ModelMismatchError, StoreError
from reid_edge.gallery.entries import Match, Record, Selection
from reid_edge.gallery.store.base import (
    DEFAULT_RETENTION_HOURS,
    AcceptedModel,
    Added,
    AuditEntry,
    CameraSummary,
    Erased,
    Span,
    StoredGap,
    json_selection,
    lasting_erasure,
    not_erased,
    selection_json,
    spent_erasures_us,
)
from reid_edge.gallery.store.columns import COLUMNS, Kind, entry_of, row_of
from reid_edge.gallery.store.milvus_client import ROWS, TEXT_BYTES, Client, DataType, Row
from reid_edge.types import Feature

SCHEMA_VERSION = 1
META = "reid_edge_meta"
EVERYTHING = "seq >= 0"
LEFTOVERS = "Milvus keeps the bytes of deleted rows until it has compacted, which was asked for, and in backups"

_META_FIELDS = {
    "name": (DataType.VARCHAR, 320),
    "kind": (DataType.VARCHAR, 16),
    "at_us": (DataType.INT64, 0),
    "body": (DataType.VARCHAR, TEXT_BYTES),
    "unused": (DataType.FLOAT_VECTOR, 2),  # a collection must have a vector
}
_TYPES: dict[Kind, tuple[Any, int]] = {
    "name": (DataType.VARCHAR, 64),
    "integer": (DataType.INT64, 0),
    "real": (DataType.DOUBLE, 0),
    "flag": (DataType.BOOL, 0),
}
_FIELDS = {
    "id": (DataType.VARCHAR, 160),
    **{name: _TYPES[kind] for name, kind in COLUMNS.items() if kind != "model"},
}
_NAMES = list(_FIELDS)


class MilvusStore:
    """See :class:`reid_edge.gallery.store.base.Store`.

    Args:
        uri: ``http://HOST:19530``, ``https://…``, or a Milvus Lite file, which one process can open at a time.
        create: Make an empty gallery if there is none.

    Raises:
        StoreError: There is no gallery, or no connection.
    """

    def __init__(self, uri: str, *, create: bool) -> None:
        self._client = Client(uri)
        self.name = self._client.name
        self._lock = threading.RLock()
        self._ready: frozenset[str] = frozenset()
        try:
            self._open(create=create)
        except BaseException:
            self.close()
            raise

    def add(self, records: Sequence[Record], gaps: Sequence[StoredGap] = ()) -> Added:
        """Store the records and gaps that are not stored yet."""
        with self._session():
            fresh = not_erased(records, (rule for _, rule in self._erasures()))
            by_model: dict[str, dict[str, Record]] = defaultdict(dict)
            for record in fresh:
                by_model[record.entry.model_hash].setdefault(record.entry.id, record)
            stored = sum(self._add(model, ids) for model, ids in sorted(by_model.items()))
            new_gaps = self._add_gaps(gaps) if gaps else 0
        return Added(stored, len(fresh) - stored, len(records) - len(fresh), new_gaps)

    def search(self, feature: Feature, *, model_hash: str, selection: Selection, top: int) -> list[Match]:
        """Return the observations nearest to a feature."""
        with self._session():
            if not self._has(model_hash):
                return []
            rows = self._client.nearest(
                _collection(model_hash), feature.astype(np.float32), condition(selection), _NAMES, top
            )
        return [Match(entry_of(row, model_hash), min(1.0, row["distance"])) for row in rows]

    def find(self, camera: str, incarnation_start: str, seq: int) -> list[Record]:
        """Return the records of a camera and number whose incarnation begins so."""
        where = f"camera == {json.dumps(camera)} and seq == {seq}"
        with self._session():
            found = [
                Record(entry_of(row, model), np.asarray(row["feature"], np.float32))
                for model in self._collections()
                for row in self._client.rows(_collection(model), where, [*_NAMES, "feature"])
                if row["epoch"].startswith(incarnation_start)
            ]
        return sorted(found, key=lambda record: record.entry.key)

    def erase(self, selection: Selection, *, now_us: int) -> Erased:
        """Delete the selected observations and keep them out."""
        with self._session():
            first = [row["first_us"] for _, row in self._selected(selection, ["first_us"])]
            rule = lasting_erasure(selection, max(first, default=None), now_us)
            # From now on nothing new is stored, except what another collector is just writing: ``expire`` deletes that.
            self._put("erasure", uuid.uuid4().hex, json.loads(selection_json(rule)), at_us=rule.until_us or 0)
            keys = self._delete(rule)
            for model in self._collections():
                self._client.compact(_collection(model))
        return Erased(tuple(sorted(keys)), LEFTOVERS)

    def expire(self, before_us: int) -> int:
        """Delete observations and gaps from before a time."""
        with self._session():
            expired = 0
            for model in self._collections():
                expired += self._client.count(_collection(model), f"last_us < {before_us}")
                self._client.delete(_collection(model), f"last_us < {before_us}")
            self._client.delete(META, f'kind == "gap" and at_us < {before_us}')
            self._client.delete(META, f'kind == "erasure" and at_us < {spent_erasures_us(before_us)}')
            for _, rule in list(self._erasures()):
                self._delete(rule)
        return expired

    def models(self) -> list[AcceptedModel]:
        """Return the accepted models."""
        with self._session():
            found = [AcceptedModel(**body) for _, body in self._bodies("model")]
        return sorted(found, key=lambda model: (model.accepted_us, model.model_hash))

    def accept_model(self, model_hash: str, dim: int | None, *, now_us: int, only_first: bool = False) -> bool:
        """Take features of this model from now on."""
        with self._session():
            held = {model.model_hash: model for model in self.models()}
            known = held.get(model_hash)
            if known is None and only_first and held:
                return False
            if known is None or (known.dim is None and dim is not None):
                accepted = AcceptedModel(model_hash, dim, known.accepted_us if known else now_us)
                if dim is not None:
                    self._client.create(_collection(model_hash), {**_FIELDS, "feature": (DataType.FLOAT_VECTOR, dim)})
                self._put("model", model_hash, asdict(accepted))
                known = accepted
            if only_first and self.models()[0].model_hash != model_hash:  # another collector was faster
                self._client.delete(META, f'name == "model/{model_hash}"')
                return False
        return dim in (None, known.dim)

    def retention_hours(self) -> float:
        """Return the number of hours that observations are kept."""
        with self._session():
            settings = dict(self._bodies("setting"))
        return float(settings.get("setting/retention_hours", DEFAULT_RETENTION_HOURS))

    def set_retention_hours(self, hours: float) -> None:
        """Change the number of hours that observations are kept."""
        with self._session():
            self._put("setting", "retention_hours", hours)

    def audit_append(self, entry: AuditEntry) -> None:
        """Add a line to the audit."""
        body = {name: value for name, value in asdict(entry).items() if name != "number"}
        with self._session():
            self._put("audit", f"{entry.at_us:020}-{uuid.uuid4().hex}", body, at_us=entry.at_us)

    def audit_entries(self, last: int) -> list[AuditEntry]:
        """Return the last lines of the audit, oldest first."""
        with self._session():
            bodies = [body for _, body in sorted(self._bodies("audit"), key=lambda named: named[0])]
        return [AuditEntry(number=number, **body) for number, body in enumerate(bodies, 1)][-last:]

    def span(self, selection: Selection) -> Span:
        """Return the number of selected observations and their first and last time; reads the times of each."""
        with self._session():
            times = [(row["first_us"], row["last_us"]) for _, row in self._selected(selection, ["first_us", "last_us"])]
        first, last = zip(*times, strict=True) if times else ((), ())
        return Span(len(times), min(first, default=None), max(last, default=None))

    def cameras(self) -> list[CameraSummary]:
        """Return the contents of each camera; reads the times of every observation."""
        counts: dict[str, int] = defaultdict(int)
        tracklets: dict[str, set[tuple[str, int]]] = defaultdict(set)
        spans: dict[str, list[int]] = defaultdict(list)
        gaps: dict[str, list[int]] = defaultdict(list)
        with self._session():
            for _, row in self._selected(Selection(), ["track", "first_us", "last_us"]):
                camera = row["camera"]
                counts[camera] += 1
                tracklets[camera].add((row["epoch"], row["track"]))
                seen = (*spans[camera], row["first_us"], row["last_us"])
                spans[camera] = [min(seen), max(seen)]
            for _, body in self._bodies("gap"):
                gaps[body["camera"]].append(body["count"])
        return [
            CameraSummary(
                camera=camera,
                observations=counts[camera],
                tracklets=len(tracklets[camera]),
                first_us=min(spans[camera], default=None),
                last_us=max(spans[camera], default=None),
                gaps=len(gaps[camera]),
                lost=sum(gaps[camera]),
            )
            for camera in sorted(counts.keys() | gaps.keys())
        ]

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._client.close()

    @contextlib.contextmanager
    def _session(self) -> Iterator[None]:
        """Serve one caller at a time; after a failure load the collections again: the server may have restarted."""
        with self._lock:
            if self._client.failed:
                self._open(create=False)
                self._client.failed = False
            yield

    def _open(self, *, create: bool) -> None:
        if not self._client.has(META):
            if not create:
                raise StoreError(
                    f"there is no gallery in {self.name}; 'reid-edge gallery serve {self.name}' makes one and fills it."
                )
            self._client.create(META, _META_FIELDS)
            self._put("setting", "schema_version", SCHEMA_VERSION)
        version = dict(self._bodies("setting")).get("setting/schema_version", SCHEMA_VERSION)
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.name} holds a gallery of format {version}; this release reads up to {SCHEMA_VERSION}. "
                "Upgrade reid-edge on this machine: pip install --upgrade reid-edge"
            )
        for model in [AcceptedModel(**body) for _, body in self._bodies("model")]:
            if model.dim is not None:
                self._client.has(_collection(model.model_hash))  # makes it ready to be read

    def _add(self, model: str, records: dict[str, Record]) -> int:
        if not self._has(model):
            raise ModelMismatchError(f"the gallery has not accepted the model {model}.")
        collection = _collection(model)
        there = self._client.existing(collection, "id", list(records))
        new = [record for key, record in records.items() if key not in there]
        # Put, not inserted: were another collector to store the same now, one row would be left.
        self._client.put(collection, [_row(record) for record in new])
        return len(new)

    def _add_gaps(self, gaps: Sequence[StoredGap]) -> int:
        names = {f"gap/{gap.camera}/{gap.incarnation}/{gap.first_seq}-{gap.last_seq}": gap for gap in gaps}
        new = names.keys() - self._client.existing(META, "name", list(names))
        for name in new:
            body = asdict(names[name])
            body["epoch"] = body.pop("incarnation")
            self._put("gap", name.partition("/")[2], body, at_us=names[name].received_us)
        return len(new)

    def _collections(self) -> list[str]:
        """Return the models that have a collection."""
        models = [model.model_hash for model in self.models() if model.dim is not None]
        self._ready = frozenset(models)
        return models

    def _has(self, model: str) -> bool:
        """Return True if a model has a collection; once it has one, it keeps it."""
        return model in self._ready or model in self._collections()

    def _selected(self, selection: Selection, fields: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """Yield model and some fields, key included, of the selected observations."""
        for model in self._collections():
            names = ["id", "camera", "epoch", "seq", *fields]
            for row in self._client.rows(_collection(model), condition(selection), names):
                yield model, row

    def _delete(self, selection: Selection) -> set[tuple[str, str, int]]:
        """Delete the selected observations until none is left; return their keys."""
        keys: set[tuple[str, str, int]] = set()
        while found := [(model, row) for model, row in self._selected(selection, ())]:
            keys.update((row["camera"], row["epoch"], row["seq"]) for _, row in found)
            for start in range(0, len(found), ROWS):
                some = found[start : start + ROWS]
                for model in {model for model, _ in some}:
                    ids = [row["id"] for owner, row in some if owner == model]
                    self._client.delete(_collection(model), f"id in {json.dumps(ids)}")
        return keys

    def _erasures(self) -> Iterable[tuple[str, Selection]]:
        return [(name, json_selection(json.dumps(body))) for name, body in self._bodies("erasure")]

    def _put(self, kind: str, name: str, body: Any, *, at_us: int = 0) -> None:
        text = json.dumps(body)
        if len(text.encode()) > TEXT_BYTES:
            raise StoreError(
                f"Milvus keeps at most {TEXT_BYTES} bytes of a text, and this {kind} takes more: ask for less at once."
            )
        self._client.put(
            META, [{"name": f"{kind}/{name}", "kind": kind, "at_us": at_us, "body": text, "unused": [1.0, 0.0]}]
        )

    def _bodies(self, kind: str) -> list[tuple[str, Any]]:
        """Return names and contents of the entries of one kind."""
        rows = self._client.rows(META, f'kind == "{kind}"', ["name", "body"])
        return [(row["name"], json.loads(row["body"])) for row in rows]


def condition(selection: Selection) -> str:
    """Return a selection as a Milvus filter."""
    parts = [EVERYTHING]
    if selection.cameras:
        parts.append(f"camera in {json.dumps(list(selection.cameras))}")
    if selection.not_cameras:
        parts.append(f"camera not in {json.dumps(list(selection.not_cameras))}")
    if selection.incarnation is not None:
        parts.append(f"epoch == {json.dumps(selection.incarnation)}")
    for field, comparison, value in (
        ("track", "==", selection.track),
        ("last_us", ">=", selection.since_us),
        ("first_us", "<=", selection.until_us),
    ):
        if value is not None:
            parts.append(f"{field} {comparison} {value}")
    return " and ".join(parts)


def _collection(model_hash: str) -> str:
    return f"reid_edge_{model_hash}"


def _row(record: Record) -> Row:
    columns = {name: value for name, value in row_of(record.entry).items() if name in _FIELDS}
    return {"id": record.entry.id, **columns, "feature": record.feature}
