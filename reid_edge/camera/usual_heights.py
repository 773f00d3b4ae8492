"""Learn how high people are in each part of the picture: a still camera sees all of them there at about one size."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

Heights = dict[int, tuple[float, int]]

#: Number of bands of equal height into which the frame is divided.
_BANDS = 12
#: Smallest number of a track's boxes that tell its height in a band, and the number that is remembered.
_LEAST, _MOST = 2, 32
#: Number of other tracks that must have been seen in a place before they tell how high people are there.
ENOUGH = 3
#: Number of tracks that are remembered, the last ones.
_REMEMBERED = 64


class TrackHeights:
    """Heights of one track's boxes, by the band in which their lower edge lies."""

    def __init__(self) -> None:
        self._bands: dict[int, deque[float]] = {}

    def add(self, box: npt.NDArray[np.float32], frame_height: int) -> None:
        """Add a box, x1 y1 x2 y2 in pixels, that does not lie at the edge of the frame."""
        band = min(_BANDS - 1, max(0, int(box[3] / frame_height * _BANDS)))
        self._bands.setdefault(band, deque(maxlen=_MOST)).append(float(box[3] - box[1]) / frame_height)

    def medians(self) -> Heights:
        """Return the median height, as a fraction of the frame's, and the number of boxes, for each band."""
        return {
            band: (float(np.median(heights)), len(heights))
            for band, heights in self._bands.items()
            if len(heights) >= _LEAST
        }


class UsualHeights:
    """Remembers the heights of the last tracks, and compares others with them."""

    def __init__(self) -> None:
        self._tracks: deque[Heights] = deque(maxlen=_REMEMBERED)

    def add(self, heights: Heights) -> None:
        """Remember a track."""
        if heights:
            self._tracks.append(heights)

    def ratio(self, heights: Heights) -> float | None:
        """Return how high a track is, as a multiple of the other tracks' height in its place.

        Args:
            heights: Of the track; if it is remembered (the same object), it is not compared with itself.

        Returns:
            Median over the track's boxes; None if too few others were seen where it was.
        """
        others = [other for other in self._tracks if other is not heights]
        ratios, boxes = [], []
        for band, (height, count) in heights.items():
            near = [[other[each][0] for each in (band - 1, band, band + 1) if each in other] for other in others]
            if sum(map(bool, near)) >= ENOUGH:
                ratios.append(height / float(np.median(np.concatenate(near))))
                boxes.append(count)
        if not ratios:
            return None
        order = np.argsort(ratios)
        upto = np.cumsum(np.array(boxes)[order])
        return float(ratios[order[np.searchsorted(upto, upto[-1] / 2)]])
