"""Tracklets of one person by camera and time: those in sight near a time are found without looking at all of them."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, KeysView
from operator import itemgetter

from reid_edge.identity.sightings import Sighting

_first_s = itemgetter(0)


class Spans:
    """First sights of tracklets in order, for each camera, with the duration of the longest tracklet there was."""

    def __init__(self) -> None:
        self._starts: dict[str, list[tuple[float, str]]] = {}
        self._longest: dict[str, float] = {}

    @property
    def cameras(self) -> KeysView[str]:
        """The cameras that there are tracklets of."""
        return self._starts.keys()

    def put(self, sighting: Sighting) -> None:
        """Add a tracklet that is not among them."""
        bisect.insort(self._starts.setdefault(sighting.camera, []), (sighting.first_s, sighting.id))
        duration = sighting.last_s - sighting.first_s
        self._longest[sighting.camera] = max(duration, self._longest.get(sighting.camera, duration))

    def drop(self, sighting: Sighting) -> None:
        """Take a tracklet away that is among them."""
        starts = self._starts[sighting.camera]
        del starts[bisect.bisect_left(starts, (sighting.first_s, sighting.id))]
        if not starts:
            del self._starts[sighting.camera], self._longest[sighting.camera]

    def near(self, camera: str, start_s: float, end_s: float) -> Iterator[str]:
        """Yield the ids of tracklets of a camera that may be in sight between two times.

        All that are in sight at any moment of it are among them, and perhaps some that are not.
        """
        starts = self._starts.get(camera, [])
        if starts:
            low = bisect.bisect_left(starts, start_s - self._longest[camera], key=_first_s)
            high = bisect.bisect_right(starts, end_s, key=_first_s)
            for _, name in starts[low:high]:
                yield name
