"""Made-up scenes: people, cameras and times with known answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reid_edge.features import l2_normalised
from reid_edge.identity.sightings import Sightings

MODEL = "a" * 64


@dataclass(frozen=True)
class Scene:
    """Sightings, and the person of each."""

    sightings: Sightings
    people: np.ndarray


def make_scene(
    *, people: int = 30, cameras: int = 3, visits: int = 1, noise: float = 0.25, shift: float = 0.0, seed: int = 0
) -> Scene:
    """Each person passes each camera ``visits`` times, one after another; 64-D features around a direction of each.

    ``noise`` is the length of what differs from one tracklet of a person to the next, ``shift`` that of what all
    features of a camera have in common.
    """
    generator = np.random.default_rng(seed)
    directions = l2_normalised(generator.normal(size=(people, 64)))
    offsets = shift * l2_normalised(generator.normal(size=(cameras, 64)))
    rows = [(who, camera, visit) for visit in range(visits) for camera in range(cameras) for who in range(people)]
    who, camera, _ = np.array(rows).T
    features = directions[who] + noise * l2_normalised(generator.normal(size=(len(rows), 64))) + offsets[camera]
    first = np.arange(len(rows)) * 10.0
    sightings = Sightings(
        model_hash=MODEL,
        ids=tuple(f"t{place:04d}" for place in generator.permutation(len(rows))),
        cameras=tuple(f"camera{number}" for number in camera),
        first_s=first,
        last_s=first + 5,
        features=l2_normalised(features).astype(np.float32),
    )
    return Scene(sightings, who)


def unit(*numbers: float) -> np.ndarray:
    """One feature of unit length, float32."""
    return l2_normalised(np.array([numbers], np.float64))[0].astype(np.float32)


def simple(*features: np.ndarray, cameras: str, times: list[tuple[float, float]], boxes: tuple = ()) -> Sightings:
    """Sightings a, b, c … of the cameras named by one letter each."""
    return Sightings(
        model_hash=MODEL,
        ids=tuple("abcdefghij"[: len(features)]),
        cameras=tuple(cameras),
        first_s=np.array([first for first, _ in times], np.float64),
        last_s=np.array([last for _, last in times], np.float64),
        features=np.stack(features),
        boxes=boxes,
    )


def agreement(found: np.ndarray, people: np.ndarray) -> tuple[int, int]:
    """Numbers of pairs that are joined and should not be, and that should be and are not."""
    joined = found[:, None] == found[None]
    same = people[:, None] == people[None]
    upper = np.triu(np.ones(joined.shape, bool), 1)
    return int((joined & ~same & upper).sum()), int((~joined & same & upper).sum())
