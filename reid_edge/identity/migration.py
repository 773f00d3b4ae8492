"""Bring features of one model into the space of another, by an orthogonal map learnt from crops that both embedded.

The map R minimises Σ‖oᵢR − nᵢ‖² over the pairs (orthogonal Procrustes; Schönemann, Psychometrika 1966): R = UVᵀ, with
UΣVᵀ the singular value decomposition of Σ oᵢᵀnᵢ.  It leaves the cosines of old features among themselves as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reid_edge.errors import PairsError
from reid_edge.features import l2_normalised
from reid_edge.types import Features

#: Fewest pairs: a map has as many directions to learn as a feature has numbers, 512.
MIN_PAIRS = 512
#: Fewest groups of two crops or more that judge a map.
MIN_GROUPS = 20
#: Parts into which the groups are divided: the map that judges one is learnt from the others.
FOLDS = 4
SEED = 0

#: N whole numbers.
Groups = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Features of the same crops by two models.

    Attributes:
        old_hash: The model whose features are stored.
        new_hash: The model that is to replace it.
        old: N×D float32 by the old model.
        new: N×D float32 by the new one, in the same order.
        groups: N; crops with the same number show one person.

    Raises:
        PairsError: One model on both sides, shapes that do not fit, or features that are not finite, or zero.
    """

    old_hash: str
    new_hash: str
    old: Features
    new: Features
    groups: Groups

    def __post_init__(self) -> None:
        if self.old_hash == self.new_hash:
            raise PairsError(f"both features of these pairs are of the model {self.old_hash}: nothing is to be mapped.")
        shapes = self.old.shape, self.new.shape, self.groups.shape
        if self.old.ndim != 2 or shapes[1] != shapes[0] or shapes[2] != shapes[0][:1]:
            raise PairsError(f"expected two features of the same size, and a group, for each crop; got {shapes}.")
        for name, features in (("old", self.old), ("new", self.new)):
            if not np.isfinite(features).all():
                raise PairsError(f"the features of the {name} model hold NaN or infinity; make the pairs again.")
            if not features.any(axis=1).all():
                raise PairsError(f"the {name} model gave a feature of zeros; make the pairs again.")

    def __len__(self) -> int:
        return len(self.old)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Pairs:
        """Return some of the pairs."""
        return replace(self, old=self.old[rows], new=self.new[rows], groups=self.groups[rows])

    def different(self) -> Pairs:
        """Return the pairs, each at unit length and once: the same crop again would count twice."""
        old, new = l2_normalised(self.old), l2_normalised(self.new)
        _, rows = np.unique(np.hstack([old, new]), axis=0, return_index=True)
        rows = np.sort(rows)
        return replace(self, old=old[rows], new=new[rows], groups=self.groups[rows])


def check_enough(pairs: Pairs) -> None:
    """Refuse pairs from which no map can be learnt, or by which none can be judged.

    Raises:
        PairsError: There are too few of them, or of groups of two and more.
    """
    if len(pairs) < MIN_PAIRS:
        raise PairsError(
            f"{len(pairs):,} different pairs are too few to learn a map from: at least {MIN_PAIRS} are needed, and "
            "2,000 are better. Let both models look at more crops: reid-edge gallery pairs"
        )
    _, counts = np.unique(pairs.groups, return_counts=True)
    if (large := int((counts >= 2).sum())) < MIN_GROUPS:
        raise PairsError(
            f"{large} groups of two crops or more are too few to judge a map by: at least {MIN_GROUPS} are needed. "
            "Crops of one person belong into a folder of their own, or take them from a video, whose tracks are groups."
        )


def orthogonal_map(pairs: Pairs) -> Features:
    """Return the orthogonal D×D matrix that takes old features to new ones best.

    Args:
        pairs: Of unit length.
    """
    left, _, right = np.linalg.svd(pairs.old.T.astype(np.float64) @ pairs.new.astype(np.float64))
    found: Features = (left @ right).astype(np.float32)
    return found


def folds(pairs: Pairs) -> Iterator[tuple[Pairs, Pairs]]:
    """Yield pairs to learn from, and others to judge by, of other people; each pair judges once."""
    people = np.unique(pairs.groups)
    parts = np.array_split(np.random.default_rng(SEED).permutation(people), FOLDS)
    for part in parts:
        judges = np.isin(pairs.groups, part)
        yield pairs.take(~judges), pairs.take(judges)
