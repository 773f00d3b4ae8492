"""Labelled features for the tests of error rates."""

import numpy as np

from reid_edge.evaluation.comparison import Labelled


def angles(people, cameras, degrees):
    """Unit vectors of the plane at these angles, so that the score of a pair is the cosine of their difference."""
    radians = np.deg2rad(degrees)
    features = np.stack([np.cos(radians), np.sin(radians)], axis=1)
    return Labelled(features, np.array(people), np.array(cameras))


def random_pairs(seed):
    """Queries and gallery of people who are alike, with distractors; no two scores are equal."""
    rng = np.random.default_rng(seed)
    people = rng.standard_normal((8, 6))

    def labelled(count, lowest):
        identities = rng.integers(lowest, 8, count)
        features = people[identities] + rng.standard_normal((count, 6))
        features[identities == 0] = rng.standard_normal((np.count_nonzero(identities == 0), 6))
        return Labelled(features, identities, rng.integers(1, 4, count))

    return labelled(30, 1), labelled(90, 0)


def obvious_pairs(query, gallery, distance="cosine"):
    """Query, score and whether it is one person, of each pair that Market-1501's rule counts, in Python loops."""
    for q in range(len(query.features)):
        for g in range(len(gallery.features)):
            same = bool(query.identities[q] == gallery.identities[g])
            if same and query.cameras[q] == gallery.cameras[g]:
                continue
            a, b = query.features[q], gallery.features[g]
            if distance == "cosine":
                yield q, float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)), same
            else:
                yield q, -float(np.sqrt(((a - b) ** 2).sum())), same
