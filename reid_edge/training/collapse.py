"""Features that become the same for every image: how it is measured, and when a run stops for it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reid_edge.errors import CollapseError
from reid_edge.training.losses import at_least_float32

#: Features shorter than this count as being as short as they are, not as of unit length.  A trained OSNet's have a
#: length of 8 to 18, an untrained one's in evaluation mode 0.2 to 0.4; those of one that has died out are rounding
#: noise, whose directions would look well spread.
SHORTEST = 0.1
#: Steps in a row under the limit before a run stops.
PATIENCE_STEPS = 200


@torch.no_grad()
def spread(features: Tensor) -> Tensor:
    """How much a batch's features differ from one another.

    The variance of the features at unit length, summed over the dimensions: one minus the mean cosine of all pairs
    (each image with itself included), where no feature is shorter than ``SHORTEST``.  Unit length, because the cosine
    distance sees nothing else.  Features that go to zero for every image, which is how a collapse ends behind a ReLU,
    have spread 0 as well.

    Args:
        features: N×D, of at least two images of different identities.

    Returns:
        0-d, in [0, 1); N images that are all at right angles have 1 − 1/N.
    """
    units = functional.normalize(at_least_float32(features), dim=1, eps=SHORTEST)
    return (units - units.mean(0)).square().sum(1).mean()


class CollapseWatch:
    """Stops a run whose features have collapsed and stay so.

    Args:
        limit: The spread under which features count as collapsed; 0: never.
        patience_steps: For how many steps they must stay under it: a spread may dip and come back.
    """

    def __init__(self, limit: float, patience_steps: int = PATIENCE_STEPS) -> None:
        self.limit = limit
        self.patience_steps = patience_steps
        self._low_since: int | None = None

    @property
    def low(self) -> bool:
        """Whether the spread last seen was under the limit: a state to be kept is not to be replaced now."""
        return self._low_since is not None

    def see(self, spread: float, step: int, *, last: bool = False) -> None:
        """Take note of the spread at a step, or of its mean since the last one that was seen.

        Not of a network that is frozen, in evaluation mode: random weights have a spread of about 0.01 there, which
        training mode turns into 0.6.

        Raises:
            CollapseError: It has been under the limit for the patience's number of steps, or is so at the last one.
        """
        if spread >= self.limit:
            self._low_since = None
            return
        if self._low_since is None:
            self._low_since = step
        if last or step - self._low_since >= self.patience_steps:
            raise CollapseError(self._message(spread, step - self._low_since, step))

    def _message(self, spread: float, steps: int, step: int) -> str:
        return (
            f"the features have collapsed: their spread was under {self.limit:g} for {steps:,} steps and is "
            f"{spread:.2g} at step {step:,} (0: the same feature for every image). The last good checkpoint is kept. "
            "A triplet loss from random weights does this: start it later (--set loss.triplet_start=EPOCH), "
            "or on features of unit length (--set loss.triplet_normalised=true), or leave it out "
            "(--set loss.triplet=0); without one, lower the learning rate or warm it up (--set schedule.warmup=EPOCHS)."
        )
