"""Parts of a tracklet: the feature of the crops that came after an earlier feature of the same tracklet.

A camera publishes the mean of all crops so far, at unit length.  The later of two features of a tracklet therefore
holds the crops of the earlier one, too.  The length of a mean of m crops whose mean cosine with one another is ρ is
n(m) = sqrt(ρ + (1 − ρ) / m), and the expected cosine of the two features is n(m₂) / n(m₁), from which ρ is learnt.
What is left of the later one, m₂ n(m₂) f₂ − m₁ n(m₁) f₁, is the sum of the crops in between.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError
from reid_edge.features import l2_normalised
from reid_edge.types import Features

Floats = npt.NDArray[np.float64]


def separate_parts(
    earlier: Features, later: Features, earlier_crops: npt.NDArray[np.integer], later_crops: npt.NDArray[np.integer]
) -> Features:
    """Return the features of the crops that are in the later features and not in the earlier ones.

    Args:
        earlier: P×D float32, unit length.
        later: Of the same P tracklets, with more crops.
        earlier_crops: Number of crops in each.
        later_crops: Likewise, larger.

    Returns:
        P×D float32, unit length.

    Raises:
        InputError: A later feature has no more crops than the earlier one.
    """
    few, many = earlier_crops.astype(np.float64), later_crops.astype(np.float64)
    if not (few > 0).all() or not (few < many).all():
        raise InputError("expected features of at least one crop, and more crops in the later ones.")
    cosines = np.einsum("nd,nd->n", earlier, later)
    alike = _mean_cosine(float(cosines.mean()) if len(cosines) else 1.0, few, many)
    share = few * _length(few, alike) / (many * _length(many, alike))
    parts: Features = l2_normalised((later - share[:, None] * earlier).astype(np.float32))
    return parts


def _length(crops: Floats, alike: float) -> Floats:
    lengths: Floats = np.sqrt(alike + (1 - alike) / crops)
    return lengths


def _mean_cosine(seen: float, few: Floats, many: Floats) -> float:
    """Return ρ at which the expected cosine of the two features is the one that was seen, by bisection."""
    low, high = 1e-3, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        expected = float((_length(many, middle) / _length(few, middle)).mean()) if len(few) else 1.0
        low, high = (middle, high) if expected < seen else (low, middle)
    return (low + high) / 2
