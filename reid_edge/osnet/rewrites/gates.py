"""One evaluation of the gate for all streams of a block."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from reid_edge.osnet.network import Gate
from reid_edge.osnet.rewrites.layers import biases_of, conv_of, weights_of


class SharedGates(nn.Module):
    """The unified gate of T streams: their pooled vectors are T rows of one batch."""

    def __init__(self, gate: Gate, streams: int, channels: int) -> None:
        super().__init__()
        self.streams = streams
        self.channels = channels
        self.fc1 = gate.fc1
        self.fc2 = _by_channel(gate.fc2, channels)

    def forward(self, outputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """From streams' outputs, each N×kC×H×W: T gated streams, each N×C×H×W."""
        outputs = list(outputs)
        rows = _pooled(outputs).reshape(-1, self.channels, 1, 1)
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(rows))))
        return _gated(outputs, weights.reshape(-1, self.streams * self.channels, 1, 1), self.channels)


class GroupedGates(nn.Module):
    """Separate gates of T streams: T groups of the same two convolutions."""

    def __init__(self, gates: list[Gate], channels: int) -> None:
        super().__init__()
        self.channels = channels
        first, second = [gate.fc1 for gate in gates], [gate.fc2 for gate in gates]
        self.fc1 = conv_of(weights_of(first), biases_of(first), groups=len(gates))
        self.fc2 = conv_of(weights_of(second), biases_of(second), groups=len(gates))

    def forward(self, outputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """As :meth:`SharedGates.forward`."""
        outputs = list(outputs)
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(_pooled(outputs)))))
        return _gated(outputs, weights, self.channels)


def _pooled(outputs: list[Tensor]) -> Tensor:
    """Means of all streams' maps, N×TC×1×1: only these small vectors are copied together."""
    return torch.cat([output.mean((2, 3), keepdim=True) for output in outputs], 1)


def _gated(outputs: list[Tensor], weights: Tensor, channels: int) -> tuple[Tensor, ...]:
    each = torch.split(weights, [output.shape[1] for output in outputs], 1)
    products = (output * weight for output, weight in zip(outputs, each, strict=True))
    return tuple(stream for product in products for stream in torch.split(product, channels, 1))


def batched_gates(gate: nn.Module, streams: int, channels: int) -> SharedGates | GroupedGates:
    """The gates of a bottleneck, evaluated together."""
    if isinstance(gate, Gate):
        return SharedGates(gate, streams, channels)
    assert isinstance(gate, nn.ModuleList)
    return GroupedGates([each for each in gate if isinstance(each, Gate)], channels)


def _by_channel(fc2: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A scalar gate's last layer, with its one row repeated for every channel."""
    if fc2.out_channels == channels:
        return fc2
    assert fc2.bias is not None
    return conv_of(fc2.weight.expand(channels, -1, -1, -1), fc2.bias.expand(channels))
