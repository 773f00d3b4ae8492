"""Losses that pull a network towards frozen teachers: their features, the relations of a batch, their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from reid_edge.training.distributed import gathered
from reid_edge.training.losses import at_least_float32
from reid_edge.training.model import Output
from reid_edge.training.settings import DistillSettings


@dataclass(frozen=True, eq=False)
class Taught:
    """What the teachers say of a batch.

    Attributes:
        features: N×T×D float32, the features of T teachers; shorter ones are filled up with zeros.
        logits: N×C of each teacher; empty unless predictions are taught.
    """

    features: Tensor
    logits: Sequence[Tensor] = ()


def feature_distance(features: Tensor, taught: Tensor) -> Tensor:
    """Mean of 1 − cosine between a network's projected features and a teacher's, N×D twice → 0-d.

    This is half the squared Euclidean distance of the features at unit length, on which searches depend.
    """
    return (1 - functional.cosine_similarity(at_least_float32(features), at_least_float32(taught), dim=1)).mean()


def relation_distance(features: Tensor, taught: Tensor) -> Tensor:
    """Mean squared difference between the cosines of all pairs of a batch and those of the teachers.

    After Tung and Mori, "Similarity-preserving knowledge distillation", ICCV 2019, with cosines in place of rows of
    unit length.  The teachers' cosines are averaged, which gives the cosine of their concatenated features
    (supplement B's ensemble); their feature spaces need not agree.

    Args:
        features: N×D.
        taught: N×T×D.

    Returns:
        0-d, the mean over ordered pairs of different images.
    """
    own = functional.normalize(at_least_float32(features), dim=1)
    others = functional.normalize(at_least_float32(taught), dim=2)
    wanted = torch.einsum("itd,jtd->ij", others, others) / others.shape[1]
    squares = (own @ own.T - wanted).square()
    return (squares.sum() - squares.diagonal().sum()) / (len(own) * (len(own) - 1))


def prediction_divergence(logits: Tensor, taught: Sequence[Tensor], temperature: float) -> Tensor:
    """Divergence of a network's softened predictions from the teachers' mean, τ²·KL(teachers ‖ own) in nats.

    Hinton et al., "Distilling the knowledge in a neural network", 2015: the factor τ² keeps the gradient's size.

    Args:
        logits: N×C.
        taught: N×C of each teacher.
        temperature: τ, by which all logits are divided.

    Returns:
        0-d, the mean over images.
    """
    own = functional.log_softmax(at_least_float32(logits) / temperature, dim=1)
    wanted = torch.stack([functional.softmax(at_least_float32(one) / temperature, dim=1) for one in taught]).mean(0)
    return temperature**2 * functional.kl_div(own, wanted, reduction="batchmean")


class Distillation:
    """The part of a run's loss that comes from teachers.

    Args:
        settings: Weights of the losses.
    """

    def __init__(self, settings: DistillSettings) -> None:
        weights = {
            "taught_feature": settings.feature,
            "taught_relations": settings.relations,
            "taught_logits": settings.logits,
        }
        self._weights = {name: weight for name, weight in weights.items() if weight}
        self._temperature = settings.temperature

    def parts(self, output: Output, taught: Taught) -> dict[str, Tensor]:
        """Return the losses with a weight, by name, each 0-d and before its weight.

        Among several processes the relations are those of the global batch.

        Args:
            output: Of the network that learns.
            taught: Features and logits of the teachers.
        """
        found: dict[str, Tensor] = {}
        if "taught_feature" in self._weights:
            wanted = taught.features.unbind(1)
            distances = [
                feature_distance(own, one[:, : own.shape[1]]) for own, one in zip(output.projected, wanted, strict=True)
            ]
            found["taught_feature"] = torch.stack(distances).mean()
        if "taught_relations" in self._weights:
            found["taught_relations"] = relation_distance(gathered(output.features), gathered(taught.features))
        if "taught_logits" in self._weights:
            found["taught_logits"] = prediction_divergence(output.logits, taught.logits, self._temperature)
        return found

    def weighted(self, parts: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the parts."""
        return torch.stack([self._weights[name] * parts[name] for name in self._weights]).sum()
