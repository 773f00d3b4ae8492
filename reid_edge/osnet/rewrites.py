"""Exact rewrites of a trained network: the same function, computed by fewer and larger layers.

They are meant for engines that pay for every layer, as GPUs do; ``reid-edge tune`` finds out whether one pays off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reid_edge.errors import ConfigError
from reid_edge.osnet.architecture import GATED, NetworkVariant
from reid_edge.osnet.folding import fold
from reid_edge.osnet.network import Bottleneck, ConvNorm, ConvNormReLU, Gate, Lite3x3, OSNet, fuse, stream_gates


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """A choice of rewrites, applied to every bottleneck; batch norms are folded in any case.

    Attributes:
        merge: Level l of all streams that long becomes one convolution over concatenated channels.
        batch_gates: The gate is evaluated once for all streams.
        join: Where a bottleneck has a 1x1 projection, it and the 1x1 restore become one 1x1 over concatenated channels,
            unless an instance norm comes between the restore and the sum (OSNet-AIN).
    """

    merge: bool = False
    batch_gates: bool = False
    join: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names for a manifest, e.g. ``("fold", "merge")``."""
        return ("fold", *(name for name in ("merge", "batch_gates", "join") if getattr(self, name)))


def why_illegal(variant: NetworkVariant, wanted: Rewrite) -> str:
    """Say why a network cannot be rewritten so; "" if it can."""
    single = len(variant.streams) == 1
    gated = variant.fusion in GATED
    problems = {
        "merge: there is one stream, and nothing to merge it with": wanted.merge and single,
        f"batch_gates: fusion '{variant.fusion}' leaves no gate that depends on the input": (
            wanted.batch_gates and not gated
        ),
        "batch_gates: there is one stream, and so one gate": wanted.batch_gates and gated and single,
    }
    return "; ".join(problem for problem, found in problems.items() if found)


def rewrite(network: OSNet, wanted: Rewrite) -> OSNet:
    """Fold a network, then rewrite its bottlenecks.

    Args:
        network: As trained, or folded; it is left as it was.
        wanted: What is done.

    Returns:
        A new network in evaluation mode, with the same features.

    Raises:
        ConfigError: A rewrite that the network does not allow, or the network has been rewritten before.
    """
    if problem := why_illegal(network.config.variant, wanted):
        raise ConfigError(f"{problem}. Leave this rewrite out.")
    folded = fold(network)
    if wanted == Rewrite():
        return folded
    for stage in (folded.conv2, folded.conv3, folded.conv4):
        for number, block in enumerate(stage):
            if not isinstance(block, Bottleneck):
                raise ConfigError("the network has been rewritten already; rewrite the one that the checkpoint gives.")
            stage[number] = RewrittenBottleneck(deepcopy(block), wanted)
    return folded.eval()


class RewrittenBottleneck(nn.Module):
    """A folded :class:`~reid_edge.osnet.network.Bottleneck` whose streams, gates or sum are computed together."""

    def __init__(self, block: Bottleneck, wanted: Rewrite) -> None:
        super().__init__()
        self.fusion = block.fusion
        self.channels = block.reduce.conv.out_channels
        self.count = len(block.streams)
        self.reduce = block.reduce
        self.streams: nn.Module = MergedStreams(block.streams) if wanted.merge else block.streams
        self.gate = batched_gates(block.gate, self.count, self.channels) if wanted.batch_gates else block.gate
        self.join: Join | None = None
        if wanted.join and isinstance(block.project, ConvNorm) and isinstance(block.restore.norm, nn.Identity):
            self.join = Join(block.restore, block.project)
        else:
            self.restore, self.project = block.restore, block.project
        self.norm = block.norm

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the bottleneck computes."""
        fused = fuse(self._gated(self._outputs(self.reduce(x))), self.fusion)
        joined = self.restore(fused) + self.project(x) if self.join is None else self.join(fused, x)
        return torch.relu(self.norm(joined))

    def _outputs(self, reduced: Tensor) -> Iterable[Tensor]:
        """Tensors that hold one stream each, or several side by side."""
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


class Join(nn.Module):
    """R·a + P·b as one 1x1 over a and b side by side: [R P]·[a; b]."""

    def __init__(self, restore: ConvNorm, project: ConvNorm) -> None:
        super().__init__()
        left, right = restore.conv, project.conv
        assert left.bias is not None and right.bias is not None
        self.conv = _conv_of(torch.cat([left.weight, right.weight], 1), left.bias + right.bias)

    def forward(self, fused: Tensor, x: Tensor) -> Tensor:
        """Turn fused streams and the block's input, both N×·×H×W, into their sum before the ReLU."""
        return self.conv(torch.cat([fused, x], 1))  # type: ignore[no-any-return]


