"""A gallery in Milvus: a collection of observations for each model, and one collection for everything else.

Milvus has no transactions.  Where that matters, the order of the steps lets a repeated call complete an earlier one.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from reid_edge.errors import UPGRADE, ModelMismatchError, StoreError
from reid_edge.gallery.entries import Key, Match, Record, Selection
from reid_edge.gallery.store.base import (
    AcceptedModel,
    Added,
    AuditEntry,
    CameraSummary,
    Erased,
    Erasure,
    Span,
    StoredGap,
    TrackletSpan,
    no_gallery,
)
from reid_edge.gallery.store.chain import counted
from reid_edge.gallery.store.columns import intact_entry
from reid_edge.gallery.store.damage import DamagedRows, damage_errors
from reid_edge.gallery.store.erasures import (
    covering,
    deleted_now,
    erasure_fields,
    fields_erasure,
    new_erasure,
    not_erased,
    spent_us,
)
from reid_edge.gallery.store.milvus_audit import AuditLines
from reid_edge.gallery.store.milvus_client import COMMIT_S, LONG_S, ROWS, Client, Row
from reid_edge.gallery.store.milvus_collections import (
    NAMES,
    SCHEMA_VERSION,
    STORED,
    VERSION_SETTING,
    collection_fields,
    collection_of,
    migrate,
    row_with_checksum,
)
from reid_edge.gallery.store.milvus_gaps import add_gaps, all_gaps
from reid_edge.gallery.store.milvus_lists import cameras_of, span_of, tracklets_of
from reid_edge.gallery.store.milvus_meta import Meta
from reid_edge.gallery.store.milvus_people import MilvusPeople, of_one_outbox
from reid_edge.gallery.store.milvus_snapshot import MilvusSnapshot
from reid_edge.gallery.store.people import AllPeople, Assignment, Decision, PeopleChange, PeopleState, PersonEvent
from reid_edge.gallery.store.retention import CHECK, PREFIX, retention_of, retention_settings
from reid_edge.gallery.store.snapshots import Snapshot
from reid_edge.types import Feature

EVERYTHING = "seq >= 0"
LEFTOVERS = "Milvus keeps the bytes of deleted rows until it has compacted, which was asked for, and in backups"
#: Number of applications of the retention that also delete what an erasure covers.
SWEEPS = 3
#: Longest change of an earlier format to the present one.
MIGRATION_S = 6 * 3600.0


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
        self._meta = Meta(self._client)
        self._lines = AuditLines(self._meta, self.name)
        self._people = MilvusPeople(self._meta, self._held_tracklets)
        self._lock = threading.RLock()
        self._depth = 0
        self._ready: frozenset[str] = frozenset()
        self.damaged = DamagedRows(self.name)
        self._swept: Counter[str] = Counter()
        try:
            self._open(create=create)
        except BaseException:
            self.close()
            raise

    def add(self, records: Sequence[Record], gaps: Sequence[StoredGap] = ()) -> Added:
        """Store the records and gaps that are not stored yet."""
        with self._session():
            fresh = not_erased(records, self.erasures())
            by_model: dict[str, dict[str, Record]] = defaultdict(dict)
            for record in fresh:
                by_model[record.entry.model_hash].setdefault(record.entry.id, record)
            stored = sum(self._add(model, ids) for model, ids in sorted(by_model.items()))
            new_gaps, elsewhere = add_gaps(self._meta, gaps) if gaps else (0, 0)
        return Added(stored, len(fresh) - stored, len(records) - len(fresh), new_gaps, elsewhere)

    def search(self, feature: Feature, *, model_hash: str, selection: Selection, top: int) -> list[Match]:
        """Return the observations nearest to a feature."""
        with self._session(LONG_S):
            if not self._has(model_hash):
                return []
            rows = self._client.nearest(
                collection_of(model_hash), feature.astype(np.float32), condition(selection), [*NAMES, "feature"], top
            )
        found = [(self._record(row, model_hash), row["distance"]) for row in rows]
        return [Match(record.entry, min(1.0, cosine), record.feature) for record, cosine in found if record is not None]

    def find(self, camera: str, incarnation_start: str, seq: int) -> list[Record]:
        """Return the records of a camera and number whose incarnation begins so."""
        where = f"camera == {json.dumps(camera)} and seq == {seq}"
        with self._session():
            found = [
                self._record(row, model)
                for model in self._collections()
                for row in self._client.rows(collection_of(model), where, [*NAMES, "feature"])
                if row["epoch"].startswith(incarnation_start)
            ]
        return sorted((one for one in found if one is not None), key=lambda record: record.entry.key)

    def erase(self, selection: Selection, *, now_us: int, boot: str = "") -> Erased:
        """Delete the selected observations and keep them out."""
        with self._session(LONG_S):
            erasure = new_erasure(selection, now_us=now_us, boot=boot)
            chosen = deleted_now(selection, erasure)
            first = [row["first_us"] for _, row in self._selected(chosen, ["first_us"])]
            erasure = covering(erasure, max(first, default=None))
            return replace(self.apply_erasures([erasure]), erasure=erasure)

    def erasures(self) -> list[Erasure]:
        """Return the erasures that are in force, oldest first."""
        with self._session(LONG_S):
            found = [fields_erasure(body) for body in self._meta.bodies("erasure").values()]
        return sorted(found, key=lambda erasure: (erasure.made_us, erasure.id))

    def apply_erasures(self, erasures: Sequence[Erasure]) -> Erased:
        """Put erasures in force that were made elsewhere, and delete what they cover."""
        with self._session(LONG_S):
            held = {erasure.id: erasure for erasure in self.erasures()}
            for erasure in erasures:
                # From now on nothing new is stored, but for what another collector just writes: ``expire`` deletes it.
                if erasure.id not in held or held[erasure.id].until_us < erasure.until_us:
                    self._meta.put("erasure", erasure.id, erasure_fields(erasure), at_us=erasure.until_us)
            keys = self._delete(erasure.selection for erasure in erasures)
            for model in self._collections():
                self._client.compact(collection_of(model))
        return Erased(tuple(sorted(keys)), LEFTOVERS)

    def expire(self, before_us: int, note: AuditEntry | None = None) -> int:
        """Delete observations and gaps from before a time; the line of the audit comes first."""
        old = f"last_us < {before_us}"
        with self._session():
            collections = [collection_of(model) for model in self._collections()]
            expired = sum(self._client.count(collection, old) for collection in collections)
            gaps = self._meta.count_before("gap", before_us)
            if note is not None and (expired or gaps):
                self.audit_append(counted(note, expired, gaps))
            for collection in collections:
                self._client.delete(collection, old)
            self._meta.remove_before("gap", before_us)
            self._meta.remove_before("erasure", spent_us(before_us))
            self._people.expire(before_us)
            self._sweep()
        return expired

    def _sweep(self) -> None:
        """Delete what another collector was just writing when it was erased."""
        for erasure in self.erasures():
            if self._swept[erasure.id] < SWEEPS:
                self._delete([erasure.selection])
                self._swept[erasure.id] += 1

    def models(self) -> list[AcceptedModel]:
        """Return the accepted models."""
        with self._session():
            found = [AcceptedModel(**body) for body in self._meta.bodies("model").values()]
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
                    self._client.create(collection_of(model_hash), collection_fields(dim))
                self._meta.put("model", model_hash, asdict(accepted))
                known = accepted
            if only_first and self.models()[0].model_hash != model_hash:  # another collector was faster
                self._meta.remove("model", model_hash)
                return False
        return dim in (None, known.dim)

    def forget_model(self, model_hash: str) -> int:
        """Take no more features of a model, unless observations of it are held; return their number."""
        with self._session():
            collection = collection_of(model_hash)
            held = self._client.count(collection, EVERYTHING) if model_hash in self._collections() else 0
            if not held:
                self._meta.remove("model", model_hash)
                self._client.drop(collection)
                self._ready -= {model_hash}
        return held

    def settings(self, prefix: str = "") -> dict[str, str]:
        """Return the settings whose names begin so."""
        with self._session():
            found = self._meta.bodies("setting", start=prefix)
        return {name: str(value) for name, value in sorted(found.items()) if name != VERSION_SETTING}

    def change_settings(self, values: Mapping[str, str | None]) -> None:
        """Write settings, one after the other; None removes one."""
        with self._session():
            for name, value in values.items():
                if value is None:
                    self._meta.remove("setting", name)
                else:
                    self._meta.put("setting", name, value)

    def retention_hours(self) -> float:
        """Return the number of hours that observations are kept."""
        return retention_of(self.settings(PREFIX), self.name)

    def set_retention_hours(self, hours: float) -> None:
        """Change the number of hours that observations are kept."""
        with self._session():
            self.change_settings({CHECK: None})  # without it any hours are taken, should this be interrupted
            self.change_settings(retention_settings(hours))

    def audit_append(self, entry: AuditEntry) -> AuditEntry:
        """Add a line to the audit; of several that are added at the same moment each gives way and tries again.

        Raises:
            StoreError: Others were always there.
        """
        with self._session():
            return self._lines.append(entry)

    def audit_entries(self, last: int) -> list[AuditEntry]:
        """Return the last lines of the audit, oldest first."""
        with self._session():
            return self._lines.entries(last)

    def restore_audit(self, lines: Sequence[AuditEntry]) -> None:
        """Take over the lines of another store's audit, with their numbers and hashes."""
        with self._session(LONG_S):
            self._lines.restore(lines)

    @staticmethod
    def look() -> None:
        """Do nothing: the server checks its own files."""

    @staticmethod
    def structure() -> list[str]:
        """Return nothing: the server checks its own files."""
        return []

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Read all that it holds; what changes meanwhile may be in it or not."""
        yield MilvusSnapshot(self)

    def all_rows(self) -> Iterator[Record | None]:
        """Yield every observation, and None for each that is damaged."""
        with self._session(MIGRATION_S):
            for model in self._collections():
                for row in self._client.rows(collection_of(model), EVERYTHING, [*NAMES, "feature"]):
                    yield self._record(row, model)

    def gaps(self) -> list[StoredGap]:
        """Return the gaps."""
        with self._session(LONG_S):
            return all_gaps(self._meta)

    def span(self, selection: Selection, model_hash: str | None = None) -> Span:
        """Return the number of selected observations and their first and last time; reads the times of each."""
        with self._session(LONG_S):
            rows = self._selected(selection, ["first_us", "last_us"])
            return span_of(row for model, row in rows if model_hash in (None, model))

    def tracklets(self, selection: Selection, *, limit: int, skip: int = 0) -> list[TrackletSpan]:
        """Return the tracklets of the selected observations, the last seen first; reads the times of each."""
        with self._session(LONG_S):
            spans = tracklets_of(row for _, row in self._selected(selection, ["track", "first_us", "last_us"]))
        return spans[skip : skip + limit]

    def cameras(self, since_us: int = 0) -> list[CameraSummary]:
        """Return the contents of each camera; reads the times of every observation."""
        with self._session(LONG_S):
            rows = self._selected(Selection(since_us=since_us), ["track", "first_us", "last_us"])
            gaps = (gap for gap in all_gaps(self._meta) if gap.received_us >= since_us)
            return cameras_of((row for _, row in rows), gaps)

    def people_state(self) -> PeopleState:
        """Return the state that a change of people is to be based on."""
        with self._session():
            return self._people.state()

    def assignments(self, person: int | None = None) -> list[Assignment]:
        """Return the assignments of all people, or of one."""
        with self._session(LONG_S):
            return self._people.assignments(person)

    def decisions(self) -> list[Decision]:
        """Return what operators have said, oldest first."""
        with self._session():
            return self._people.decisions()

    def person_events(self, after: int = 0, *, limit: int) -> list[PersonEvent]:
        """Return events with larger numbers than one, the smallest first."""
        with self._session(LONG_S):
            return self._people.events(after, limit)

    def change_people(self, change: PeopleChange, *, revision: int) -> PeopleState:
        """Store a change; of two that are made at the same moment both may be stored."""
        with self._session(LONG_S):
            return self._people.change(change, revision)

    def restore_people(self, people: AllPeople) -> None:
        """Take over the people of another store into one that has none."""
        with self._session(LONG_S):
            self._people.restore(people)

    def last_event(self) -> int:
        """Return the largest number that an event was given."""
        with self._session():
            return self._people.last_event

    def _held_tracklets(self, tracklets: set[Key]) -> dict[Key, int]:
        """Return, of those of some tracklets of which there are observations, the last sight."""
        found: dict[Key, int] = {}
        for (camera, incarnation), tracks in of_one_outbox(tracklets).items():
            of_it = f"camera == {json.dumps(camera)} and epoch == {json.dumps(incarnation)}"
            for start in range(0, len(tracks), ROWS):
                where = f"{of_it} and track in {tracks[start : start + ROWS]}"
                for model in self._collections():
                    for row in self._client.rows(collection_of(model), where, ["id", "track", "last_us"]):
                        key = camera, incarnation, row["track"]
                        found[key] = max(row["last_us"], found.get(key, row["last_us"]))
        return found

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._client.close()

    @contextlib.contextmanager
    def _session(self, most_s: float = COMMIT_S) -> Iterator[None]:
        """Serve one caller at a time; after a failure load the collections again: the server may have restarted."""
        if not self._lock.acquire(timeout=most_s):
            raise StoreError(f"the gallery in {self.name} has been busy with another call for {most_s:g} s.")
        self._depth += 1
        try:
            if self._depth == 1:  # else it is part of a call whose time runs already
                self._client.within(most_s)
            if self._client.failed:
                self._client.failed = False  # set again if this fails
                self._open(create=False)
            with damage_errors(self.name):
                yield
        finally:
            self._depth -= 1
            self._lock.release()

    def _open(self, *, create: bool) -> None:
        if not self._meta.is_there():
            if not create:
                raise no_gallery(self.name)
            self._meta.create()
            self._meta.put("setting", VERSION_SETTING, SCHEMA_VERSION)
        known = self._meta.body("setting", VERSION_SETTING)
        version = SCHEMA_VERSION if known is None else int(known)
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.name} holds a gallery of format {version}; this release reads up to {SCHEMA_VERSION}. {UPGRADE}"
            )
        if version < SCHEMA_VERSION:
            self._client.within(MIGRATION_S)
            migrate(self._client, self._meta)
        for model in [AcceptedModel(**body) for body in self._meta.bodies("model").values()]:
            if model.dim is not None:
                self._client.has(collection_of(model.model_hash))  # makes it ready to be read
        self._lines.forget()

    def _record(self, row: Row, model: str) -> Record | None:
        """Return the record of a row of a model's collection; None if it is damaged, of which note is taken."""
        feature = np.asarray(row["feature"], STORED)
        entry = intact_entry(row, model, feature.tobytes(), row["checksum"])
        if entry is None:
            self.damaged.note(row["id"])
            return None
        return Record(entry, feature.astype(np.float32))

    def _add(self, model: str, records: dict[str, Record]) -> int:
        if not self._has(model):
            raise ModelMismatchError(f"the gallery has not accepted the model {model}.")
        collection = collection_of(model)
        there = self._client.existing(collection, "id", list(records))
        new = [record for key, record in records.items() if key not in there]
        # Put, not inserted: were another collector to store the same now, one row would be left.
        self._client.put(collection, [row_with_checksum(record) for record in new])
        return len(new)

    def _collections(self) -> list[str]:
        """Return the models that have a collection."""
        models = [model.model_hash for model in self.models() if model.dim is not None]
        self._ready = frozenset(models)
        return models

    def _has(self, model: str) -> bool:
        """Return True if a model has a collection."""
        return model in self._ready or model in self._collections()

    def _selected(self, selection: Selection, fields: Sequence[str]) -> Iterator[tuple[str, Row]]:
        """Yield model and some fields, key included, of the selected observations."""
        for model in self._collections():
            names = ["id", "camera", "epoch", "seq", *fields]
            for row in self._client.rows(collection_of(model), condition(selection), names):
                yield model, row

    def _delete(self, selections: Iterable[Selection]) -> set[tuple[str, str, int]]:
        """Delete the selected observations until none is left; return their keys."""
        keys: set[Key] = set()
        tracklets: dict[Key, int] = {}
        for selection in selections:
            while found := list(self._selected(selection, ["track", "last_us"])):
                for _, row in found:
                    keys.add((row["camera"], row["epoch"], row["seq"]))
                    tracklet = row["camera"], row["epoch"], row["track"]
                    tracklets[tracklet] = max(row["last_us"], tracklets.get(tracklet, row["last_us"]))
                for start in range(0, len(found), ROWS):
                    some = found[start : start + ROWS]
                    for model in {model for model, _ in some}:
                        ids = [row["id"] for owner, row in some if owner == model]
                        self._client.delete(collection_of(model), f"id in {json.dumps(ids)}")
        self._people.forget(tracklets)
        return keys


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
