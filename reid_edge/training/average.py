"""Exponential moving average of weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Average:
    """Moving average of a module's weights and floating-point buffers; whole numbers are copied.

    torch's ``swa_utils.AveragedModel`` asks the device at each update how many there have been, which a captured graph
    may not; this one is told the weight of the new value.

    Args:
        module: What is averaged; the average begins as a copy of it.
        decay: Of an update: average ← decay × average + (1 − decay) × module.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(requires_grad=False)
        self.decay = decay
        pairs = list(zip(_tensors(self.module), _tensors(module), strict=True))
        self._averaged = [(own, other) for own, other in pairs if own.is_floating_point()]
        self._copied = [(own, other) for own, other in pairs if not own.is_floating_point()]

    def new_weight(self, step: int) -> float:
        """Weight of the new value after a step, counted from 0.

        1 − min(decay, (1 + n) / (10 + n)) after n updates, as TensorFlow's ExponentialMovingAverage: the random
        first weights are soon forgotten.
        """
        return 1 - min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, new_weight: Tensor) -> None:
        """Take the module's values in, with a weight that is a 0-d tensor on the module's device."""
        own, other = map(list, zip(*self._averaged, strict=True))
        change = torch._foreach_sub(other, own)
        torch._foreach_mul_(change, new_weight)
        torch._foreach_add_(own, change)
        if self._copied:
            own, other = map(list, zip(*self._copied, strict=True))
            torch._foreach_copy_(own, other)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*(each.detach() for each in module.parameters()), *module.buffers()]
