"""The tracklets that a gallery holds, as the arrays that identity works on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from reid_edge.features import l2_normalised
from reid_edge.gallery.entries import Key, Record
from reid_edge.gallery.store import Store
from reid_edge.identity.calibration import Parts
from reid_edge.identity.parts import separate_parts
from reid_edge.identity.sightings import Sightings

SECOND_US = 1_000_000


@dataclass(frozen=True)
class HeldTracklets:
    """The tracklets of one model.

    Attributes:
        keys: Camera, incarnation and number of each, in the order of ``sightings``.
        sightings: Newest feature of each, the times and boxes of all of its observations.
        parts: Two parts of each tracklet that has several observations, without a crop in common.
        observations: Number of observations that they were read from.
    """

    keys: tuple[Key, ...]
    sightings: Sightings
    parts: Parts
    observations: int


@dataclass
class _Gathered:
    """What is kept of a tracklet while its observations are read: one early record, the newest, and the boxes."""

    newest: Record
    others: list[Record] = field(default_factory=list)

    def add(self, record: Record) -> None:
        if record.entry.seq > self.newest.entry.seq:
            record, self.newest = self.newest, record
        self.others.append(record)

    @property
    def records(self) -> list[Record]:
        return [self.newest, *self.others]

    @property
    def half(self) -> Record | None:
        """The earlier record that has about half of the newest one's crops; None if there is none of fewer."""
        crops = self.newest.entry.crops
        fewer = [one for one in self.others if one.entry.crops < crops]
        return min(fewer, key=lambda one: (abs(one.entry.crops - crops / 2), one.entry.seq), default=None)


def read_tracklets(store: Store, *, since_us: int = 0) -> dict[str, HeldTracklets]:
    """Read all tracklets of a gallery, by the hash of the model of their features.

    Args:
        store: Which gallery.
        since_us: Leave out observations last seen before.

    Raises:
        StoreError: The store fails.
    """
    gathered: dict[str, dict[Key, _Gathered]] = {}
    with store.snapshot() as held:
        for piece in held.records():
            for record in piece:
                if record.entry.last_us >= since_us and np.any(record.feature):
                    _gather(gathered.setdefault(record.entry.model_hash, {}), record)
    return {model_hash: _held(model_hash, tracklets) for model_hash, tracklets in sorted(gathered.items())}


def _gather(tracklets: dict[Key, _Gathered], record: Record) -> None:
    known = tracklets.get(record.entry.tracklet)
    if known is None:
        tracklets[record.entry.tracklet] = _Gathered(record)
    else:
        known.add(record)


def tracklet_name(key: Key) -> str:
    """Return the name of a tracklet among sightings."""
    return "/".join(map(str, key))


def _held(model_hash: str, tracklets: dict[Key, _Gathered]) -> HeldTracklets:
    keys = tuple(sorted(tracklets))
    groups = [tracklets[key] for key in keys]
    sightings = Sightings(
        model_hash=model_hash,
        ids=tuple(map(tracklet_name, keys)),
        cameras=tuple(camera for camera, _, _ in keys),
        first_s=np.array([min(one.entry.first_us for one in group.records) for group in groups]) / SECOND_US,
        last_s=np.array([max(one.entry.last_us for one in group.records) for group in groups]) / SECOND_US,
        features=l2_normalised(np.stack([group.newest.feature for group in groups])),
        boxes=tuple(np.array([(r.entry.captured_us / SECOND_US, *r.entry.box) for r in g.records]) for g in groups),
    )
    observations = sum(len(group.records) for group in groups)
    return HeldTracklets(keys, sightings, _parts(groups, sightings.features.shape[1]), observations)


def _parts(groups: Iterable[_Gathered], dim: int) -> Parts:
    pairs = [(half, group.newest) for group in groups if (half := group.half) is not None]
    first, whole = (
        l2_normalised(np.array([pair[place].feature for pair in pairs], np.float32).reshape(-1, dim))
        for place in (0, 1)
    )
    few, many = (np.array([pair[place].entry.crops for pair in pairs], np.int64) for place in (0, 1))
    cameras = tuple(whole_of.entry.camera for _, whole_of in pairs)
    return Parts(first=first, second=separate_parts(first, whole, few, many), cameras=cameras)
