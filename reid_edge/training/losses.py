"""Losses of a batch, computed in float32 or better, also under autocast."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

#: Features shorter than this are not scaled to unit length.  A trained OSNet's have a length of 8 to 18, an untrained
#: one's in evaluation mode 0.2 to 0.4; those of a collapsed one are rounding noise, whose directions look well spread.
SHORTEST = 0.1


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


def attribute_loss(
    logits: Tensor, values: Tensor, positive_rates: Tensor, weights: Literal["rate", "value", "equal"] = "value"
) -> Tensor:
    """Binary cross-entropy that weighs rare attributes, or the rarer value of each, more.

    Of an attribute of rate p, with ``value`` a present one weighs exp(1 − p) and an absent one exp(p): DeepMAR's
    exponential weights (Li et al., ACPR 2015, eq. 5, with σ = 1) in the form that its authors' code and later work use.
    With ``rate`` both weigh exp(−p), as in the project ``attribute_recognition`` of OSNet's authors.

    Args:
        logits: N×A.
        values: N×A of 0 and 1, any dtype.
        positive_rates: A, the share of training images that have the attribute.
        weights: How attributes are weighed; ``equal``: all alike.

    Returns:
        0-d, the mean over images and attributes.
    """
    logits = at_least_float32(logits)
    present = values.to(logits.dtype)
    rates = positive_rates.to(logits.dtype)
    factors = {
        "rate": torch.exp(-rates).expand_as(present),
        "value": torch.exp(present * (1 - rates) + (1 - present) * rates),
        "equal": torch.ones_like(present),
    }[weights]
    return functional.binary_cross_entropy_with_logits(logits, present, factors)


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
