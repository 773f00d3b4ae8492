"""Quality of attribute recognition (several yes-or-no labels an image), in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError


@dataclass(frozen=True, kw_only=True)
class AttributeQuality:
    """Figures of the PA-100K protocol (Liu et al., ICCV 2017, section 5.1, after RAP, Li et al., 2016); all in [0, 1].

    Attributes:
        mean_accuracy: mA: mean over attributes of ``balanced``.
        accuracy: Mean over images of |found ∩ true| / |found ∪ true|.
        precision: Mean over images of |found ∩ true| / |found|.
        recall: Mean over images of |found ∩ true| / |true|.
        f1: 2 · precision · recall / (precision + recall), of the two means.
        balanced: A, each attribute's mean of the shares of positives and of negatives that are right.
    """

    mean_accuracy: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    balanced: npt.NDArray[np.float64]


def attribute_quality(found: npt.ArrayLike, true: npt.ArrayLike) -> AttributeQuality:
    """Compare found attributes with the true ones.

    Where a figure would be 0/0: an attribute that all images have, or none has, is judged by the share that exists;
    an image for which nothing was found has precision 0, and one that has no attribute recall 0, unless both hold:
    then nothing was missed and its accuracy, precision and recall are 1.

    Args:
        found: N×A of 0 and 1, or booleans (logits > 0).
        true: N×A, likewise.

    Raises:
        InputError: Not two N×A arrays of one shape with at least one image and attribute, or a value but 0 and 1.
    """
    found, true = _flags(found, "found"), _flags(true, "true")
    if found.shape != true.shape:
        raise InputError(f"expected found and true attributes of one shape N×A, got {found.shape} and {true.shape}.")
    balanced = _balanced(found, true)
    both, either = (found & true).sum(1), (found | true).sum(1)
    precision = float(_shares(both, found.sum(1), either).mean())
    recall = float(_shares(both, true.sum(1), either).mean())
    return AttributeQuality(
        mean_accuracy=float(balanced.mean()),
        accuracy=float(_shares(both, either, either).mean()),
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        balanced=balanced,
    )


def _flags(values: npt.ArrayLike, what: str) -> npt.NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 2 or not array.size:
        raise InputError(f"{what} attributes: expected N×A with at least one of each, got shape {array.shape}.")
    if not np.isin(array, (0, 1)).all():
        raise InputError(f"{what} attributes: expected 0 and 1 only (or booleans); threshold the scores first.")
    return array.astype(np.bool_)


def _balanced(found: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    positives = true.sum(0)
    negatives = len(true) - positives
    found_share = (found & true).sum(0) / np.maximum(positives, 1)
    spared_share = (~found & ~true).sum(0) / np.maximum(negatives, 1)
    balanced: npt.NDArray[np.float64] = (found_share + spared_share) / ((positives > 0).astype(int) + (negatives > 0))
    return balanced


def _shares(
    both: npt.NDArray[np.int_], of: npt.NDArray[np.int_], either: npt.NDArray[np.int_]
) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = np.where(either == 0, 1.0, both / np.maximum(of, 1))
    return shares
