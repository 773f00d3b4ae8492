"""Do the people found agree with the true ones? False merges apart from false splits, and the metrics of tracking.

* IDF1: Ristani et al., "Performance measures and a data set for multi-target, multi-camera tracking", ECCV workshops
  2016, section 2.4: each true person is paired with at most one person found, so that the pairs share as many tracklets
  as possible (IDTP).
* HOTA: Luiten et al., "HOTA: a higher order metric for evaluating multi-object tracking", IJCV 2021, equations 7 and
  8.  Both sides have the same tracklets, so a tracklet is where it should be, or missing, and the mean over thresholds
  of localisation is the value at any.

A person is one over all cameras.  Each tracklet counts once, or each row where rows are moments of tracklets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from reid_edge.errors import InputError

Ints = npt.NDArray[np.integer]

#: Number of the person of a tracklet that is nobody's (true) or is not there (found).
NOBODY = -1


@dataclass(frozen=True, kw_only=True)
class PeopleQuality:
    """How well people found agree with true ones; shares are in [0, 1].

    Attributes:
        tracklets: Tracklets that are judged.
        people: True people.
        found: People found, also of one tracklet.
        missing: Tracklets of true people that were not found at all.
        false_merges: Pairs of tracklets of two people that were said to be one.
        false_splits: Pairs of tracklets of one person that were said to be two.
        right_pairs: Pairs of one person that were said to be one.
        assigned: Tracklets that share the person found with another.
        with_wrong_person: Those of them that are not of the person whom most tracklets of the one found are of; all of
            them, where no two are of one person.
        idf1: 2 IDTP / (tracklets of true people + tracklets found).
        identity_precision: IDTP / tracklets found (IDP).
        identity_recall: IDTP / tracklets of true people (IDR).
        hota: √(DetA · AssA).
        detection_accuracy: DetA: share of the tracklets that are on both sides.
        association_accuracy: AssA: mean over the tracklets c on both sides of TPA / (TPA + FNA + FPA), of the tracklets
            that have c's true person, c's person found, or both.
    """

    tracklets: int
    people: int
    found: int
    missing: int
    false_merges: int
    false_splits: int
    right_pairs: int
    assigned: int
    with_wrong_person: int
    idf1: float
    identity_precision: float
    identity_recall: float
    hota: float
    detection_accuracy: float
    association_accuracy: float

    @property
    def pair_precision(self) -> float:
        """Share of the pairs said to be one person that are; 1 where none is said to be."""
        return _share(self.right_pairs, self.right_pairs + self.false_merges, otherwise=1.0)

    @property
    def pair_recall(self) -> float:
        """Share of the pairs of one person that were said to be; 1 where there is none."""
        return _share(self.right_pairs, self.right_pairs + self.false_splits, otherwise=1.0)

    @property
    def pair_f1(self) -> float:
        """2 · precision · recall / (precision + recall) of pairs."""
        return _share(2 * self.right_pairs, 2 * self.right_pairs + self.false_merges + self.false_splits, otherwise=1.0)

    @property
    def unassigned(self) -> float:
        """Share of the tracklets that share their person with no other."""
        return 1 - self.assigned / self.tracklets

    @property
    def wrong_share(self) -> float:
        """Share of the assigned tracklets that are with a wrong person; 0 where none is assigned."""
        return _share(self.with_wrong_person, self.assigned, otherwise=0.0)


def people_quality(found: Ints, true: Ints) -> PeopleQuality:
    """Compare people found with true ones.

    Args:
        found: Number of each tracklet's person, N whole numbers; −1: the tracklet was not found.
        true: Number of its true person, N; −1: it is nobody, a false detection.

    Raises:
        InputError: Not N numbers each, or no tracklet of a true person.
    """
    if found.ndim != 1 or found.shape != true.shape or not (true >= 0).any():
        raise InputError(
            f"expected a person found and a true one for each of N tracklets, and at least one true person; got "
            f"{found.shape} and {true.shape}."
        )
    both = (found >= 0) & (true >= 0)
    groups, of_found = _sizes(found)
    people, of_true = _sizes(true)
    places = (np.searchsorted(people, true[both]), np.searchsorted(groups, found[both]))
    table = csr_matrix((np.ones(int(both.sum()), np.int64), places), shape=(len(people), len(groups)))
    table.sum_duplicates()
    rows, columns = table.nonzero()
    shared = table.data.astype(np.int64)
    right = _pairs(shared)
    identified = _most_shared(table)
    among = shared / (of_true[rows] + of_found[columns] - shared)
    tracklets = int(((found >= 0) | (true >= 0)).sum())
    association = _share(float((shared * among).sum()), int(both.sum()), otherwise=0.0)
    detection = int(both.sum()) / tracklets
    assigned, wrong = _with_wrong_person(table, of_found)
    return PeopleQuality(
        tracklets=tracklets,
        people=len(people),
        found=len(groups),
        missing=int((found < 0).sum()),
        false_merges=_pairs(of_found) - right,
        false_splits=_pairs(of_true) - right,
        right_pairs=right,
        assigned=assigned,
        with_wrong_person=wrong,
        idf1=2 * identified / int(of_true.sum() + of_found.sum()),
        identity_precision=_share(identified, int(of_found.sum()), otherwise=0.0),
        identity_recall=identified / int(of_true.sum()),
        hota=math.sqrt(detection * association),
        detection_accuracy=detection,
        association_accuracy=association,
    )


def _sizes(numbers: Ints) -> tuple[Ints, Ints]:
    """Return the people, and the number of tracklets of each."""
    people, sizes = np.unique(numbers[numbers >= 0], return_counts=True)
    return people, sizes


def _pairs(sizes: Ints) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _share(part: float, whole: float, *, otherwise: float) -> float:
    return part / whole if whole else otherwise


def _most_shared(table: csr_matrix) -> int:
    """Return the largest number of tracklets that one-to-one pairs of true people and people found can share."""
    people, groups = table.shape
    graph = csr_matrix((people + groups, people + groups), dtype=np.int64)
    rows, columns = table.nonzero()
    graph = csr_matrix((table.data, (rows, people + columns)), shape=graph.shape)
    _, parts = connected_components(graph, directed=False)
    order = np.argsort(parts[rows], kind="stable")
    ends = np.flatnonzero(np.diff(parts[rows][order])) + 1
    total = 0
    for part in np.split(order, ends):  # apart, so that no table of all people is needed
        _, row = np.unique(rows[part], return_inverse=True)
        _, column = np.unique(columns[part], return_inverse=True)
        counts = np.zeros((row.max(initial=-1) + 1, column.max(initial=-1) + 1), np.int64)
        counts[row, column] = table.data[part]
        total += int(counts[linear_sum_assignment(counts, maximize=True)].sum())
    return total


def _with_wrong_person(table: csr_matrix, of_found: Ints) -> tuple[int, int]:
    """Return the numbers of tracklets that share their person found, and of those with a wrong one."""
    most = np.asarray(table.max(axis=0).todense()).ravel() if table.shape[0] else np.zeros(len(of_found), np.int64)
    shared = of_found > 1
    right = np.where(most > 1, most, 0)
    return int(of_found[shared].sum()), int((of_found - right)[shared].sum())
