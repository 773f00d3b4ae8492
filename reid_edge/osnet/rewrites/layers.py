"""Convolutions made from weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from reid_edge.osnet.network import ConvNormReLU


@torch.no_grad()
def conv_of(weight: Tensor, bias: Tensor | None, *, groups: int = 1) -> nn.Conv2d:
    """A convolution of stride 1 that keeps height and width, with these weights (out×in/groups×k×k)."""
    out_channels, in_channels, kernel, _ = weight.shape
    conv = nn.Conv2d(
        in_channels * groups,
        out_channels,
        kernel,
        padding=kernel // 2,
        groups=groups,
        bias=bias is not None,
        dtype=weight.dtype,
    )
    conv.weight.copy_(weight)
    if bias is not None and conv.bias is not None:
        conv.bias.copy_(bias)
    return conv


def dense_layer(weight: Tensor, bias: Tensor, *, groups: int = 1) -> ConvNormReLU:
    """A folded convolution with ReLU."""
    layer = ConvNormReLU(1, 1)
    layer.conv = conv_of(weight, bias, groups=groups)
    layer.norm = nn.Identity()
    return layer


def weights_of(convs: Iterable[nn.Module]) -> Tensor:
    """Weights one after another along the output."""
    return torch.cat([conv.weight for conv in convs if isinstance(conv, nn.Conv2d)])


def biases_of(convs: Iterable[nn.Module]) -> Tensor:
    """Biases one after another."""
    return torch.cat([conv.bias for conv in convs if isinstance(conv, nn.Conv2d) and conv.bias is not None])
