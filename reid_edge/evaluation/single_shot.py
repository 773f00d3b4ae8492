"""Ranking with one gallery image of each person, as in CUHK03's first protocol (Li et al., CVPR 2014).

Others draw the images at random and average over some draws.  Here the mean over all draws is computed exactly: given
the image of the right person, every other person is before it with the share of their images that are, independently
of one another, so the rank has a Poisson binomial distribution.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reid_edge.evaluation.comparison import Block, Ints, Labelled, OnBlock, compare, no_match
from reid_edge.evaluation.ranking import Ranking
from reid_edge.manifest import Distance

_Floats = npt.NDArray[np.float64]


def rank_single_shot(
    query: Labelled,
    gallery: Labelled,
    *,
    distance: Distance = "cosine",
    max_rank: int = 20,
    on_block: OnBlock = lambda _queries: None,
) -> Ranking:
    """CMC and mAP of searches among one image of each person, all of cameras other than the query's.

    There is one correct match, so its average precision and its inverse negative penalty are both 1 / rank.

    Args:
        query: Labelled queries.
        gallery: Labelled gallery without distractors; several images of each person.
        distance: ``cosine`` or ``euclidean``.
        max_rank: Length of ``cmc``, at most the number of people in the gallery.
        on_block: Called with the number of queries done in each block.

    Raises:
        InputError: Shapes that do not fit, or no query with a match by another camera.
    """
    people, person_of = np.unique(gallery.identities, return_inverse=True)
    each: list[_Floats] = []
    for block in compare(query, gallery, distance=distance, rule="other-cameras"):
        for row in range(len(block.scores)):
            before = _shares_before(block, row, person_of, len(people))
            if len(before):
                each.append(_rank_distribution(before).mean(axis=0))
        on_block(len(block.scores))
    if not each:
        raise no_match("other-cameras")
    ranks = np.mean(each, axis=0)
    mean_reciprocal = float(ranks @ (1 / np.arange(1, len(people) + 1)))
    return Ranking(np.cumsum(ranks)[:max_rank], mean_reciprocal, mean_reciprocal, len(each))


def _shares_before(block: Block, row: int, person_of: Ints, people: int) -> _Floats:
    """Return, for each image of the right person, the share of every person's images before it: M×P; its own is 0."""
    counted = np.flatnonzero(block.counted[row])
    order = counted[np.argsort(-block.scores[row][counted], kind="stable")]
    shown = np.zeros((len(order), people))
    shown[np.arange(len(order)), person_of[order]] = 1
    places = np.flatnonzero(block.same[row][order])
    shares: _Floats = np.cumsum(shown, axis=0)[places] / np.maximum(shown.sum(axis=0), 1)
    shares[:, person_of[order[places]]] = 0
    return shares


def _rank_distribution(before: _Floats) -> _Floats:
    """Return the probability of each rank from 1, M×P, from the probability of every person to be before, M×P."""
    ranks = np.zeros_like(before)
    ranks[:, 0] = 1
    for person in range(before.shape[1]):
        share = before[:, person, None]
        if share.any():
            moved = ranks[:, :-1] * share
            ranks *= 1 - share
            ranks[:, 1:] += moved
    return ranks
