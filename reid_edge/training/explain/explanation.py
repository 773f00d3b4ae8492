"""Explain a network by its gates and activations, and write the explanation as a page or a sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from reid_edge.crops import resize_into
from reid_edge.errors import UsageError
from reid_edge.images import read_image
from reid_edge.osnet.architecture import format_size
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo
from reid_edge.training.explain.activations import check_gated, record_activations
from reid_edge.training.explain.clusters import Clustering, check_clusters, cluster_gates
from reid_edge.types import Image, Size

PRIVACY = (
    "This holds pictures of people. Keep it, pass it on and delete it by the same rules as the images that it was "
    "made from."
)


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Content of an explanation.

    Attributes:
        clusters: Number of clusters of gate vectors; 0: only activation maps.
        nearest: Number of images shown of each cluster.
        maps: Number of images whose activation maps are shown, evenly from all.
        seed: Seed of k-means' random starts.
    """

    clusters: int = 8
    nearest: int = 15
    maps: int = 24
    seed: int = 1

    def __post_init__(self) -> None:
        if self.clusters < 0 or self.nearest < 1 or self.maps < 0:
            raise UsageError(
                f"clusters and maps must be at least 0 and nearest at least 1, "
                f"got {self.clusters}, {self.maps} and {self.nearest}."
            )
        if self.clusters == self.maps == 0:
            raise UsageError("clusters and maps are both 0: nothing would be shown.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Clusters and activation maps of a set of images, to be shown.

    Attributes:
        name: File name of the checkpoint.
        info: Description of the checkpoint.
        sha256: Hash of its weights.
        paths: The N images.
        clustering: Clusters of their gates; None if there are none to show.
        shown: Indices of the M images whose maps are shown.
        maps: M×h×w float32, their activation maps, in that order.
    """

    name: str
    info: CheckpointInfo
    sha256: str
    paths: tuple[Path, ...]
    clustering: Clustering | None
    shown: tuple[int, ...]
    maps: npt.NDArray[np.float32]

    @property
    def title(self) -> str:
        """Name of the network."""
        return f"OSNet ×{self.info.width:g} {self.info.variant}".rstrip()

    @property
    def model(self) -> str:
        """Checkpoint, input size and hash of the network, as text."""
        return f"{self.name}, input {format_size(self.info.size)}, sha256 of the weights {self.sha256[:12]}…"

    def picture_size(self, height: int) -> Size:
        """Return the size, height and width, of a picture with the input's proportions."""
        return height, max(1, round(height * self.info.size[1] / self.info.size[0]))

    def picture(self, index: int, height: int) -> Image:
        """Read an image, resized by the camera's rule to the input's proportions: H×W×3 uint8 BGR.

        Raises:
            FrameError: The file is no longer a readable image.
        """
        out = np.empty((*self.picture_size(height), 3), np.uint8)
        resize_into(read_image(self.paths[index]), out)
        return out

    def stream_names(self) -> list[str]:
        """Name each stream of the last bottleneck by its number and receptive field, in cells."""
        fields = [2 * length + 1 for length in self.info.variant.streams]
        return [f"stream {number}, {field}×{field}" for number, field in enumerate(fields, 1)]


def explain(
    checkpoint: Checkpoint,
    paths: Sequence[Path],
    options: ExplainOptions,
    *,
    name: str,
    on_block: Callable[[int], object] = lambda _count: None,
) -> Explanation:
    """Run images through a network, cluster its gates, and keep activation maps.

    Args:
        checkpoint: Checkpoint of any OSNet.
        paths: N image files, each one crop of a person.
        options: Content of the explanation.
        name: Name of the checkpoint, to be shown.
        on_block: Called with the number of images done since the last call.

    Raises:
        CheckpointMismatchError: The weights do not fit.
        FrameError: A file is not a readable image.
        UsageError: No images, fewer than clusters, or a network without gates while clusters are asked for.
    """
    if not paths:
        raise UsageError("no images were given; give image files, or folders of them.")
    if options.clusters:
        check_gated(checkpoint.info.variant)
        check_clusters(len(paths), options.clusters)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recorded = record_activations(checkpoint.network().to(device), checkpoint.info, paths, on_block)
    clustering = None
    if options.clusters and recorded.gates is not None:
        clustering = cluster_gates(recorded.gates, options.clusters, nearest=options.nearest, seed=options.seed)
    shown = _evenly(len(paths), options.maps)
    return Explanation(
        name=name,
        info=checkpoint.info,
        sha256=checkpoint.sha256,
        paths=tuple(paths),
        clustering=clustering,
        shown=shown,
        maps=recorded.maps[list(shown)],
    )


def _evenly(count: int, wanted: int) -> tuple[int, ...]:
    """Return at most ``wanted`` indices below ``count``, as evenly spaced as whole numbers allow."""
    return tuple(index * count // wanted for index in range(wanted)) if wanted < count else tuple(range(count))


def signed(difference: float) -> str:
    """Format a difference of weights, with a true minus sign, and 0 without a sign."""
    text = f"{difference:+.4f}"
    return "0.0000" if not float(text) else text.replace("-", "−")
