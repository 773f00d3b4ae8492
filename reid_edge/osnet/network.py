"""OSNet: omni-scale feature learning (Zhou et al., ICCV 2019, arXiv 1905.00953, Table 1)."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from reid_edge.osnet.config import OSNetConfig

#: Reduction of a bottleneck's 1x1 convolution (section 3.3), and of the gate's hidden layer.
BOTTLENECK_REDUCTION = 4
GATE_REDUCTION = 16
#: Streams of a bottleneck: stream t has t Lite 3x3 layers.
STREAMS = 4


class ConvNorm(nn.Module):
    """Convolution without bias, then batch norm: a *linear* layer."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)

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
    """Unified aggregation gate: channel-wise weights in (0, 1), one gate shared by all streams (section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // GATE_REDUCTION)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))))


class Bottleneck(nn.Module):
    """1x1 reduce, four gated streams of growing receptive field, 1x1 restore, residual (figure 4)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        middle = max(1, out_channels // BOTTLENECK_REDUCTION)
        self.reduce = ConvNormReLU(in_channels, middle)
        self.streams = nn.ModuleList(
            nn.Sequential(*(Lite3x3(middle) for _ in range(length))) for length in range(1, STREAMS + 1)
        )
        self.gate = Gate(middle)
        self.restore = ConvNorm(middle, out_channels)
        self.project = ConvNorm(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        fused = reduce(torch.add, (self.gate(stream(reduced)) for stream in self.streams))
        return torch.relu(self.restore(fused) + self.project(x))


class OSNet(nn.Module):
    """The feature extractor; a classifier is training's business.

    Input N×3×H×W float, RGB, normalised with the checkpoint's mean and std; output N×512 float, not normalised.
    """

    def __init__(self, config: OSNetConfig) -> None:
        super().__init__()
        self.config = config
        stem, *stages = config.channels
        self.conv1 = ConvNormReLU(3, stem, kernel=7, stride=2)
        self.conv2 = _blocks(stem, stages[0])
        self.transition2 = ConvNormReLU(stages[0], stages[0])
        self.conv3 = _blocks(stages[0], stages[1])
        self.transition3 = ConvNormReLU(stages[1], stages[1])
        self.conv4 = _blocks(stages[1], stages[2])
        self.conv5 = ConvNormReLU(stages[2], stages[2])
        self.fc = nn.Linear(stages[2], config.feature_dim)
        self.fc_norm: nn.Module = nn.BatchNorm1d(config.feature_dim)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.conv1(x), 3, stride=2, padding=1)
        x = nn.functional.avg_pool2d(self.transition2(self.conv2(x)), 2)
        x = nn.functional.avg_pool2d(self.transition3(self.conv3(x)), 2)
        x = self.conv5(self.conv4(x))
        pooled = x.mean((2, 3))
        return torch.relu(self.fc_norm(self.fc(pooled)))


def _blocks(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(Bottleneck(in_channels, out_channels), Bottleneck(out_channels, out_channels))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
