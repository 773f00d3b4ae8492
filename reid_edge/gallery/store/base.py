"""The interface of all stores, what its methods return, and the rules of erasures that all stores share.

The conformance suite (``tests/gallery/test_store_conformance.py``) holds each store to the interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import msgspec

from reid_edge.gallery.entries import LONGEST_TRACKLET_US, Key, Match, Record, Selection
from reid_edge.types import Feature

#: Retention of a gallery until another is set.
DEFAULT_RETENTION_HOURS = 72.0


@dataclass(frozen=True, kw_only=True)
class StoredGap:
    """Observations that a camera dropped before they were delivered: ``count`` of first_seq..last_seq."""

    camera: str
    incarnation: str
    first_seq: int
    last_seq: int
    count: int
    reason: str
    received_us: int


@dataclass(frozen=True)
class Span:
    """Number of selected observations, and first and last sight of their tracklets (None if there are none)."""

    observations: int
    first_us: int | None
    last_us: int | None


@dataclass(frozen=True)
class Added:
    """Result of one :meth:`Store.add`.

    Attributes:
        stored: Records that are newly stored.
        duplicates: Records that had been stored before.
        erased: Records kept out because they were erased before they arrived.
        gaps: Gaps that are newly stored.
    """

    stored: int
    duplicates: int
    erased: int
    gaps: int


@dataclass(frozen=True)
class Erased:
    """Result of one :meth:`Store.erase`.

    Attributes:
        keys: Keys of the deleted observations, sorted.
        leftovers: What is left of their bytes, in words; "none" if nothing is.
    """

    keys: tuple[Key, ...]
    leftovers: str


@dataclass(frozen=True)
class AcceptedModel:
    """A model whose features the gallery takes; ``dim`` is None until its first feature has arrived."""

    model_hash: str
    dim: int | None
    accepted_us: int


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One line of the audit.

    Attributes:
        number: Number of the line, ascending; the store gives it.
        at_us: Time of the action.
        user: Operating system user who asked.
        action: ``search``, ``erase``, ``expire``, ``accept-model`` or ``retention``.
        purpose: Reason in the user's words; "" where none is asked for.
        detail: Values that JSON can hold; never a feature.
    """

    number: int = 0
    at_us: int
    user: str
    action: str
    purpose: str
    detail: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CameraSummary:
    """Contents of one camera; ``lost`` counts the observations that its gaps stand for."""

    camera: str
    observations: int
    tracklets: int
    first_us: int | None
    last_us: int | None
    gaps: int
    lost: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Contents of a gallery.

    Attributes:
        store: URI of the gallery.
        observations: Number of observations.
        first_us: First sight of any tracklet; None if there is none.
        last_us: Last sight of any tracklet; None if there is none.
        gaps: Number of gaps that cameras reported.
        lost: Number of observations that those gaps stand for.
        retention_hours: Hours that observations are kept.
        models: Models whose features are taken.
        cameras: Contents of each camera.
    """

    store: str
    observations: int
    first_us: int | None
    last_us: int | None
    gaps: int
    lost: int
    retention_hours: float
    models: tuple[AcceptedModel, ...]
    cameras: tuple[CameraSummary, ...]


class Store(Protocol):
    """Observations, the models that may have made their features, gaps, and the audit.

    Calls from several threads are served one after another; several processes may hold the same store open.  Every
    method raises :class:`~reid_edge.errors.StoreError` if the store cannot be reached, read or written, and undoes what
    it had done (``milvus:`` has no transactions and may be left with a part; repeating the call completes it).

    Attributes:
        name: The URI without its secrets.
    """

    name: str

    def add(self, records: Sequence[Record], gaps: Sequence[StoredGap] = ()) -> Added:
        """Store what is not stored yet, by (camera, incarnation, seq), in one durable commit.

        Records that an earlier :meth:`erase` covers are left out, however late they arrive.

        Raises:
            ModelMismatchError: A record's model has not been accepted.
        """

    def search(self, feature: Feature, *, model_hash: str, selection: Selection, top: int) -> list[Match]:
        """Return the observations nearest to a feature, best first: filtered first, then compared exactly.

        Args:
            feature: D float32, unit length.
            model_hash: The model that made it; no other model's features are compared.
            selection: Which observations to compare.
            top: How many to return.
        """

    def find(self, camera: str, incarnation_start: str, seq: int) -> list[Record]:
        """Return the records of a camera and number whose incarnation begins so; more than one if that is ambiguous."""

    def erase(self, selection: Selection, *, now_us: int) -> Erased:
        """Delete the selected observations, and from now on keep out those that have not arrived yet."""

    def expire(self, before_us: int) -> int:
        """Delete observations last seen, and gaps received, before a time; return the number of observations."""

    def models(self) -> list[AcceptedModel]:
        """Return the accepted models, in the order of acceptance."""

    def accept_model(self, model_hash: str, dim: int | None, *, now_us: int, only_first: bool = False) -> bool:
        """Take features of this model from now on.

        Args:
            model_hash: 64 hexadecimal digits.
            dim: Numbers in a feature; None if not known yet.
            now_us: Time of the acceptance.
            only_first: Accept it only if no model is accepted yet.

        Returns:
            True if it is accepted now with that ``dim``.
        """

    def retention_hours(self) -> float:
        """Return the number of hours that observations are kept."""

    def set_retention_hours(self, hours: float) -> None:
        """Change the number of hours that observations are kept."""

    def audit_append(self, entry: AuditEntry) -> None:
        """Add a line to the audit; the store gives it its number."""

    def audit_entries(self, last: int) -> list[AuditEntry]:
        """Return the last lines of the audit, oldest first."""

    def span(self, selection: Selection) -> Span:
        """Return the number of selected observations and their first and last time."""

    def cameras(self) -> list[CameraSummary]:
        """Return the contents of each camera, sorted by its name."""

    def close(self) -> None:
        """Close the store."""


def summarise(store: Store) -> Summary:
    """Sum up the contents of a gallery; ``milvus:`` reads the times of every observation for it."""
    cameras = tuple(store.cameras())
    return Summary(
        store=store.name,
        observations=sum(one.observations for one in cameras),
        first_us=min((one.first_us for one in cameras if one.first_us is not None), default=None),
        last_us=max((one.last_us for one in cameras if one.last_us is not None), default=None),
        gaps=sum(one.gaps for one in cameras),
        lost=sum(one.lost for one in cameras),
        retention_hours=store.retention_hours(),
        models=tuple(store.models()),
        cameras=cameras,
    )


def lasting_erasure(selection: Selection, newest_first_us: int | None, now_us: int) -> Selection:
    """Return the selection that an erasure keeps out from now on: no tracklet that begins later than it.

    Args:
        selection: What was erased.
        newest_first_us: Latest ``first_us`` of the deleted observations; a camera's clock may be ahead.
        now_us: Time of the erasure.
    """
    until = max(now_us, newest_first_us or 0)
    return replace(selection, until_us=until if selection.until_us is None else min(until, selection.until_us))


def spent_erasures_us(before_us: int) -> int:
    """Return the time up to which erasures cover only what has expired, once everything before ``before_us`` has."""
    return before_us - LONGEST_TRACKLET_US


def not_erased(records: Sequence[Record], erasures: Iterable[Selection]) -> list[Record]:
    """Return the records that no erasure covers."""
    rules = tuple(erasures)
    if not rules:
        return list(records)
    return [record for record in records if not any(rule.covers(record.entry) for rule in rules)]


def selection_json(selection: Selection) -> str:
    """Return a selection as JSON, the form in which stores keep erasures."""
    return msgspec.json.encode(selection.by_stored_name()).decode()


def json_selection(text: str) -> Selection:
    """Return the selection that a JSON text holds."""
    fields = msgspec.json.decode(text)
    return msgspec.convert({**fields, "incarnation": fields.get("epoch")}, Selection)
