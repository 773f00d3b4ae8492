"""Losses of a batch, and the objective that joins them; all are computed in float32 or better, also under autocast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from reid_edge.errors import SettingsError
from reid_edge.training.distributed import gathered
from reid_edge.training.settings import TrainSettings

#: Features shorter than this are not scaled to unit length.  A trained OSNet's have a length of 8 to 18, an untrained
#: one's in evaluation mode 0.2 to 0.4; those of a collapsed one are rounding noise, whose directions look well spread.
SHORTEST = 0.1
#: Features N×512 and logits N×C of one network.
Output = tuple[Tensor, Tensor]


def hard_triplet(
    features: Tensor, identities: Tensor, *, margin: float | None = 0.3, normalised: bool = False
) -> Tensor:
    """Triplet loss with the hardest positive and negative of each anchor (Hermans et al., arXiv 1703.07737, eq. 5).

    d⁺ is the Euclidean distance to the farthest image of the anchor's identity (0 where it has no other), d⁻ to the
    nearest of another identity.  An anchor without a negative counts as 0.

    Args:
        features: N×D.
        identities: N, int64.
        margin: The mean of max(0, margin + d⁺ − d⁻); None: of log(1 + exp(d⁺ − d⁻)), the soft margin.
        normalised: Scale the features to unit length first, so that no distance is over 2.

    Returns:
        0-d, the mean over anchors.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = at_least_float32(features)
        if normalised:
            features = functional.normalize(features, dim=1)
        # The shortcut by a matrix product loses the small distances, which are the ones that decide.
        distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
        same = identities[:, None] == identities[None, :]
        positive = distances.masked_fill(~same, 0.0).amax(1)
        negative = distances.masked_fill(same, torch.inf).amin(1)
        apart = positive - negative
        losses = functional.softplus(apart) if margin is None else functional.relu(margin + apart)
        return losses.mean()


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the predictions, −Σ p ln p in nats (Pereyra et al., arXiv 1701.06548); N×C → 0-d."""
    log_p = functional.log_softmax(at_least_float32(logits), dim=1)
    return -(log_p.exp() * log_p).sum(1).mean()


def mutual_divergence(logits: Tensor, others_logits: Tensor) -> Tensor:
    """Mean divergence of a network's predictions from another's, KL(other ‖ own) in nats; N×C twice → 0-d.

    Deep mutual learning (Zhang et al., CVPR 2018, eq. 5 and 8).  The other network is a fixed target: no gradient
    reaches it from this term; it has its own term with the two exchanged.
    """
    own = functional.log_softmax(at_least_float32(logits), dim=1)
    other = functional.log_softmax(at_least_float32(others_logits.detach()), dim=1)
    return functional.kl_div(own, other, reduction="batchmean", log_target=True)


def attribute_loss(logits: Tensor, values: Tensor, positive_rates: Tensor) -> Tensor:
    """Binary cross-entropy that weighs the rarer value of an attribute more.

    A present attribute of rate p weighs exp(1 − p), an absent one exp(p): DeepMAR's exponential weights (Li et al.,
    ACPR 2015, eq. 5, with σ = 1) in the form that its authors' code and later work use.

    Args:
        logits: N×A.
        values: N×A of 0 and 1, any dtype.
        positive_rates: A, the share of training images that have the attribute.

    Returns:
        0-d, the mean over images and attributes.
    """
    logits = at_least_float32(logits)
    present = values.to(logits.dtype)
    rates = positive_rates.to(logits.dtype)
    weights = torch.exp(present * (1 - rates) + (1 - present) * rates)
    return functional.binary_cross_entropy_with_logits(logits, present, weights)


def at_least_float32(values: Tensor) -> Tensor:
    """Half-precision numbers as float32; float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@torch.no_grad()
def spread(features: Tensor) -> Tensor:
    """Measure how much a batch's features differ from one another.

    The spread is the variance of the features at unit length, summed over the dimensions: one minus the mean cosine of
    all pairs (each image with itself included), if no feature is shorter than ``SHORTEST``.  The unit length matches
    the cosine distance.  Features that go to zero for every image, as in a collapse behind a ReLU, have spread 0 too.

    Args:
        features: N×D, of at least two images of different identities.

    Returns:
        0-d, in [0, 1); N images that are all at right angles have 1 − 1/N.
    """
    units = functional.normalize(at_least_float32(features), dim=1, eps=SHORTEST)
    return (units - units.mean(0)).square().sum(1).mean()


class Objective:
    """Loss and figures of a step.

    Per network: cross-entropy + triplet weight × triplet − λe × entropy + λm × divergence from the other networks
    (supplement B).  The loss is the sum over networks: each learns as it would alone, plus from the others.

    Nothing here waits for the device, and shapes do not depend on values: a CUDA graph can capture it.

    Args:
        settings: The run's settings.
        positive_rates: For attributes: A float32, the share of training images that have each.

    Raises:
        SettingsError: Attributes are combined with a loss that needs one label an image, or have no rates.
    """

    def __init__(self, settings: TrainSettings, positive_rates: Tensor | None = None) -> None:
        self._loss = settings.loss
        self._attributes = settings.task == "attributes"
        self._rates = positive_rates
        if self._attributes:
            _check_attributes(settings, positive_rates)

    def __call__(self, outputs: Sequence[Output], targets: Tensor, triplet_weight: Tensor) -> dict[str, Tensor]:
        """Loss and figures of this process's images.

        Among several processes the triplet loss is of the global batch and the rest of the process's own images: the
        mean over processes, which is what data-parallel training takes of the gradients, is the global batch's.

        Args:
            outputs: Features and logits of each network.
            targets: N int64 classes; for attributes N×A of 0 and 1.
            triplet_weight: 0-d: λt, or 0 in epochs before the triplet loss starts.

        Returns:
            0-d tensors: ``loss``, to be minimised; and without gradients, as means over networks, ``cross_entropy``,
            ``triplet``, ``entropy``, ``mutual`` (before their weights; 0 where the run has no such loss) and
            ``accuracy`` (share of correct labels); and ``spread`` (:func:`spread`)
            of the network that has the least, so that a collapsed one does not hide behind another.
        """
        logits = [one for _, one in outputs]
        parts = [
            {
                "cross_entropy": self._cross_entropy(own, targets),
                "triplet": self._triplet(features, targets),
                "entropy": self._entropy(own),
                "mutual": self._mutual(logits, index),
            }
            for index, (features, own) in enumerate(outputs)
        ]
        totals = {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
        loss = (
            totals["cross_entropy"]
            + triplet_weight * totals["triplet"]
            - self._loss.entropy * totals["entropy"]
            + self._loss.mutual * totals["mutual"]
        )
        figures = {name: total.detach() / len(outputs) for name, total in totals.items()}
        return {"loss": loss, **figures, **self._quality(outputs, targets)}

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self._rates is not None:
            self._rates = self._rates.to(logits.device)  # a copy at the first call only: a graph could not hold it
            return attribute_loss(logits, targets, self._rates)
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
            ((logits > 0) == (targets > 0)) if self._attributes else logits.argmax(1) == targets
            for _, logits in outputs
        ]
        return {
            "accuracy": torch.stack([one.float().mean() for one in right]).mean(),
            "spread": torch.stack([spread(features) for features, _ in outputs]).amin(),
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
