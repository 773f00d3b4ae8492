"""Sightings: the tracklets that people are made of, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reid_edge.errors import ContradictionError, InputError, MixedModelsError
from reid_edge.features import l2_normalised
from reid_edge.types import Feature, Features
from reid_edge.wording import counted

Floats = npt.NDArray[np.float64]
#: M×5 float64: seconds, and x1 y1 x2 y2 as fractions of the frame.
Boxes = npt.NDArray[np.float64]

#: Squared length that a feature may be away from 1: half-precision features are within a thousandth.
LENGTH_TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class Sighting:
    """One feature of a tracklet, as a gallery holds it.

    Attributes:
        id: Name of the tracklet, the same for all of its features.
        camera: Name of the camera.
        model_hash: The model that made the feature.
        first_s: First sight of the tracklet, seconds since 1970 UTC or any other moment.
        last_s: Last sight of it so far.
        feature: D float32, of any length but 0.
        crops: Number of crops that the feature averages.
        boxes: Boxes that are known of it; None: none.
    """

    id: str
    camera: str
    model_hash: str
    first_s: float
    last_s: float
    feature: Feature
    crops: int = 1
    boxes: Boxes | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Sightings:
    """N tracklets of one model, each once.

    Attributes:
        model_hash: The model that made the features.
        ids: N names, each once.
        cameras: N names of cameras.
        first_s: First sight of each, N seconds.
        last_s: Last sight of each, N seconds.
        features: N×D float32, unit length.
        boxes: Boxes that are known of each, N arrays of M×5 (M may be 0 and differ); empty: none are known.

    Raises:
        InputError: Shapes that do not fit, features that are not finite or not of unit length, times that are not
            finite or run backwards.
        ContradictionError: An id that stands twice.
    """

    model_hash: str
    ids: tuple[str, ...]
    cameras: tuple[str, ...]
    first_s: Floats
    last_s: Floats
    features: Features
    boxes: tuple[Boxes, ...] = ()

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_values(self)
        if len(set(self.ids)) != len(self.ids):
            twice = next(name for place, name in enumerate(self.ids) if name in self.ids[:place])
            raise ContradictionError(
                f"the tracklet {twice} stands twice among the sightings; join its features with gathered()."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The cameras, each once, in alphabetical order."""
        return tuple(sorted(set(self.cameras)))

    @property
    def camera_numbers(self) -> npt.NDArray[np.int64]:
        """The place of each tracklet's camera in ``camera_names``: N."""
        places = {name: place for place, name in enumerate(self.camera_names)}
        return np.array([places[camera] for camera in self.cameras], np.int64)

    def taken(self, rows: npt.NDArray[np.integer] | Sequence[int]) -> Sightings:
        """Return the sightings of some rows, in the order given."""
        chosen = [int(row) for row in rows]
        return Sightings(
            model_hash=self.model_hash,
            ids=tuple(self.ids[row] for row in chosen),
            cameras=tuple(self.cameras[row] for row in chosen),
            first_s=self.first_s[chosen],
            last_s=self.last_s[chosen],
            features=self.features[chosen],
            boxes=tuple(self.boxes[row] for row in chosen) if self.boxes else (),
        )

    def order(self) -> npt.NDArray[np.int64]:
        """Return the rows in alphabetical order of their ids, in which results do not depend on the order given."""
        return np.array(sorted(range(len(self)), key=self.ids.__getitem__), np.int64)


def gathered(sightings: Iterable[Sighting]) -> Sightings:
    """Join the features of each tracklet to one sighting.

    A camera publishes a tracklet several times, each time with the mean of more crops: the feature of most crops is
    taken, of the later one if they are equal; the times and boxes are those of all.

    Args:
        sightings: In any order.

    Raises:
        InputError: There is none.
        MixedModelsError: They are of several models.
        ContradictionError: One tracklet is of two cameras.
    """
    tracklets: dict[str, list[Sighting]] = {}
    for sighting in sightings:
        tracklets.setdefault(sighting.id, []).append(sighting)
    if not tracklets:
        raise InputError("expected at least one sighting, got none.")
    models = sorted({one.model_hash for several in tracklets.values() for one in several})
    if len(models) > 1:
        raise MixedModelsError(
            f"features of {len(models)} models cannot be compared: {', '.join(models)}. "
            "Make people of each model's tracklets apart."
        )
    rows = [_best_of(tracklets[name]) for name in sorted(tracklets)]
    several = [tracklets[row.id] for row in rows]
    return Sightings(
        model_hash=models[0],
        ids=tuple(row.id for row in rows),
        cameras=tuple(row.camera for row in rows),
        first_s=np.array([min(one.first_s for one in group) for group in several], np.float64),
        last_s=np.array([max(one.last_s for one in group) for group in several], np.float64),
        features=l2_normalised(np.stack([row.feature for row in rows]).astype(np.float32)),
        boxes=tuple(_boxes_of(group) for group in several),
    )


def joined(known: Sighting, newer: Sighting) -> Sighting:
    """Return one sighting of two of the same tracklet, as :func:`gathered` joins them."""
    best = max(known, newer, key=lambda one: (one.crops, one.last_s))
    boxes = [one.boxes for one in (known, newer) if one.boxes is not None]
    return replace(
        best,
        first_s=min(known.first_s, newer.first_s),
        last_s=max(known.last_s, newer.last_s),
        boxes=np.unique(np.concatenate(boxes), axis=0) if boxes else None,
    )


def _best_of(features: Sequence[Sighting]) -> Sighting:
    cameras = sorted({one.camera for one in features})
    if len(cameras) > 1:
        raise ContradictionError(
            f"the tracklet {features[0].id} is of {' and '.join(cameras)}; a tracklet is of one camera."
        )
    return max(features, key=lambda one: (one.crops, one.last_s))


def _boxes_of(features: Sequence[Sighting]) -> Boxes:
    known = [one.boxes for one in features if one.boxes is not None]
    return np.unique(np.concatenate(known), axis=0) if known else np.empty((0, 5))


def _check_shapes(sightings: Sightings) -> None:
    count = len(sightings.ids)
    shapes = (len(sightings.cameras), *sightings.first_s.shape, *sightings.last_s.shape)
    boxes = len(sightings.boxes) in (0, count) and all(one.ndim == 2 and one.shape[1] == 5 for one in sightings.boxes)
    if sightings.features.ndim != 2 or (*shapes, len(sightings.features)) != (count,) * 4 or not boxes:
        raise InputError(
            f"expected {count} cameras, times and features (N×D), and boxes M×5 of all or none; got {shapes[0]} "
            f"cameras, times {sightings.first_s.shape} and {sightings.last_s.shape}, features "
            f"{sightings.features.shape}, {counted(len(sightings.boxes), 'array')} of boxes."
        )


def _check_values(sightings: Sightings) -> None:
    squares = np.einsum("nd,nd->n", sightings.features, sightings.features)
    if not (np.abs(squares - 1) <= LENGTH_TOLERANCE).all():  # also where one is NaN
        raise InputError(
            "expected features of unit length; scale them with features.l2_normalised, or leave out zeros."
        )
    if not (np.isfinite(sightings.first_s) & np.isfinite(sightings.last_s)).all():
        raise InputError("expected finite times, got NaN or infinity.")
    backwards = np.flatnonzero(sightings.last_s < sightings.first_s)
    if backwards.size:
        raise InputError(f"the tracklet {sightings.ids[backwards[0]]} ends before it begins; check its camera's clock.")
