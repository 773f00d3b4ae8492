"""Which relative similarity is enough for people: about one assigned tracklet in a hundred may be with a wrong person.

How many tracklets of a gallery a stranger comes near to is much the same in galleries of one size; in larger ones the
strangers most like a tracklet are nearer to it, so that fewer come nearer still.  How many a second tracklet of their
person comes near to differs: a model that knows the place finds nearly all, one that does not finds few.  Among few
matches a larger share are strangers, so the limit has to be higher.  The limit is the lowest at which strangers are
expected to be one in a hundred of those who reach it (Benjamini and Hochberg, "Controlling the false discovery rate",
JRSS B 1995; Efron, "Large-scale inference", 2010, chapter 4), and fewer of few: in one gallery a pair of look-alikes
can be most of a handful of matches.
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
#: Matches by which that share is halved.
FEW = 10
#: Number of tracklets to which a stranger comes as near as ``AT``, the lowest limit (docs/identity.md).
STRANGERS, AT = 16.0, 1.75
#: Number of tracklets in a gallery at which that number falls to 1/e with each 1.0 of similarity; of eight times as
#: many with each 0.5.
AT_UNIT = 20
#: Lowest limit for one tracklet at a time: higher than for all at once, since an early error draws others after it.
LOWEST_AT_ONCE = 3.25
#: Share of the tracklets that are expected to have a match, where it is not known.
USUAL_MATCHES = 0.1


def expected_strangers(similarity: Floats, tracklets: int, strangers: float = 1.0) -> Floats:
    """Return the number of tracklets to which a stranger is expected to come at least so near.

    Args:
        similarity: Relative similarities.
        tracklets: Number of tracklets that are compared with one another.
        strangers: How many times more strangers there are than usual.
    """
    expected: Floats = strangers * STRANGERS * np.exp((AT - similarity) / _scale(tracklets))
    return expected


def more_strangers(one: int, two: int) -> float:
    """Return how many times more strangers than usual labelled pairs show that reach the limit: at least 1.

    The number is that of a gamma distribution of mean 1 and shape 1 after ``two`` strangers where one in a hundred
    pairs was expected (Gelman et al., "Bayesian data analysis", 2013, section 2.6).

    Args:
        one: Pairs of one person that reach the limit.
        two: Pairs of two people that do.
    """
    return max(1.0, (1 + two) / (1 + WRONG_SHARE * (one + two)))


def allowed_strangers(matches: Floats) -> Floats:
    """Return how many strangers there may be among so many matches."""
    allowed: Floats = WRONG_SHARE * matches**2 / (matches + FEW)
    return allowed


def sure_limit(nearest: Floats, strangers: float = 1.0) -> float:
    """Return the lowest relative similarity at which at most one in a hundred matches is expected to be a stranger.

    Args:
        nearest: Relative similarity of each of N tracklets to its nearest other, N; −inf where there is none.
        strangers: How many times more strangers there are than usual.

    Returns:
        The limit; infinite if the matches are too few at every similarity.
    """
    ranked = np.sort(nearest[np.isfinite(nearest)])[::-1]
    allowed = allowed_strangers(np.arange(1.0, len(ranked) + 1))
    enough = np.flatnonzero(expected_strangers(ranked, len(ranked), strangers) <= allowed)
    return _reached_by(float(allowed[enough[-1]]) / strangers, len(ranked)) if len(enough) else np.inf


def sure_at_once(tracklets: int, strangers: float = 1.0) -> float:
    """Return the relative similarity that is enough for a tracklet that comes alone.

    Args:
        tracklets: Number of tracklets that similarities are relative to.
        strangers: How many times more strangers there are than usual.
    """
    usual = max(LOWEST_AT_ONCE, _reached_by(WRONG_SHARE * USUAL_MATCHES * max(tracklets, 1), tracklets))
    return float(usual + _scale(tracklets) * np.log(strangers))


def _reached_by(strangers: float, tracklets: int) -> float:
    """Return the similarity, at least ``AT``, which so many strangers are usually expected to reach."""
    return float(AT + _scale(tracklets) * max(0.0, np.log(STRANGERS / strangers)))


def _scale(tracklets: int) -> float:
    return float((AT_UNIT / max(tracklets, 1)) ** (1 / 3))