class MergedStreams(nn.Module):
    """Streams of one bottleneck, level by level: level l of all that are longer than l is one layer."""

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
        """Turn N×C×H×W into tensors of N×kC×H×W, k streams each, in the streams' order."""
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
    """Make one layer of several streams': all take the same channels at first, later each takes its own."""
    groups = 1 if first else len(layers)
    if dense := [layer.conv for layer in layers if isinstance(layer, ConvNormReLU)]:
        merged_dense = ConvNormReLU(1, 1)
        merged_dense.conv = _conv_of(_weights_of(dense), _biases_of(dense), groups=groups)
        merged_dense.norm = nn.Identity()
        return merged_dense
    lite = [layer for layer in layers if isinstance(layer, Lite3x3)]
    merged = Lite3x3(1)
    merged.pointwise = _conv_of(_weights_of(layer.pointwise for layer in lite), None, groups=groups)
    depthwise = _weights_of(layer.depthwise for layer in lite)
    merged.depthwise = _conv_of(depthwise, _biases_of(layer.depthwise for layer in lite), groups=len(depthwise))
    merged.norm = nn.Identity()
    return merged


class SharedGates(nn.Module):
    """The unified gate of T streams: their pooled vectors are T rows of one batch."""

    def __init__(self, gate: Gate, streams: int, channels: int) -> None:
        super().__init__()
        self.streams = streams
        self.channels = channels
        self.fc1 = gate.fc1
        self.fc2 = _by_channel(gate.fc2, channels)

    def forward(self, outputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Turn streams' outputs, each N×kC×H×W, into T gated streams, each N×C×H×W."""
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
        self.fc1 = _conv_of(_weights_of(first), _biases_of(first), groups=len(gates))
        self.fc2 = _conv_of(_weights_of(second), _biases_of(second), groups=len(gates))

    def forward(self, outputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """Do what :meth:`SharedGates.forward` does."""
        outputs = list(outputs)
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(_pooled(outputs)))))
        return _gated(outputs, weights, self.channels)


def batched_gates(gate: nn.Module, streams: int, channels: int) -> SharedGates | GroupedGates:
    """Make one module of the gates of a bottleneck, which evaluates them together."""
    if isinstance(gate, Gate):
        return SharedGates(gate, streams, channels)
    assert isinstance(gate, nn.ModuleList)
    return GroupedGates([each for each in gate if isinstance(each, Gate)], channels)


def _pooled(outputs: list[Tensor]) -> Tensor:
    """Means of all streams' maps, N×TC×1×1: only these small vectors are copied together."""
    return torch.cat([output.mean((2, 3), keepdim=True) for output in outputs], 1)


def _gated(outputs: list[Tensor], weights: Tensor, channels: int) -> tuple[Tensor, ...]:
    each = torch.split(weights, [output.shape[1] for output in outputs], 1)
    products = (output * weight for output, weight in zip(outputs, each, strict=True))
    return tuple(stream for product in products for stream in torch.split(product, channels, 1))


def _by_channel(fc2: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Repeat the one row of a scalar gate's last layer for every channel."""
    if fc2.out_channels == channels:
        return fc2
    assert fc2.bias is not None
    return _conv_of(fc2.weight.expand(channels, -1, -1, -1), fc2.bias.expand(channels))


@torch.no_grad()
def _conv_of(weight: Tensor, bias: Tensor | None, *, groups: int = 1) -> nn.Conv2d:
    """Make a convolution of stride 1 that keeps height and width, with these weights (out×in/groups×k×k)."""
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


def _weights_of(convs: Iterable[nn.Module]) -> Tensor:
    """Concatenate weights along the output."""
    return torch.cat([conv.weight for conv in convs if isinstance(conv, nn.Conv2d)])


def _biases_of(convs: Iterable[nn.Module]) -> Tensor:
    """Concatenate biases."""
    return torch.cat([conv.bias for conv in convs if isinstance(conv, nn.Conv2d) and conv.bias is not None])
