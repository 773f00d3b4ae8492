"""Adapt a checkpoint to a place: batch-norm statistics of its own crops, which need no labels.

The weights stay as they are; the means and variances that batch norm subtracts and divides by become those of the
place (AdaBN: Li et al., ICLR 2017 workshop, arXiv 1603.04779).  A crop serves to compute them, and is not kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from reid_edge.crops import normalised
from reid_edge.errors import AdaptationError
from reid_edge.features import l2_normalised, row_cosines
from reid_edge.osnet.checkpoint import Adaptation, Checkpoint
from reid_edge.osnet.network import OSNet
from reid_edge.progress import Notify, silent
from reid_edge.types import Features, Image

#: Fewest different crops; fewer do harm, or do not help (docs/identity.md).
MIN_CROPS = 128
#: More crops than this change nothing that can be measured.
MAX_CROPS = 2048
#: Crops whose statistics are computed together.
BATCH = 64
#: Batches whose features are compared before and after.
COMPARED = 2
SEED = 0
#: Root mean square difference of two crops' pixels, 0 to 255, under which they are almost one picture, and batch norm
#: would blow up what little they differ by.  Those of Market-1501 differ by 71.
LEAST_DIFFERENCE = 10.0

_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


@dataclass(frozen=True, kw_only=True)
class MovedLayer:
    """Change of the statistics of one batch norm.

    Attributes:
        name: Name of the layer.
        mean: Root mean square over its channels of the mean's change, in standard deviations as they were.
        spread: Geometric mean over its channels of the new standard deviation as a fraction of the old one.

    Standard deviations are those that batch norm divides by, epsilon included: that of a channel which is always near
    0 hardly moves.
    """

    name: str
    mean: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A checkpoint with the statistics of a place, and what changed.

    Attributes:
        checkpoint: The new one; its hash is another, and its figures are unknown.
        layers: Changes, in the order of the network.
        cosine: Mean cosine similarity of the new and the old feature of the same crop, of up to 128 crops.
        similarity: Mean cosine similarity of two different crops, before and after.
    """

    checkpoint: Checkpoint
    layers: tuple[MovedLayer, ...]
    cosine: float
    similarity: tuple[float, float]


def different_crops(crops: Sequence[Image]) -> list[Image]:
    """Leave out crops that are the same pixels as an earlier one."""
    return list({hashlib.sha256(crop.tobytes()).digest(): crop for crop in crops}.values())


def check_crops(count: int, *, of_videos: bool = False) -> None:
    """Refuse too few crops.

    Raises:
        AdaptationError: There are fewer than are needed.
    """
    if count < MIN_CROPS:
        more = "a longer video, or several (--source again)" if of_videos else "more pictures of this place"
        raise AdaptationError(
            f"{count} different crops are too few to tell what people look like here: at least {MIN_CROPS} are needed. "
            f"Give {more}; the checkpoint that there is works as before."
        )


def adapt(checkpoint: Checkpoint, crops: Image, about: Adaptation, notify: Notify = silent) -> Adapted:
    """Give a checkpoint the batch-norm statistics of a place.

    Args:
        checkpoint: Any width and variant; instance norms, which have no statistics, stay as they are.
        crops: N×H×W×3 uint8, BGR, of the checkpoint's input size, each different from the others.
        about: Origin of the crops, for the new checkpoint's metadata; ``checkpoint_sha256`` and ``crops`` are set here.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.

    Raises:
        AdaptationError: Too few crops, or crops that are almost one picture.
    """
    check_crops(len(crops))
    _check_variety(crops)
    network = checkpoint.network()
    norms = batch_norms(network)
    batches = _batches(len(crops))
    compared = batches[:COMPARED]
    step = notify("computing this place's statistics", len(batches) + 2 * len(compared))
    before = _features(network, checkpoint, crops, compared, step)
    old = {name: (_mean(norm).clone(), _variance(norm).clone()) for name, norm in norms.items()}
    _learn(network, norms, checkpoint, crops, batches, step)
    after = _features(network, checkpoint, crops, compared, step)
    info = checkpoint.info
    done = replace(about, checkpoint_sha256=checkpoint.sha256, crops=len(crops))
    state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
    return Adapted(
        checkpoint=Checkpoint(replace(info, metrics={}, adaptations=(*info.adaptations, done)), state, checkpoint.head),
        layers=tuple(_moved(name, norm, *old[name]) for name, norm in norms.items()),
        cosine=float(row_cosines(before, after).mean()),
        similarity=(_mean_similarity(before), _mean_similarity(after)),
    )


