"""Normalisation of pixels inside conv1."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from reid_edge.osnet.network import OSNet


def fold_scale(network: OSNet, std: tuple[float, float, float]) -> OSNet:
    """Let conv1 take BGR pixels minus mean instead of RGB normalised values.

    The colour order and the division by 255·std go into conv1's weights.  The mean cannot go into its bias alone:
    conv1 pads its *normalised* input with zeros, that is, with the mean (:func:`absorb_mean`).
    """
    scaled = deepcopy(network).eval()
    weight = scaled.conv1.conv.weight
    scale = 255.0 * torch.tensor(std, dtype=weight.dtype).view(1, 3, 1, 1)
    with torch.no_grad():
        weight.copy_((weight / scale).flip(1))
    return scaled


def absorb_mean(network: OSNet, mean: Tensor) -> OSNet:
    """Let conv1 take what it took without its mean subtracted, padded by the caller (:func:`pad_with`).

    w∗(x − m) = w∗x − Σw·m wherever the window lies, once the border holds m where it held zeros.

    Args:
        network: Takes values minus a mean by channel.
        mean: That mean, 3 numbers, in the order of the input's channels.

    Returns:
        A network whose conv1 does not pad: it takes N×3×(H+6)×(W+6).
    """
    absorbed = deepcopy(network).eval()
    old = absorbed.conv1.conv
    new = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, old.stride, dtype=old.weight.dtype)  # type: ignore[arg-type]
    with torch.no_grad():
        shift = old.weight.sum((2, 3)) @ mean.flatten().to(old.weight.dtype)
        new.weight.copy_(old.weight)
        new.bias.copy_(-shift if old.bias is None else old.bias - shift)  # type: ignore[union-attr]
    absorbed.conv1.conv = new
    return absorbed


def pad_with(pixels: Tensor, mean: Tensor, border: int = 3) -> Tensor:
    """A border of one colour around each crop.

    Args:
        pixels: N×H×W×3.
        mean: The colour, 3 numbers.
        border: Pixels on each side; conv1 needs 3.

    Returns:
        N×(H+2·border)×(W+2·border)×3.
    """
    colour = mean.view(1, 1, 1, 3)
    count, height, width, _ = pixels.shape
    row = colour.expand(count, border, width, 3)
    padded = torch.cat([row, pixels, row], 1)
    column = colour.expand(count, height + 2 * border, border, 3)
    return torch.cat([column, padded, column], 2)
