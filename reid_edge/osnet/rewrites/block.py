"""A bottleneck computed another way."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn

from reid_edge.osnet.network import Bottleneck, ConvNorm, Lite3x3, fuse, stream_gates
from reid_edge.osnet.rewrites.gates import GroupedGates, SharedGates, batched_gates
from reid_edge.osnet.rewrites.layers import conv_of
from reid_edge.osnet.rewrites.padding import pad_channels
from reid_edge.osnet.rewrites.plan import BlockRewrite
from reid_edge.osnet.rewrites.streams import MergedStreams, collapsed


def rewritten(block: Bottleneck, how: BlockRewrite) -> nn.Module:
    """A folded bottleneck with rewrites applied; they must be legal."""
    block = deepcopy(block)
    if how.pad_to > 1:
        pad_channels(block, how.pad_to)
    if how.collapse:
        _collapse(block)
    return RewrittenBottleneck(block, how) if how.merge or how.batch_gates or how.join else block


def _collapse(block: Bottleneck) -> None:
    for stream in block.streams:
        assert isinstance(stream, nn.Sequential)
        for number, layer in enumerate(stream):
            if isinstance(layer, Lite3x3):
                stream[number] = collapsed(layer)


class Join(nn.Module):
    """R·a + P·b as one 1x1 over a and b side by side: [R P]·[a; b]."""

    def __init__(self, restore: ConvNorm, project: ConvNorm) -> None:
        super().__init__()
        left, right = restore.conv, project.conv
        assert left.bias is not None and right.bias is not None
        self.conv = conv_of(torch.cat([left.weight, right.weight], 1), left.bias + right.bias)

    def forward(self, fused: Tensor, x: Tensor) -> Tensor:
        """Fused streams and the block's input, both N×·×H×W: their sum before the ReLU."""
        return self.conv(torch.cat([fused, x], 1))  # type: ignore[no-any-return]


class RewrittenBottleneck(nn.Module):
    """A folded :class:`~reid_edge.osnet.network.Bottleneck` whose streams, gates or sum are computed together."""

    def __init__(self, block: Bottleneck, how: BlockRewrite) -> None:
        super().__init__()
        self.fusion = block.fusion
        self.channels = block.reduce.conv.out_channels
        self.count = len(block.streams)
        self.reduce = block.reduce
        self.streams: nn.Module = MergedStreams(block.streams) if how.merge else block.streams
        self.gate = batched_gates(block.gate, self.count, self.channels) if how.batch_gates else block.gate
        if how.join:
            assert isinstance(block.project, ConvNorm)
            self.join = Join(block.restore, block.project)
        else:
            self.restore, self.project = block.restore, block.project
        self.joins = how.join
        self.norm = block.norm

    def forward(self, x: Tensor) -> Tensor:
        """As a bottleneck's."""
        fused = fuse(self._gated(self._outputs(self.reduce(x))), self.fusion)
        total = self.join(fused, x) if self.joins else self.restore(fused) + self.project(x)
        return torch.relu(self.norm(total))

    def _outputs(self, reduced: Tensor) -> Iterable[Tensor]:
        """Each holds one stream, or several side by side."""
        if isinstance(self.streams, nn.ModuleList):
            return (stream(reduced) for stream in self.streams)
        outputs: list[Tensor] = self.streams(reduced)
        return outputs

    def _gated(self, outputs: Iterable[Tensor]) -> Iterable[Tensor]:
        if self.fusion == "concatenation":
            return outputs
        if isinstance(self.gate, SharedGates | GroupedGates):
            return self.gate(outputs)  # type: ignore[no-any-return]
        each = (stream for output in outputs for stream in torch.split(output, self.channels, 1))
        return (gate(stream) for gate, stream in zip(stream_gates(self.gate, self.count), each, strict=True))
