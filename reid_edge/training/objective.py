"""The objective of a step: the losses of a run, joined, and figures of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from reid_edge.errors import SettingsError
from reid_edge.training.distillation import Distillation, Taught
from reid_edge.training.distributed import gathered
from reid_edge.training.losses import attribute_loss, entropy, hard_triplet, mutual_divergence, spread
from reid_edge.training.model import Output
from reid_edge.training.settings import TrainSettings


class Objective:
    """Loss and figures of a step.

    Per network: λc × cross-entropy + triplet weight × triplet − λe × entropy + λm × divergence from the other networks
    (supplement B), and with teachers the losses of :class:`Distillation`.  The loss is the sum over networks: each
    learns as it would alone, plus from the others.

    Nothing here waits for the device, and shapes do not depend on values: a CUDA graph can capture it.

    Args:
        settings: The run's settings.
        positive_rates: For attributes: A float32, the share of training images that have each.

    Raises:
        SettingsError: Attributes are combined with a loss that needs one label an image, or have no rates.
    """

    def __init__(self, settings: TrainSettings, positive_rates: Tensor | None = None) -> None:
        self._loss = settings.loss
        self._distillation = Distillation(settings.distill)
        self._attributes = settings.task == "attributes"
        self._rates = positive_rates
        if self._attributes:
            _check_attributes(settings, positive_rates)

    def __call__(
        self, outputs: Sequence[Output], targets: Tensor, triplet_weight: Tensor, taught: Taught | None = None
    ) -> dict[str, Tensor]:
        """Loss and figures of this process's images.

        Among several processes the triplet loss is of the global batch and the rest of the process's own images: the
        mean over processes, which is what data-parallel training takes of the gradients, is the global batch's.

        Args:
            outputs: Of each network.
            targets: N int64 classes; for attributes N×A of 0 and 1.
            triplet_weight: 0-d: λt, or 0 in epochs before the triplet loss starts.
            taught: What the run's teachers say of the images; None without teachers.

        Returns:
            0-d tensors: ``loss``, to be minimised; and without gradients, as means over networks, ``cross_entropy``,
            ``triplet``, ``entropy``, ``mutual`` (before their weights; 0 for a loss without one), with teachers
            ``taught_feature``, ``taught_relations``, ``taught_logits`` (those with a weight), and
            ``accuracy`` (share of correct labels); and ``spread`` (:func:`spread`)
            of the network that has the least, so that a collapsed one does not hide behind another.
        """
        logits = [output.logits for output in outputs]
        parts = [
            {
                "cross_entropy": self._cross_entropy(output.logits, targets),
                "triplet": self._triplet(output.features, targets),
                "entropy": self._entropy(output.logits),
                "mutual": self._mutual(logits, index),
                **(self._distillation.parts(output, taught) if taught else {}),
            }
            for index, output in enumerate(outputs)
        ]
        totals = {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
        loss = (
            self._loss.cross_entropy * totals["cross_entropy"]
            + triplet_weight * totals["triplet"]
            - self._loss.entropy * totals["entropy"]
            + self._loss.mutual * totals["mutual"]
        )
        if taught is not None:
            loss = loss + self._distillation.weighted(totals)
        figures = {name: total.detach() / len(outputs) for name, total in totals.items()}
        return {"loss": loss, **figures, **self._quality(outputs, targets)}

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        if not self._loss.cross_entropy:
            return logits.new_zeros(())  # and so the classifier has no gradient
        if self._rates is not None:
            self._rates = self._rates.to(logits.device)  # a copy at the first call only: a graph could not hold it
            return attribute_loss(logits, targets, self._rates, self._loss.attribute_weights)
        return functional.cross_entropy(logits, targets, label_smoothing=self._loss.smoothing)

    def _triplet(self, features: Tensor, targets: Tensor) -> Tensor:
        if not self._loss.triplet:
            return features.new_zeros(())
        return hard_triplet(
            gathered(features),
            gathered(targets),
            margin=self._loss.triplet_margin,
            normalised=self._loss.triplet_normalised,
        )

    def _entropy(self, logits: Tensor) -> Tensor:
        return entropy(logits) if self._loss.entropy else logits.new_zeros(())

    def _mutual(self, logits: Sequence[Tensor], index: int) -> Tensor:
        others = [other for number, other in enumerate(logits) if number != index]
        if not (others and self._loss.mutual):
            return logits[index].new_zeros(())
        return torch.stack([mutual_divergence(logits[index], other) for other in others]).mean()

    @torch.no_grad()
    def _quality(self, outputs: Sequence[Output], targets: Tensor) -> dict[str, Tensor]:
        right = [
            ((output.logits > 0) == (targets > 0)) if self._attributes else output.logits.argmax(1) == targets
            for output in outputs
        ]
        return {
            "accuracy": torch.stack([one.float().mean() for one in right]).mean(),
            "spread": torch.stack([spread(output.features) for output in outputs]).amin(),
        }


def _check_attributes(settings: TrainSettings, positive_rates: Tensor | None) -> None:
    for name in ("triplet", "entropy", "mutual", "smoothing"):
        if getattr(settings.loss, name):
            raise SettingsError(
                f"loss.{name} is {getattr(settings.loss, name)}, but attributes have no single label an image that it "
                f"could work on; use --set loss.{name}=0."
            )
    if positive_rates is None:
        raise SettingsError("attributes are weighted by how often each occurs: give positive_rates, got None.")
