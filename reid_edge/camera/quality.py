"""How much a crop is likely to say about a person, from its box and the boxes around it.

Each term is the ranking quality (mAP) that crops keep when they are degraded in one way, as a fraction of what they
have undegraded: people of Market-1501 as queries, features of a network that never saw them
(``benchmarks/gating.md``).  The detector's score and the sharpness of the crop are left out: which of a track's crops
ranks best, they told of one network one way and of another the other way.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
Terms = npt.NDArray[np.float64]
Curve = tuple[tuple[float, ...], tuple[float, ...]]

#: Height of the crop in pixels → mAP kept.
HEIGHT: Curve = ((8, 16, 24, 32, 40, 48, 64), (0.05, 0.34, 0.60, 0.79, 0.90, 0.96, 1.0))
#: Width over height → mAP kept; narrow boxes cut sides off, wide ones legs.
ASPECT: Curve = ((0.15, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 1.0), (0.5, 0.84, 0.92, 0.95, 0.99, 1.0, 0.92, 0.79, 0.47))
#: Fraction that no box in front covers → mAP kept.
VISIBLE: Curve = ((0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), (0.05, 0.15, 0.28, 0.51, 0.77, 0.90, 0.95, 1.0))
#: AP kept by boxes at the frame's edge, on video: how much of the person lies beyond it, nobody can say.
AT_EDGE = 0.6
#: A box is at the edge if it comes so near, as a fraction of the frame.
EDGE = 0.005


def crop_quality(boxes: Boxes, *, width: int, height: int) -> npt.NDArray[np.float32]:
    """Quality of each crop of a frame, 0 to 1; takes about 0.1 ms.

    Args:
        boxes: N×4 x1 y1 x2 y2 in pixels: all boxes of the frame, since they hide one another.
        width: Of the frame, pixels.
        height: Of the frame, pixels.

    Returns:
        N float32.
    """
    sizes = boxes[:, 2:] - boxes[:, :2]
    quality = height_term(sizes) * aspect_term(sizes) * edge_term(boxes, width, height) * visible_term(boxes)
    return np.asarray(quality, np.float32)


def height_term(sizes: Boxes) -> Terms:
    """What crops of these widths and heights (N×2) keep for being small."""
    return np.interp(sizes[:, 1], *HEIGHT)


def aspect_term(sizes: Boxes) -> Terms:
    """What crops of these widths and heights (N×2) keep for being narrow or wide."""
    return np.interp(sizes[:, 0] / np.maximum(sizes[:, 1], 1e-6), *ASPECT)


def edge_term(boxes: Boxes, width: int, height: int) -> Terms:
    """What boxes keep for lying at the frame's edge."""
    near = np.array([width, height]) * EDGE
    at_edge = (boxes[:, :2] <= near) | (boxes[:, 2:] >= np.array([width, height]) - near)
    return np.where(at_edge.any(axis=1), AT_EDGE, 1.0)


def visible_term(boxes: Boxes) -> Terms:
    """What boxes keep for being covered; in front is the box that reaches lower in the picture, hence is nearer."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=2)
    in_front = boxes[None, :, 3] > boxes[:, None, 3]
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-6)
    covered = (overlap * in_front).max(axis=1, initial=0) / area
    kept: Terms = np.interp(1 - covered, *VISIBLE)
    return kept
