"""What a gallery holds, at a glance."""

from __future__ import annotations

from dataclasses import dataclass

from reid_edge.gallery.store import Store
from reid_edge.gallery.store.base import AcceptedModel, CameraSummary


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a gallery holds.

    Attributes:
        store: Where.
        observations: How many.
        first_us: First sight of any tracklet; None if there is none.
        last_us: Last sight of any tracklet; None if there is none.
        gaps: How often cameras had to drop observations.
        lost: How many they dropped.
        retention_hours: How long observations are kept.
        models: Whose features are taken.
        cameras: The same of each camera.
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


def summarise(store: Store) -> Summary:
    """Sum a gallery up; ``milvus:`` reads the times of every observation for it."""
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
