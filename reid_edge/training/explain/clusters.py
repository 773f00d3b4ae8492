"""Cluster images by their gate weights, with k-means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reid_edge.errors import MissingExtraError, UsageError

try:
    from sklearn.cluster import KMeans
except ModuleNotFoundError as error:
    raise MissingExtraError("scikit-learn", "explain", "clustering gates") from error

Array = npt.NDArray[np.float64]

#: Random starts of k-means, of which the best is taken.
STARTS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """Images with similar gate weights.

    Attributes:
        size: Number of images.
        centre: T×C, their mean gate vectors.
        nearest: Indices of the images nearest to the centre, nearest first.
    """

    size: int
    centre: Array
    nearest: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Clustering:
    """All clusters of a set of images.

    Attributes:
        clusters: The largest first.
        mean: T×C, mean gate vectors of all images.
        deviation: T×C, their standard deviation over the images.
        explained: Share of the gates' variance over the images that lies between the clusters, in [0, 1].
    """

    clusters: tuple[Cluster, ...]
    mean: Array
    deviation: Array
    explained: float

    def overall(self) -> list[tuple[float, float]]:
        """Return each stream's mean weight and root mean square of its channels' deviations, over all images."""
        spreads = np.sqrt((self.deviation**2).mean(1))
        return [(float(mean), float(spread)) for mean, spread in zip(self.mean.mean(1), spreads, strict=True)]

    def difference(self, cluster: Cluster) -> Array:
        """Return T×C: a cluster's mean weights minus those of all images."""
        return cluster.centre - self.mean

    def stream_means(self, cluster: Cluster) -> list[float]:
        """Return each stream's mean weight in a cluster, over its channels."""
        return [float(value) for value in cluster.centre.mean(1)]

    def stream_differences(self, cluster: Cluster) -> list[float]:
        """Return each stream's mean weight in a cluster minus that of all images."""
        return [float(value) for value in self.difference(cluster).mean(1)]


def check_clusters(images: int, clusters: int) -> None:
    """Check that there are at least as many images as clusters.

    Raises:
        UsageError: Fewer images than clusters.
    """
    if images < clusters:
        raise UsageError(
            f"{clusters} clusters need at least as many images, got {images}; give more images, or a lower --clusters."
        )


def cluster_gates(gates: npt.NDArray[np.floating], clusters: int, *, nearest: int, seed: int) -> Clustering:
    """Divide gate vectors by k-means (paper, section 4.1, "Visualisation of unified aggregation gate").

    Args:
        gates: N×T×C; the vectors of the T streams are concatenated, so a point has T·C coordinates.
        clusters: Number of clusters.
        nearest: Most images to list for each cluster.
        seed: Seed of k-means' random starts.

    Raises:
        UsageError: Fewer images, or fewer different gate vectors, than clusters.
    """
    check_clusters(len(gates), clusters)
    points = gates.reshape(len(gates), -1).astype(np.float64)
    if (distinct := len(np.unique(points, axis=0))) < clusters:
        raise UsageError(
            f"{clusters} clusters need as many different gate vectors; these images have {distinct}. Lower --clusters."
        )
    fitted = KMeans(clusters, n_init=STARTS, random_state=seed).fit(points)
    distances = np.linalg.norm(points - fitted.cluster_centers_[fitted.labels_], axis=1)
    variance = float(((points - points.mean(0)) ** 2).sum())
    found = [_cluster(points, fitted.labels_ == one, distances, nearest, gates.shape[1:]) for one in range(clusters)]
    return Clustering(
        clusters=tuple(sorted(found, key=lambda cluster: (-cluster.size, cluster.nearest))),
        mean=gates.mean(0, dtype=np.float64),
        deviation=gates.std(0, dtype=np.float64),
        explained=1 - float(fitted.inertia_) / variance if variance else 0.0,
    )


def _cluster(
    points: Array, members: npt.NDArray[np.bool_], distances: Array, nearest: int, shape: tuple[int, ...]
) -> Cluster:
    indices = np.flatnonzero(members)
    by_distance = indices[np.argsort(distances[indices], kind="stable")]
    return Cluster(
        size=len(indices),
        centre=points[indices].mean(0).reshape(shape),
        nearest=tuple(int(index) for index in by_distance[:nearest]),
    )
