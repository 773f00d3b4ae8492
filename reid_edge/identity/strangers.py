"""Strangers: how similar a feature is to other people's, so that similarities of all features mean the same.

Some features lie near those of many people.  What a cosine means is told by the cosines that each of the two has with
strangers, in their mean and standard deviation: the mean of both standard scores, as in speaker verification (s-norm:
Shum, Dehak, Dehak and Glass, "Unsupervised speaker adaptation based on the cosine similarity", Odyssey 2010).  A
stranger y of mean μ and covariance Σ has with x the cosine x·y of mean x·μ and variance xᵀΣx.  So no feature of anybody
needs to be kept, and what a similarity means does not depend on the number of tracklets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.errors import InputError
from reid_edge.identity.background import LEAST_TRACKLETS
from reid_edge.types import Feature, Features

Floats = npt.NDArray[np.float64]

#: Axes of the covariance that are kept; along the others the variance is taken to be the same.
AXES = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Strangers:
    """Mean and covariance of the features of a place, most of whom are strangers to any one of them.

    Attributes:
        mean: μ, D float64.
        axes: Directions of largest variance, K×D float64, orthonormal.
        variances: Variance along each, K.
        rest: Variance along any other direction.
        tracklets: Number of tracklets that they were measured on.
    """

    mean: Floats
    axes: Floats
    variances: Floats
    rest: float
    tracklets: int

    def similarity(self, first: Features, second: Features) -> Floats:
        """Return the similarity of row i with row i: standard deviations above the cosines with strangers, N.

        Args:
            first: N×D float32, unit length, centred.
            second: The others, likewise.
        """
        cosines = np.einsum("nd,nd->n", first, second).astype(np.float64)
        scores: Floats = (self._standard(cosines, first) + self._standard(cosines, second)) / 2
        return scores

    def similarity_to(self, query: Feature, features: Features) -> Floats:
        """Return the similarity of a feature, D float32 of unit length, with each of N×D: N."""
        return self.similarity(np.broadcast_to(query, features.shape), features)

    def _standard(self, cosines: Floats, features: Features) -> Floats:
        along = features @ self.axes.T
        squared = along**2
        others = np.maximum(1 - squared.sum(axis=1), 0)
        spread = np.sqrt(squared @ self.variances + self.rest * others)
        standard: Floats = (cosines - features @ self.mean) / np.maximum(spread, 1e-6)
        return standard


def measured_strangers(features: Features) -> Strangers:
    """Measure the mean and covariance of centred features, N×D float32 of unit length.

    Raises:
        InputError: Fewer than 20.
    """
    count, dim = features.shape
    if count < LEAST_TRACKLETS:
        raise InputError(
            f"expected at least {LEAST_TRACKLETS} tracklets to know strangers by, got {count}. Wait for more."
        )
    values = features.astype(np.float64)
    mean = values.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(values, rowvar=False))
    kept = min(AXES, dim)
    rest = float(np.maximum(variances[:-kept], 0).sum() / max(dim - kept, 1))
    return Strangers(
        mean=mean,
        axes=axes[:, ::-1][:, :kept].T.copy(),
        variances=np.maximum(variances[::-1][:kept], 0),
        rest=rest,
        tracklets=count,
    )
