"""The tracklets that a gallery holds, as people are made of them: read in one pass over its observations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reid_edge.gallery.entries import Key, Record
from reid_edge.gallery.store import Store
from reid_edge.identity.sightings import Sighting
from reid_edge.types import Feature


@dataclass(frozen=True, eq=False)
class HeldTracklet:
    """A stored tracklet.

    Attributes:
        key: Camera, incarnation, track.
        sighting: All that is known of it; its id is that of :func:`name_of`.
        seq: Number of its newest observation.
        first_us: First sight of it, microseconds since 1970 UTC.
        last_us: Last sight of it so far.
    """

    key: Key
    sighting: Sighting
    seq: int
    first_us: int
    last_us: int


def name_of(tracklet: Key) -> str:
    """Return the name by which people know a tracklet: ``camera/epoch/track``."""
    camera, incarnation, track = tracklet
    return f"{camera}/{incarnation}/{track}"


def read_tracklets(store: Store, *, since_us: int) -> dict[str, dict[str, HeldTracklet]]:
    """Read all tracklets; memory grows with their number, not with that of their observations.

    Args:
        store: Which gallery.
        since_us: Observations last seen before are left out, whether they are deleted yet or not.

    Returns:
        By model hash and name.
    """
    with store.snapshot() as held:
        return gathered_tracklets(
            record for piece in held.records() for record in piece if record.entry.last_us >= since_us
        )


def gathered_tracklets(records: Iterable[Record]) -> dict[str, dict[str, HeldTracklet]]:
    """Join observations to tracklets, by model hash and name.

    Of a tracklet the feature of most crops is taken; of one with features of two models, those of the newer.
    """
    gathering: dict[Key, _Gathering] = {}
    for record in records:
        known = gathering.get(record.entry.tracklet)
        if known is None or (known.model_hash != record.entry.model_hash and record.entry.seq > known.seq):
            gathering[record.entry.tracklet] = _Gathering(record)
        elif known.model_hash == record.entry.model_hash:
            known.add(record)
    found: dict[str, dict[str, HeldTracklet]] = {}
    for key, one in gathering.items():
        found.setdefault(one.model_hash, {})[name_of(key)] = one.tracklet(key)
    return found


class _Gathering:
    """What is known of a tracklet so far."""

    __slots__ = ("best", "boxes", "feature", "first_us", "last_us", "model_hash", "seq")

    def __init__(self, record: Record) -> None:
        entry = record.entry
        self.model_hash, self.seq = entry.model_hash, entry.seq
        self.first_us, self.last_us = entry.first_us, entry.last_us
        self.best = (entry.crops, entry.last_us)
        self.feature: Feature = record.feature
        self.boxes: set[tuple[float, ...]] = {(entry.captured_us / 1e6, *entry.box)}

    def add(self, record: Record) -> None:
        entry = record.entry
        self.seq = max(self.seq, entry.seq)
        self.first_us, self.last_us = min(self.first_us, entry.first_us), max(self.last_us, entry.last_us)
        self.boxes.add((entry.captured_us / 1e6, *entry.box))
        if (entry.crops, entry.last_us) > self.best:
            self.best, self.feature = (entry.crops, entry.last_us), record.feature

    def tracklet(self, key: Key) -> HeldTracklet:
        sighting = Sighting(
            id=name_of(key),
            camera=key[0],
            model_hash=self.model_hash,
            first_s=self.first_us / 1e6,
            last_s=self.last_us / 1e6,
            feature=self.feature,
            crops=self.best[0],
            boxes=np.array(sorted(self.boxes), np.float64),
        )
        return HeldTracklet(key, sighting, self.seq, self.first_us, self.last_us)
