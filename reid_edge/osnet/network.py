"""OSNet: omni-scale feature learning (Zhou et al., ICCV 2019, arXiv 1905.00953, Table 1)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor, nn

from reid_edge.osnet.architecture import Fusion, NetworkVariant, OSNetConfig

#: Reduction of a bottleneck's 1x1 convolution (section 3.3), and of the gate's hidden layer.
BOTTLENECK_REDUCTION = 4
GATE_REDUCTION = 16


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm: a *linear* layer."""

    def __init__(
        self, in_channels: int, out_channels: int, *, kernel: int = 1, stride: int = 1, instance_norm: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm: nn.Module = (
            nn.InstanceNorm2d(out_channels, affine=True) if instance_norm else nn.BatchNorm2d(out_channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]


class ConvNormReLU(ConvNorm):
    """Convolution without bias, batch norm, ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


class Lite3x3(nn.Module):
    """Pointwise (linear), then depthwise 3x3, batch norm, ReLU (section 3.1, figure 3b)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pointwise: nn.Module = nn.Conv2d(channels, channels, 1, bias=False)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.depthwise(self.pointwise(x))))


class Gate(nn.Module):
    """Aggregation gate: weights in (0, 1) that depend on the input, by channel or one for all (section 3.2)."""

    def __init__(self, channels: int, *, scalar: bool = False) -> None:
        super().__init__()
        hidden = max(1, channels // GATE_REDUCTION)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, 1 if scalar else channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights(x.mean((2, 3), keepdim=True))

    def weights(self, pooled: Tensor) -> Tensor:
        """Weights of a stream from its channels' means, both N×C×1×1 (N×1×1×1 where the gate is scalar)."""
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))))


class FixedGate(nn.Module):
    """Weights in (0, 1), one a channel, that are the same for every input (Table 5, model 8)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights()

    def weights(self) -> Tensor:
        """1×C×1×1."""
        return torch.sigmoid(self.logits).view(1, -1, 1, 1)


class Bottleneck(nn.Module):
    """1x1 reduce, gated streams of growing receptive field, 1x1 restore, residual (figure 4).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        variant: Streams, convolutions and fusion.
        instance_norm: Normalise the residual sum by instance norm (OSNet-IBN).
        inner_norm: Normalise the restored channels by instance norm instead of batch norm (OSNet-AIN).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        variant: NetworkVariant,
        *,
        instance_norm: bool = False,
        inner_norm: bool = False,
    ) -> None:
        super().__init__()
        middle = max(1, out_channels // BOTTLENECK_REDUCTION)
        self.fusion = variant.fusion
        self.reduce = ConvNormReLU(in_channels, middle)
        self.streams = nn.ModuleList(
            nn.Sequential(*(_layer(middle, variant) for _ in range(length))) for length in variant.streams
        )
        self.gate = _gate(middle, variant)
        fused = middle * len(variant.streams) if variant.fusion == "concatenation" else middle
        self.restore = ConvNorm(fused, out_channels, instance_norm=inner_norm)
        self.project = ConvNorm(in_channels, out_channels) if in_channels != out_channels else nn.Identity()
        self.norm: nn.Module = nn.InstanceNorm2d(out_channels, affine=True) if instance_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        gates = stream_gates(self.gate, len(self.streams))
        gated = (gate(stream(reduced)) for stream, gate in zip(self.streams, gates, strict=True))
        fused = fuse(gated, self.fusion)
        return torch.relu(self.norm(self.restore(fused) + self.project(x)))


def fuse(gated: Iterable[Tensor], fusion: Fusion) -> Tensor:
    """Join gated streams, each N×C×H×W: N×C×H×W, or N×TC×H×W by concatenation."""
    return torch.cat(list(gated), 1) if fusion == "concatenation" else reduce(torch.add, gated)


def stream_gates(gate: nn.Module, streams: int) -> list[nn.Module]:
    """The gate of each stream: its own, or the one that all share."""
    return list(gate) if isinstance(gate, nn.ModuleList) else [gate] * streams


def _layer(channels: int, variant: NetworkVariant) -> nn.Module:
    return Lite3x3(channels) if variant.convolution == "lite" else ConvNormReLU(channels, channels, kernel=3)


def _gate(channels: int, variant: NetworkVariant) -> nn.Module:
    if variant.fusion == "separate":
        return nn.ModuleList(Gate(channels) for _ in variant.streams)
    if variant.fusion == "fixed":
        return nn.ModuleList(FixedGate(channels) for _ in variant.streams)
    if variant.fusion in ("addition", "concatenation"):
        return nn.Identity()
    return Gate(channels, scalar=variant.fusion == "streamwise")


class OSNet(nn.Module):
    """The feature extractor; training adds the classifier.

    Input N×3×H×W float, RGB, normalised with the checkpoint's mean and std; output N×512 float, not normalised.

    Attributes:
        config: Width, input size and variant.
    """

    def __init__(self, config: OSNetConfig) -> None:
        super().__init__()
        self.config = config
        variant = config.variant
        stem, *stages = config.channels
        normalised = variant.instance_norm or variant.ain
        self.conv1 = ConvNormReLU(3, stem, kernel=7, stride=variant.stem_stride, instance_norm=normalised)
        self.conv2 = _stage(stem, stages[0], variant, 0)
        self.transition2 = ConvNormReLU(stages[0], stages[0])
        self.conv3 = _stage(stages[0], stages[1], variant, 1)
        self.transition3 = ConvNormReLU(stages[1], stages[1])
        self.conv4 = _stage(stages[1], stages[2], variant, 2)
        self.conv5 = ConvNormReLU(stages[2], stages[2])
        self.fc = nn.Linear(stages[2], config.feature_dim)
        self.fc_norm: nn.Module = nn.BatchNorm1d(config.feature_dim)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        variant = self.config.variant
        x = self.conv1(x)
        if variant.stem_pool:
            x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
        x = nn.functional.avg_pool2d(self.transition2(self.conv2(x)), 2)
        x = nn.functional.avg_pool2d(self.transition3(self.conv3(x)), 2)
        x = self.conv5(self.conv4(x))
        pooled = x.mean((2, 3)) if variant.pooling == "average" else x.amax((2, 3))
        return torch.relu(self.fc_norm(self.fc(pooled)))


def _stage(in_channels: int, out_channels: int, variant: NetworkVariant, stage: int) -> nn.Sequential:
    inputs = [in_channels] + [out_channels] * (variant.blocks[stage] - 1)
    blocks = (
        Bottleneck(
            channels,
            out_channels,
            variant,
            instance_norm=variant.instance_norm and stage == 0,
            inner_norm=variant.has_inner_norm(stage, number),
        )
        for number, channels in enumerate(inputs)
    )
    return nn.Sequential(*blocks)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
