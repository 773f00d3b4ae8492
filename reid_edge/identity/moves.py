"""Cameras that were moved, told from the tracklets alone: since when the mean of a camera's features is another.

The mean before and after each possible moment is compared in units of its standard error, and the moment of the largest
difference taken if that is more than chance explains; then each part is looked at again (binary segmentation:
Vostrikova, "Detecting disorder in multidimensional random processes", Soviet Mathematics Doklady 1981).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from reid_edge.identity.centring import LEAST_FOR_MOVED, Centring, difference_limit, learnt_centring
from reid_edge.identity.sightings import Sightings

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

#: Standard deviations of a normal distribution that the largest of all differences in time exceeds in one camera of a
#: thousand (measured: docs/identity.md).
LARGEST_IN_A_THOUSAND = 4.5
#: Share of the variance of many people's features below which they are one person's (centring.ONE_PERSON_SHARE is 0.4).
ONE_PERSON = 0.45
#: Most moments that are looked at first; of more tracklets, several of a camera count as one moment.
MOST_MOMENTS = 500


def moves(sightings: Sightings) -> dict[str, tuple[float, ...]]:
    """Return when cameras were moved, turned, or their light became another.

    Args:
        sightings: N tracklets.

    Returns:
        By name of the camera, the first sights of the tracklets since which its mean is another, ascending; cameras
        whose mean has not changed, or that have fewer than 20 tracklets on either side, are left out.
    """
    found = {}
    order = sightings.order()
    order = order[np.argsort(sightings.first_s[order], kind="stable")]
    numbers = sightings.camera_numbers[order]
    for place, name in enumerate(sightings.camera_names):
        rows = order[numbers == place]
        times = sightings.first_s[rows]
        changed = times[sorted(_changes(sightings.features[rows]))]
        if moments := tuple(np.unique(changed[changed > times[0]]).tolist()):
            found[name] = moments
    return found


def centring_by_view(sightings: Sightings) -> Centring:
    """Learn what to take off each camera's features, with a mean of its own since each time that it was moved."""
    return learnt_centring(sightings, moves(sightings))


def _changes(features: Floats, first: int = 0) -> Iterator[int]:
    """Yield the rows before which the mean of N×D features in the order of time changes."""
    if len(features) < 2 * LEAST_FOR_MOVED:
        return
    place, over = _largest_change(features)
    if over > 1:
        yield first + place
        yield from _changes(features[:place], first)
        yield from _changes(features[place:], first + place)


def _largest_change(features: Floats) -> tuple[int, float]:
    """Return before which row the mean changes most, and that difference over its limit."""
    limit = difference_limit(features, LARGEST_IN_A_THOUSAND)
    least, most = LEAST_FOR_MOVED, len(features) - LEAST_FOR_MOVED
    step = max(1, len(features) // MOST_MOMENTS)
    place, over = _largest_of(np.arange(least, most + 1, step), features, limit)
    if step > 1:  # the tracklets between two moments, told apart: they would look like a view of their own
        near = np.arange(max(least, place - step + 1), min(most, place + step - 1) + 1)
        place, over = _largest_of(near, features, limit)
    return place, 0.0 if _one_person(features[:place], features[place:]) else over


def _largest_of(after: Rows, features: Floats, limit: float) -> tuple[int, float]:
    """Return after how many rows, of those given, the mean changes most, and that difference over its limit."""
    count = len(features)
    sums = np.add.reduceat(features, np.concatenate([[0], after]), axis=0, dtype=np.float64).cumsum(axis=0)
    total, before = sums[-1], sums[:-1]
    apart = (total - before) / (count - after)[:, None] - before / after[:, None]
    over = (apart**2).sum(axis=1) / (limit * (1 / after + 1 / (count - after)))
    best = int(over.argmax())
    return int(after[best]), float(over[best])


def _one_person(before: Floats, after: Floats) -> bool:
    """Return whether one side differs since it shows one person again and again."""
    variances = [float(part.var(axis=0, ddof=1, dtype=np.float64).sum()) for part in (before, after)]
    return min(variances) < ONE_PERSON * max(variances)
