"""The interface of all stores, and what its methods return.

The conformance suite (``tests/gallery/test_store_conformance.py``) holds each store to the interface.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from reid_edge.errors import StoreError
from reid_edge.gallery.entries import Key, Match, Record, Selection
from reid_edge.gallery.store.chain import AuditEntry
from reid_edge.gallery.store.damage import DamagedRows
from reid_edge.gallery.store.erasures import Erasure
from reid_edge.gallery.store.people import PeopleStore
from reid_edge.types import Feature

if TYPE_CHECKING:
    from reid_edge.gallery.store.snapshots import Snapshot

__all__ = [
    "DAMAGE",
    "DEFAULT_RETENTION_HOURS",
    "ELSEWHERE",
    "AcceptedModel",
    "Added",
    "AuditEntry",
    "CameraSummary",
    "Erased",
    "Erasure",
    "Span",
    "Store",
    "StoredGap",
    "Summary",
    "TrackletSpan",
    "grown",
    "summarise",
]

#: Retention of a gallery until another is set.
DEFAULT_RETENTION_HOURS = 72.0
#: Setting that holds what the last check found damaged.
DAMAGE = "damage"
#: Reason of the gap of a camera's incarnation that grows: what the camera sent to other galleries alone.
ELSEWHERE = "elsewhere"


@dataclass(frozen=True, kw_only=True)
class StoredGap:
    """Observations that this gallery will never hold: ``count`` of first_seq..last_seq.

    A camera dropped them before they were delivered, or (reason :data:`ELSEWHERE`) sent them to other galleries alone.
    """

    camera: str
    incarnation: str
    first_seq: int
    last_seq: int
    count: int
    reason: str
    received_us: int


def grown(old: StoredGap, new: StoredGap) -> StoredGap:
    """Return the one gap of what was sent elsewhere, after more of it: rows that were counted count once."""
    more = min(new.count, max(0, new.last_seq - old.last_seq))
    return StoredGap(
        camera=old.camera,
        incarnation=old.incarnation,
        first_seq=min(old.first_seq, new.first_seq),
        last_seq=max(old.last_seq, new.last_seq),
        count=old.count + more,
        reason=ELSEWHERE,
        received_us=max(old.received_us, new.received_us),
    )


@dataclass(frozen=True)
class Span:
    """Number of selected observations, and first and last sight of their tracklets (None if there are none)."""

    observations: int
    first_us: int | None
    last_us: int | None


@dataclass(frozen=True)
class TrackletSpan:
    """A stored tracklet.

    Attributes:
        camera: Its camera.
        incarnation: Its incarnation.
        track: Its number.
        seq: Number of its newest observation.
        first_us: First sight of it.
        last_us: Last sight of it so far.
        observations: Number of its observations.
    """

    camera: str
    incarnation: str
    track: int
    seq: int
    first_us: int
    last_us: int
    observations: int


@dataclass(frozen=True)
class Added:
    """Result of one :meth:`Store.add`.

    Attributes:
        stored: Records that are newly stored.
        duplicates: Records that had been stored before.
        erased: Records kept out because they were erased before they arrived.
        gaps: Gaps that cameras declared and that are newly stored.
        elsewhere: Observations for other galleries that are newly counted.
    """

    stored: int
    duplicates: int
    erased: int
    gaps: int
    elsewhere: int = 0


@dataclass(frozen=True)
class Erased:
    """Result of one :meth:`Store.erase`.

    Attributes:
        keys: Keys of the deleted observations, sorted.
        leftovers: What is left of their bytes, in words; "none" if nothing is.
        erasure: The rule that keeps them out; None if several were applied.
    """

    keys: tuple[Key, ...]
    leftovers: str
    erasure: Erasure | None = None


@dataclass(frozen=True)
class AcceptedModel:
    """A model whose features the gallery takes; ``dim`` is None until its first feature has arrived."""

    model_hash: str
    dim: int | None
    accepted_us: int


@dataclass(frozen=True, kw_only=True)
class CameraSummary:
    """Contents of one camera.

    Attributes:
        camera: Its name.
        observations: Number of observations.
        tracklets: Number of their tracklets.
        first_us: First sight of any; None if there is none.
        last_us: Last sight of any; None if there is none.
        gaps: Number of gaps that it declared.
        lost: Observations that these gaps stand for.
        elsewhere: Observations that it sent to other galleries alone.
    """

    camera: str
    observations: int
    tracklets: int
    first_us: int | None
    last_us: int | None
    gaps: int
    lost: int
    elsewhere: int = 0


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Contents of a gallery.

    Attributes:
        store: URI of the gallery.
        observations: Number of observations.
        first_us: First sight of any tracklet; None if there is none.
        last_us: Last sight of any tracklet; None if there is none.
        gaps: Number of gaps that cameras declared.
        lost: Number of observations that those gaps stand for.
        elsewhere: Number of observations that cameras sent to other galleries alone.
        retention_hours: Hours that observations are kept.
        models: Models whose features are taken.
        cameras: Contents of each camera.
        damage: What the last check of the whole gallery, or this one, found damaged; "" for nothing.
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
    damage: str = ""
    elsewhere: int = 0


class Store(PeopleStore, Protocol):
    """Observations, the models that may have made their features, gaps, people, and the audit.

    Calls from several threads are served one after another; several processes may hold the same store open.  Every
    method raises :class:`~reid_edge.errors.StoreError` if the store cannot be reached, read or written, and undoes what
    it had done (``milvus:`` has no transactions and may be left with a part; repeating the call completes it).

    Attributes:
        name: The URI without its secrets.
        damaged: Observations whose checksum was found not to be theirs; they are left out of answers.
    """

    name: str
    damaged: DamagedRows

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

    def erase(self, selection: Selection, *, now_us: int, boot: str = "") -> Erased:
        """Delete the selected observations, and from now on keep out those that have not arrived yet.

        Args:
            selection: Which observations.
            now_us: Time of the erasure.
            boot: The boot of this machine, for later corrections of its clock.
        """

    def erasures(self) -> list[Erasure]:
        """Return the erasures that are in force, oldest first."""

    def apply_erasures(self, erasures: Sequence[Erasure]) -> Erased:
        """Put erasures in force, and delete what they cover, in one commit.

        They were made in another store, journal or backup, or just now.  One that is in force already stays, until the
        later of the two ends.
        """

    def expire(self, before_us: int, note: AuditEntry | None = None) -> int:
        """Delete observations last seen, and gaps received, before a time; return the number of observations.

        Args:
            before_us: The time.
            note: Line for the audit if anything is deleted, in the same commit; its detail gets the numbers of
                observations and gaps.
        """

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

    def forget_model(self, model_hash: str) -> int:
        """Take no more features of a model, unless observations of it are held; return their number."""

    def settings(self, prefix: str = "") -> dict[str, str]:
        """Return the settings whose names begin so."""

    def change_settings(self, values: Mapping[str, str | None]) -> None:
        """Write settings, in one commit; None removes one."""

    def retention_hours(self) -> float:
        """Return the number of hours that observations are kept."""

    def set_retention_hours(self, hours: float) -> None:
        """Change the number of hours that observations are kept."""

    def audit_append(self, entry: AuditEntry) -> AuditEntry:
        """Add a line to the audit; return it with the number and the hash that the store has given it."""

    def audit_entries(self, last: int) -> list[AuditEntry]:
        """Return the last lines of the audit, oldest first."""

    def restore_audit(self, lines: Sequence[AuditEntry]) -> None:
        """Take over the lines of another store's audit, with their numbers and hashes.

        Raises:
            StoreError: The audit has lines already.
        """

    def look(self) -> None:
        """Look at a part of what is stored, within a fraction of a second; note of damage is taken in ``damaged``.

        Databases on servers check their files themselves.
        """

    def structure(self) -> list[str]:
        """Check the store's own structure; return what is wrong, in words.  Databases on servers check theirs."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Read all that the store holds at one moment (``milvus:`` may change meanwhile)."""

    def span(self, selection: Selection, model_hash: str | None = None) -> Span:
        """Return the number of selected observations, of one model or of all, and their first and last time."""

    def tracklets(self, selection: Selection, *, limit: int, skip: int = 0) -> list[TrackletSpan]:
        """Return the tracklets of the selected observations, the last seen first (``milvus:`` reads them all for it).

        Args:
            selection: Which observations.
            limit: Largest number of tracklets.
            skip: Number of tracklets that are left out before.
        """

    def cameras(self, since_us: int = 0) -> list[CameraSummary]:
        """Return the contents of each camera, sorted by its name.

        Args:
            since_us: Leave out what was last seen, and gaps that were received, before.
        """

    def close(self) -> None:
        """Close the store."""


def no_gallery(name: str) -> StoreError:
    """Return the error for a store, by the name without secrets, in which there is no gallery."""
    return StoreError(
        f"there is no gallery at {name}. Is the name right? 'reid-edge run … --upstream {name}' makes one for a camera "
        f"on this machine, 'reid-edge gallery serve {name}' one for many cameras."
    )


def summarise(store: Store, since_us: int = 0) -> Summary:
    """Sum up the contents of a gallery; ``milvus:`` reads the times of every observation for it.

    Args:
        store: Which gallery.
        since_us: Leave out what was last seen before.
    """
    cameras = tuple(store.cameras(since_us))
    return Summary(
        store=store.name,
        observations=sum(one.observations for one in cameras),
        first_us=min((one.first_us for one in cameras if one.first_us is not None), default=None),
        last_us=max((one.last_us for one in cameras if one.last_us is not None), default=None),
        gaps=sum(one.gaps for one in cameras),
        lost=sum(one.lost for one in cameras),
        elsewhere=sum(one.elsewhere for one in cameras),
        retention_hours=store.retention_hours(),
        models=tuple(store.models()),
        cameras=cameras,
        damage=store.damaged.trouble or store.settings(DAMAGE).get(DAMAGE, ""),
    )