def batch_norms(network: OSNet) -> dict[str, _BatchNorm]:
    """Return a network's batch norms by their names."""
    return {name: each for name, each in network.named_modules() if isinstance(each, _BatchNorm)}


def _batches(count: int) -> list[np.ndarray[tuple[int], np.dtype[np.intp]]]:
    """Shuffle rows, so that a batch holds many people and cameras, and divide them into batches of almost one size."""
    order = np.random.default_rng(SEED).permutation(count)
    return np.array_split(order, math.ceil(count / BATCH))


@torch.no_grad()
def _learn(
    network: OSNet,
    norms: dict[str, _BatchNorm],
    checkpoint: Checkpoint,
    crops: Image,
    batches: list[np.ndarray[tuple[int], np.dtype[np.intp]]],
    step: Callable[..., object],
) -> None:
    """Replace the statistics of all batch norms by the mean over batches of those that the batches have.

    A batch norm normalises by its batch meanwhile, so the layers after it see what they will see once it is adapted.
    """
    counters = {
        name: norm.num_batches_tracked.clone() for name, norm in norms.items() if norm.num_batches_tracked is not None
    }
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # torch then takes the mean of all batches
        norm.train()
    for rows in batches:
        network(_input(checkpoint, crops[rows]))
        step()
    network.eval()
    for name, counter in counters.items():
        count = norms[name].num_batches_tracked
        assert count is not None
        count.copy_(counter)  # of the training: those of the adaptation are in the metadata


@torch.no_grad()
def _features(
    network: OSNet,
    checkpoint: Checkpoint,
    crops: Image,
    batches: list[np.ndarray[tuple[int], np.dtype[np.intp]]],
    step: Callable[..., object],
) -> Features:
    """Compute features of the crops of batches, in their order: N×512 float32."""
    outputs = []
    for rows in batches:
        outputs.append(network(_input(checkpoint, crops[rows])))
        step()
    features: Features = torch.cat(outputs).numpy()
    return features


def _input(checkpoint: Checkpoint, crops: Image) -> Tensor:
    return torch.from_numpy(normalised(crops, checkpoint.info.mean, checkpoint.info.std))


def _check_variety(crops: Image) -> None:
    """Refuse crops that are almost one picture.

    Raises:
        AdaptationError: They are.
    """
    coarse = crops[:, ::4, ::4].astype(np.float32)
    difference = float(np.sqrt(2 * coarse.var(axis=0).mean()))
    if difference < LEAST_DIFFERENCE:
        raise AdaptationError(
            f"these crops are almost one picture: the pixels of two of them differ by {difference:.1f} of 255 on "
            f"average, and at least {LEAST_DIFFERENCE:g} is needed. Give crops of many different people."
        )


def _moved(name: str, norm: _BatchNorm, old_mean: Tensor, old_variance: Tensor) -> MovedLayer:
    spread = torch.sqrt((old_variance + norm.eps).double())
    shift = (_mean(norm) - old_mean) / spread
    ratio = torch.sqrt((_variance(norm) + norm.eps).double()) / spread
    return MovedLayer(name=name, mean=float(shift.square().mean().sqrt()), spread=float(ratio.log().mean().exp()))


def _mean_similarity(features: Features) -> float:
    """Mean cosine of all pairs of different rows, from the length of the sum of the unit rows."""
    unit = l2_normalised(features.astype(np.float64))
    count = len(unit)
    return float((np.square(unit.sum(axis=0)).sum() - count) / (count * (count - 1)))


def _mean(norm: _BatchNorm) -> Tensor:
    assert norm.running_mean is not None
    return norm.running_mean


def _variance(norm: _BatchNorm) -> Tensor:
    assert norm.running_var is not None
    return norm.running_var
