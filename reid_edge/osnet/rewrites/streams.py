"""Streams of a folded bottleneck: collapsed, merged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reid_edge.osnet.network import ConvNormReLU, Lite3x3
from reid_edge.osnet.rewrites.layers import biases_of, conv_of, dense_layer, weights_of


@torch.no_grad()
def collapsed(layer: Lite3x3) -> ConvNormReLU:
    """One dense 3x3 for a folded Lite 3x3.

    The pointwise is linear and has no bias: zeros around its input are zeros around its output, where the depthwise
    pads.  So W[o, i, ·, ·] = depthwise[o, ·, ·] · pointwise[o, i].
    """
    pointwise, depthwise = layer.pointwise, layer.depthwise
    assert isinstance(pointwise, nn.Conv2d) and depthwise.bias is not None
    return dense_layer(depthwise.weight * pointwise.weight[:, :, 0, 0, None, None], depthwise.bias)


class MergedStreams(nn.Module):
    """Streams of one block, level by level: level l of all that are longer than l is one layer."""

    def __init__(self, streams: nn.ModuleList) -> None:
        super().__init__()
        each = [list(stream) for stream in streams if isinstance(stream, nn.Sequential)]
        depths = [len(layers) for layers in each]
        self.levels = nn.ModuleList(
            _merged([layers[level] for layers in each if len(layers) > level], first=level == 0)
            for level in range(max(depths))
        )
        #: Streams that end with each level: the leading ones, since depths ascend.
        self.ending = [depths.count(level + 1) for level in range(max(depths))]

    def forward(self, x: Tensor) -> list[Tensor]:
        """From N×C×H×W: tensors of N×kC×H×W, k streams each, in the streams' order."""
        ended: list[Tensor] = []
        left = sum(self.ending)
        for level, ending in zip(self.levels, self.ending, strict=True):
            x = level(x)
            if 0 < ending < left:
                channels = x.shape[1] // left * ending
                ended.append(x[:, :channels])
                x = x[:, channels:]
            left -= ending
        return [*ended, x]


def _merged(layers: Sequence[nn.Module], *, first: bool) -> nn.Module:
    """One layer for those of several streams: all take the same channels at first, later each takes its own."""
    groups = 1 if first else len(layers)
    if dense := [layer.conv for layer in layers if isinstance(layer, ConvNormReLU)]:
        return dense_layer(weights_of(dense), biases_of(dense), groups=groups)
    lite = [layer for layer in layers if isinstance(layer, Lite3x3)]
    merged = Lite3x3(1)
    merged.pointwise = conv_of(weights_of(layer.pointwise for layer in lite), None, groups=groups)
    depthwise = weights_of(layer.depthwise for layer in lite)
    merged.depthwise = conv_of(depthwise, biases_of(layer.depthwise for layer in lite), groups=len(depthwise))
    merged.norm = nn.Identity()
    return merged
