"""Streams with zero channels added, up to a multiple of what a CPU computes at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.functional import pad

from reid_edge.osnet.network import Bottleneck, ConvNorm, Gate, Lite3x3
from reid_edge.osnet.rewrites.layers import conv_of


@torch.no_grad()
def pad_channels(block: Bottleneck, multiple: int) -> None:
    """Widen a folded bottleneck's streams, in place.

    What is added has no weights and no biases.  So it is 0 after every ReLU; the gate multiplies it by sigmoid(0) = 1/2
    and nothing reads it.  The gate's hidden layer keeps its width.
    """
    channels = block.reduce.conv.out_channels
    extra = -channels % multiple
    _pad(block.reduce, outputs=extra)
    for stream in block.streams:
        for layer in stream.children():
            _pad_layer(layer, extra)
    for gate in _gates(block):
        gate.fc1 = _padded(gate.fc1, inputs=extra)
        if gate.fc2.out_channels == channels:
            gate.fc2 = _padded(gate.fc2, outputs=extra)
    _pad(block.restore, inputs=extra, parts=block.restore.conv.in_channels // channels)


def _pad_layer(layer: nn.Module, extra: int) -> None:
    if isinstance(layer, Lite3x3):
        assert isinstance(layer.pointwise, nn.Conv2d)
        layer.pointwise = _padded(layer.pointwise, inputs=extra, outputs=extra)
        # Not told by its groups: a stream of one channel has one group too.
        depthwise = _padded(layer.depthwise, outputs=extra)
        layer.depthwise = conv_of(depthwise.weight, depthwise.bias, groups=depthwise.out_channels)
    else:
        assert isinstance(layer, ConvNorm)
        _pad(layer, inputs=extra, outputs=extra)


def _gates(block: Bottleneck) -> Iterator[Gate]:
    return (module for module in block.gate.modules() if isinstance(module, Gate))


def _pad(layer: ConvNorm, *, inputs: int = 0, outputs: int = 0, parts: int = 1) -> None:
    layer.conv = _padded(layer.conv, inputs=inputs, outputs=outputs, parts=parts)


def _padded(conv: nn.Conv2d, *, inputs: int = 0, outputs: int = 0, parts: int = 1) -> nn.Conv2d:
    """Zeros after the outputs, and after each of ``parts`` equal parts of the inputs; the result has one group."""
    outputs_before, _, *kernel = conv.weight.shape
    weight = conv.weight.reshape(outputs_before, parts, -1, *kernel)
    weight = pad(weight, (0, 0, 0, 0, 0, inputs)).flatten(1, 2)
    weight = pad(weight, (0, 0, 0, 0, 0, 0, 0, outputs))
    return conv_of(weight, None if conv.bias is None else pad(conv.bias, (0, outputs)))
