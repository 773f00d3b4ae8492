"""Features of tracklets: the mean over the images of each, as a camera publishes it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError
from reid_edge.evaluation.comparison import Ints, Labelled
from reid_edge.features import l2_normalised


def averaged(labelled: Labelled, tracklets: Ints, *, unit: bool) -> Labelled:
    """Average the features of each tracklet.

    Args:
        labelled: N images.
        tracklets: N whole numbers, the same for images of one tracklet, also in queries and gallery.
        unit: Scale the means to unit length, as the model does with the features of its images.

    Returns:
        A row for each tracklet, in order of number, which takes the place of ``images``: where a query must not find
        itself, it must not find its tracklet.

    Raises:
        InputError: The images of a tracklet show several people or are of several cameras.
    """
    numbers, first, rows, counts = np.unique(tracklets, return_index=True, return_inverse=True, return_counts=True)
    for name, labels in (("people", labelled.identities), ("cameras", labelled.cameras)):
        if (other := np.flatnonzero(labels != labels[first][rows])).size:
            raise InputError(
                f"tracklet {tracklets[other[0]]} is of several {name}: {labels[first][rows][other[0]]} and "
                f"{labels[other[0]]}. A tracklet is one person in one camera."
            )
    sums = np.zeros((len(numbers), labelled.features.shape[1]))
    np.add.at(sums, rows, labelled.features)
    means: npt.NDArray[np.float64] = sums / counts[:, None]
    if unit:
        means = l2_normalised(means)
    return Labelled(means, labelled.identities[first], labelled.cameras[first], numbers)
