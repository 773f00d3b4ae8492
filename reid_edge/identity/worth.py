"""How many people a mean of features is worth, whatever other cameras see: so that nobody's feature is kept as a mean.

Of N tracklets of P people, two that are drawn at random (also the same one twice) show one person with probability
1/P_e, where P_e is P if all people have as many (Simpson, "Measurement of diversity", Nature 1949).  Whose tracklets
are whose is not known.  All pairs that are as similar as those of one person may be are counted for one person, so that
the number is rather too small.
"""

from __future__ import annotations

import numpy as np

from reid_edge.features import l2_normalised
from reid_edge.identity.constraints import CannotLink
from reid_edge.identity.sightings import Sightings

#: Pairs of this cosine or more may be of one person, unless people who were seen together tell otherwise.
ONE_PERSON = 0.7
#: Pairs of people seen together from which it is known how similar two people are, and the share of them below it.
LEAST_PAIRS, BELOW = 20, 0.95
#: Of more such pairs, so many are drawn.
MOST_PAIRS = 20_000
#: So many tracklets are compared at most; of more, so many are drawn.
MOST_COMPARED = 2_000


def people_worth(sightings: Sightings, *, enough: float) -> float:
    """Return how many people the mean of one camera's features is worth at least.

    Args:
        sightings: N tracklets of one camera, at least one.
        enough: People who were seen together are looked for only if the features alone do not tell of so many.
    """
    features = l2_normalised(sightings.features.astype(np.float64))
    rows = sightings.order()
    if len(rows) > MOST_COMPARED:
        rows = rows[np.random.default_rng(0).choice(len(rows), MOST_COMPARED, replace=False)]
    cosines = features[rows] @ features[rows].T
    people = 1 / float((cosines >= ONE_PERSON).mean())
    if people >= enough or len(rows) < enough:
        return people
    pairs = CannotLink(sightings).simultaneous_pairs(MOST_PAIRS)
    if len(pairs) < LEAST_PAIRS:
        return people
    two = np.quantile(np.einsum("pd,pd->p", features[pairs[:, 0]], features[pairs[:, 1]]), BELOW)
    return 1 / float((cosines >= max(float(two), ONE_PERSON)).mean())
