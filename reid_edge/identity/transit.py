"""Times between cameras, as a file states them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reid_edge.errors import SettingsError
from reid_edge.identity.sightings import Sighting, Sightings
from reid_edge.settings import read_settings

Floats = npt.NDArray[np.float64]
GUIDE = "docs/identity.md"

#: By how much the clocks of two cameras may differ, seconds.
CLOCK_TOLERANCE_S = 2.0
#: Matches of a pair of cameras from which stated times can be doubted, and the share of them that contradicts.
LEAST_FOR_DOUBT, DOUBTFUL_SHARE = 10, 0.5


@dataclass(frozen=True, kw_only=True)
class StatedTransits:
    """Shortest times between cameras, by unordered pair of names.

    Attributes:
        shortest_s: Seconds from leaving the view of one to entering that of the other; 0: their views overlap.
        tolerance_s: By how much the clocks may differ.
    """

    shortest_s: dict[tuple[str, str], float]
    tolerance_s: float = CLOCK_TOLERANCE_S

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras between which times are stated, in alphabetical order."""
        return tuple(sorted({name for pair in self.shortest_s for name in pair}))

    def shortest_between(self, names: tuple[str, ...]) -> Floats:
        """Return the shortest times between cameras less the tolerance, −inf where none is stated: C×C."""
        times = np.full((len(names), len(names)), -np.inf)
        for one, first in enumerate(names):
            for other, second in enumerate(names):
                least = self.least_gap_s(first, second)
                if least is not None:
                    times[one, other] = least
        return times

    def least_gap_s(self, first: str, second: str) -> float | None:
        """Return the shortest time between two cameras less the tolerance; None: of one camera, or none is stated."""
        stated = self.shortest_s.get((min(first, second), max(first, second)), 0.0)
        return stated - self.tolerance_s if first != second and stated > 0 else None

    def too_fast(self, first: Sighting, second: Sighting) -> bool:
        """Return whether nobody gets from one tracklet's camera to the other's in the time between them."""
        least = self.least_gap_s(first.camera, second.camera)
        return least is not None and max(first.first_s - second.last_s, second.first_s - first.last_s) < least


def read_transits(path: Path) -> StatedTransits:
    """Read the times between cameras from a TOML file.

    Each table ``[[transit]]`` has ``cameras``, two names, and ``shortest_s``; ``clock_tolerance_s`` stands at the top.

    Raises:
        SettingsError: The file cannot be read, or a key is not what it should be.
    """
    tables = read_settings(path, guide=GUIDE)
    unknown = sorted(set(tables) - {"transit", "clock_tolerance_s"})
    if unknown:
        raise SettingsError(f"{path}: expected [[transit]] and clock_tolerance_s, got {unknown[0]}. See {GUIDE}.")
    tolerance = _seconds(path, "clock_tolerance_s", tables.get("clock_tolerance_s", CLOCK_TOLERANCE_S))
    rows = tables.get("transit", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SettingsError(f"{path}: expected tables [[transit]]. See {GUIDE}.")
    shortest: dict[tuple[str, str], float] = {}
    for row in rows:
        pair = _pair(path, row)
        if pair in shortest:
            raise SettingsError(f"{path}: the time between {pair[0]} and {pair[1]} stands twice; leave out one.")
        shortest[pair] = _seconds(path, "transit.shortest_s", row.get("shortest_s"))
    return StatedTransits(shortest_s=shortest, tolerance_s=tolerance)


def _pair(path: Path, row: dict[str, object]) -> tuple[str, str]:
    cameras = row.get("cameras")
    if set(row) != {"cameras", "shortest_s"}:
        raise SettingsError(f"{path}: expected cameras and shortest_s in [[transit]], got {', '.join(sorted(row))}.")
    if not isinstance(cameras, list) or len(cameras) != 2 or not all(isinstance(name, str) for name in cameras):
        raise SettingsError(f"{path}: expected two names in transit.cameras, got {cameras!r}.")
    first, second = sorted(cameras)
    if first == second:
        raise SettingsError(f"{path}: transit.cameras names {first} twice; name two cameras.")
    return first, second


def _seconds(path: Path, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise SettingsError(f"{path}: expected seconds of 0 or more for {key}, got {value!r}.")
    return float(value)


def doubtful_pairs(
    transits: StatedTransits, sightings: Sightings, matches: npt.NDArray[np.integer]
) -> tuple[tuple[str, str], ...]:
    """Return the pairs of cameras whose stated time confident matches contradict: a wrong file, or wrong clocks.

    Args:
        transits: What was stated.
        sightings: N tracklets.
        matches: P×2 rows of tracklets that are surely one person by their features alone.

    Returns:
        Pairs of which half or more of at least ten matches are faster than stated, in alphabetical order.
    """
    seen: dict[tuple[str, str], list[bool]] = {}
    for one, other in matches:
        first, second = sorted((sightings.cameras[one], sightings.cameras[other]))
        shortest = transits.shortest_s.get((first, second), 0.0)
        if shortest > 0:
            gap = _gap(sightings, int(one), int(other))
            seen.setdefault((first, second), []).append(gap < shortest - transits.tolerance_s)
    return tuple(
        pair for pair in sorted(seen) if len(seen[pair]) >= LEAST_FOR_DOUBT and np.mean(seen[pair]) >= DOUBTFUL_SHARE
    )


def _gap(sightings: Sightings, one: int, other: int) -> float:
    """Return the time that neither was in sight between two tracklets, negative if they overlap."""
    return float(
        max(
            sightings.first_s[one] - sightings.last_s[other],
            sightings.first_s[other] - sightings.last_s[one],
        )
    )
