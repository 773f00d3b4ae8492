"""What every store does; the conformance suite holds each of them to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reid_edge.gallery.records import (
    AcceptedModel,
    Added,
    AuditEntry,
    CameraSummary,
    Erased,
    Feature,
    Match,
    Record,
    Selection,
    Span,
    StoredGap,
)

#: How long observations are kept where nobody said otherwise.
DEFAULT_RETENTION_HOURS = 72.0


class Store(Protocol):
    """Observations, the models whose features they may be, gaps, and the audit.

    Calls from several threads are served one after another; several processes may hold the same store open.  Every
    method raises :class:`~reid_edge.errors.StoreError` if the store cannot be reached, read or written; what a call
    had done is then undone (``milvus:`` has no transactions and may be left with a part; doing the call again
    completes it).

    Attributes:
        name: The URI without its secrets.
    """

    name: str

    def add(self, records: Sequence[Record], gaps: Sequence[StoredGap] = ()) -> Added:
        """Store what is not stored yet, by (camera, epoch, seq), in one durable commit.

        What an earlier :meth:`erase` covers is left out, however late it comes.  The models must be accepted.
        """

    def search(self, feature: Feature, *, model_hash: str, selection: Selection, top: int) -> list[Match]:
        """The observations nearest to a feature, best first: filtered first, then compared exactly.

        Args:
            feature: D float32, unit length.
            model_hash: The model that made it; no other's features are compared.
            selection: Which observations to compare.
            top: How many.
        """

    def find(self, camera: str, epoch_start: str, seq: int) -> list[Record]:
        """Observations of that camera and number whose epoch begins so; more than one if that is ambiguous."""

    def erase(self, selection: Selection, *, now_us: int) -> Erased:
        """Delete what is meant, and from now on keep out what of it is still on its way."""

    def expire(self, before_us: int) -> int:
        """Delete what was last seen before, and the gaps received before; returns the number of observations."""

    def models(self) -> list[AcceptedModel]:
        """Accepted models, in the order of acceptance."""

    def accept_model(self, model_hash: str, dim: int | None, *, now_us: int, only_first: bool = False) -> bool:
        """Take features of this model from now on.

        Args:
            model_hash: 64 hexadecimal digits.
            dim: Numbers in a feature; None if not known yet.
            now_us: Time.
            only_first: Accept it only if no model is accepted yet.

        Returns:
            Whether it is accepted now with that ``dim``.
        """

    def retention_hours(self) -> float:
        """How long observations are kept."""

    def set_retention_hours(self, hours: float) -> None:
        """Change how long observations are kept."""

    def audit_append(self, entry: AuditEntry) -> None:
        """Add to the audit; its number is given by the store."""

    def audit_entries(self, last: int) -> list[AuditEntry]:
        """The last entries, oldest first."""

    def span(self, selection: Selection) -> Span:
        """How many observations are meant, and of what time."""

    def cameras(self) -> list[CameraSummary]:
        """What is held of each camera, by name."""

    def close(self) -> None:
        """Let go of the store."""
