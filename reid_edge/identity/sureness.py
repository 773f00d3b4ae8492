"""Which relative similarity is enough for people: about one assigned tracklet in a hundred may be with a wrong person.

How many tracklets of a gallery a stranger comes near to is much the same everywhere, and does not grow with the
gallery, once similarity is relative to strangers.  How many a second tracklet of their person comes near to is not: a
model that knows the place finds nearly all, one that does not finds few.  Among few matches a larger share are
strangers, so the limit has to be higher.  The limit is the lowest at which strangers are
expected to be one in a hundred of those who reach it (Benjamini and Hochberg, "Controlling the false discovery rate",
JRSS B 1995; Efron, "Large-scale inference", 2010, chapter 4).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: What tracklets of one camera have to be more similar than those of two cameras, in spreads: pose and background are
#: the same, so strangers reach a high similarity as often as strangers of two cameras reach one lower by so much.
SAME_CAMERA = 0.75
#: Share of the assigned tracklets that may be with a wrong person.
WRONG_SHARE = 0.01
#: Number of tracklets, of however many, to which a stranger comes as near as ``AT``.
STRANGERS, AT = 1.2, 2.25
#: Differences in similarity by which that number changes by the factor e, below and above ``AT`` (docs/identity.md).
SCALE_BELOW, SCALE_ABOVE = 0.3, 0.4
#: The limit is never lower.
LOWEST = 1.75


def expected_strangers(similarity: Floats) -> Floats:
    """Return the number of tracklets to which a stranger is expected to come at least so near, relative similarity."""
    scale = np.where(similarity < AT, SCALE_BELOW, SCALE_ABOVE)
    expected: Floats = STRANGERS * np.exp((AT - similarity) / scale)
    return expected


def sure_limit(nearest: Floats) -> float:
    """Return the lowest relative similarity at which at most one in a hundred matches is expected to be a stranger.

    Args:
        nearest: Relative similarity of each of N tracklets to its nearest other, N; −inf where there is none.

    Returns:
        The limit; infinite if the matches are too few at every similarity.
    """
    ranked = np.sort(nearest[np.isfinite(nearest)])[::-1]
    allowed = WRONG_SHARE * np.arange(1, len(ranked) + 1)
    enough = np.flatnonzero(expected_strangers(ranked) <= allowed)
    if not len(enough):
        return np.inf
    height = np.log(STRANGERS / allowed[enough[-1]])  # where so many strangers are expected as are allowed
    return float(max(LOWEST, AT + height * (SCALE_ABOVE if height > 0 else SCALE_BELOW)))
