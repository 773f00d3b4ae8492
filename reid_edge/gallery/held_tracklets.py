"""The tracklets that a gallery holds, as people and calibrations are made of them: read in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from reid_edge.features import l2_normalised
from reid_edge.gallery.entries import Key, Record
from reid_edge.gallery.store import Store
from reid_edge.identity.calibration import Parts
from reid_edge.identity.parts import separate_parts
from reid_edge.identity.sightings import Sighting, Sightings, gathered
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
        records: Its observations, as far as they were asked for.
    """

    key: Key
    sighting: Sighting
    seq: int
    first_us: int
    last_us: int
    records: tuple[Record, ...] = ()


@dataclass(frozen=True)
class ModelTracklets:
    """The tracklets of one model, as arrays.

    Attributes:
        keys: Camera, incarnation and number of each, in the order of ``sightings``.
        sightings: Feature of most crops of each, the times and boxes of all of its observations.
        parts: Two parts of each tracklet that has several observations, without a crop in common.
        observations: Number of observations that they were read from.
    """

    keys: tuple[Key, ...]
    sightings: Sightings
    parts: Parts
    observations: int


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
    return _read(store, since_us, keep_records=False)


def read_model_tracklets(store: Store, *, since_us: int = 0) -> dict[str, ModelTracklets]:
    """Read all tracklets with their parts, by model hash; memory grows with the number of observations.

    Args:
        store: Which gallery.
        since_us: Leave out observations last seen before.

    Raises:
        StoreError: The store fails.
    """
    held = _read(store, since_us, keep_records=True)
    return {model_hash: _as_arrays(tracklets) for model_hash, tracklets in sorted(held.items())}


def _read(store: Store, since_us: int, *, keep_records: bool) -> dict[str, dict[str, HeldTracklet]]:
    with store.snapshot() as held:
        return gathered_tracklets(
            (record for piece in held.records() for record in piece if record.entry.last_us >= since_us),
            keep_records=keep_records,
        )


def gathered_tracklets(records: Iterable[Record], *, keep_records: bool = False) -> dict[str, dict[str, HeldTracklet]]:
    """Join observations to tracklets, by model hash and name.

    Of a tracklet the feature of most crops is taken; of one with features of two models, those of the newer.
    Observations whose feature is all zeros, which nothing can be compared with, are left out.
    """
    gathering: dict[Key, _Gathering] = {}
    for record in records:
        if not np.any(record.feature):
            continue
        known = gathering.get(record.entry.tracklet)
        if known is None or (known.model_hash != record.entry.model_hash and record.entry.seq > known.seq):
            gathering[record.entry.tracklet] = _Gathering(record, keep_records=keep_records)
        elif known.model_hash == record.entry.model_hash:
            known.add(record)
    found: dict[str, dict[str, HeldTracklet]] = {}
    for key, one in gathering.items():
        found.setdefault(one.model_hash, {})[name_of(key)] = one.tracklet(key)
    return found


class _Gathering:
    """What is known of a tracklet so far."""

    __slots__ = ("best", "boxes", "feature", "first_us", "last_us", "model_hash", "records", "seq")

    def __init__(self, record: Record, *, keep_records: bool) -> None:
        entry = record.entry
        self.model_hash, self.seq = entry.model_hash, entry.seq
        self.first_us, self.last_us = entry.first_us, entry.last_us
        self.best = (entry.crops, entry.last_us)
        self.feature: Feature = record.feature
        self.records = [record] if keep_records else None
        self.boxes: set[tuple[float, ...]] = {(entry.captured_us / 1e6, *entry.box)}

    def add(self, record: Record) -> None:
        entry = record.entry
        self.seq = max(self.seq, entry.seq)
        self.first_us, self.last_us = min(self.first_us, entry.first_us), max(self.last_us, entry.last_us)
        self.boxes.add((entry.captured_us / 1e6, *entry.box))
        if (entry.crops, entry.last_us) > self.best:
            self.best, self.feature = (entry.crops, entry.last_us), record.feature
        if self.records is not None:
            self.records.append(record)

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
        return HeldTracklet(key, sighting, self.seq, self.first_us, self.last_us, tuple(self.records or ()))


def _as_arrays(tracklets: dict[str, HeldTracklet]) -> ModelTracklets:
    sightings = gathered(one.sighting for one in tracklets.values())
    held = [tracklets[name] for name in sightings.ids]
    dim = sightings.features.shape[1]
    pairs = [pair for one in held if (pair := _half_and_whole(one.records)) is not None]
    first, whole = (
        l2_normalised(np.array([pair[place].feature for pair in pairs], np.float32).reshape(len(pairs), dim))
        for place in (0, 1)
    )
    few, many = (np.array([pair[place].entry.crops for pair in pairs], np.int64) for place in (0, 1))
    cameras = tuple(whole_of.entry.camera for _, whole_of in pairs)
    return ModelTracklets(
        keys=tuple(one.key for one in held),
        sightings=sightings,
        parts=Parts(first=first, second=separate_parts(first, whole, few, many), cameras=cameras),
        observations=sum(len(one.records) for one in held),
    )


def _half_and_whole(records: tuple[Record, ...]) -> tuple[Record, Record] | None:
    """The record of most crops, and before it one of about half as many; None if none has fewer."""
    whole = max(records, key=lambda one: (one.entry.crops, one.entry.last_us))
    crops = whole.entry.crops
    fewer = [one for one in records if one.entry.crops < crops]
    half = min(fewer, key=lambda one: (abs(one.entry.crops - crops / 2), one.entry.seq), default=None)
    return None if half is None else (half, whole)
