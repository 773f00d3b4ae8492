"""Mult-adds and parameters, counted as the paper's Table 6 counts them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reid_edge.osnet.architecture import GATED, NetworkVariant, OSNetConfig
from reid_edge.osnet.network import OSNet


@dataclass(frozen=True)
class Complexity:
    """Parameters (classifier left out), mult-adds of one crop, and depth as the paper's Table 8 counts it."""

    parameters: int
    mult_adds: int
    depth: int


def complexity(config: OSNetConfig) -> Complexity:
    """Count a network without allocating or running it.

    Mult-adds are the multiply-accumulates of convolutions and linear layers; biases, batch norm, pooling and the
    gating product are not counted.  The paper's 3,384.9M of standard convolutions (model 2) are 3,376.2M so, and
    3,384.2M with one more for each number that a batch norm puts out, as its Table 10 counts.
    """
    with torch.device("meta"):
        network = OSNet(config).eval()
    return Complexity(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        mult_adds=count_mult_adds(network, torch.empty(1, 3, *config.size, device="meta")),
        depth=depth(config.variant),
    )


def depth(variant: NetworkVariant) -> int:
    """Layers with weights on the longest path: 78 of the primary model, 210 of 3-8-6.

    Pointwise and depthwise count as two (Table 8).  Outside of the bottlenecks are conv1, two transitions, conv5, fc
    and a classifier.
    """
    convolutions = max(variant.streams) * (2 if variant.convolution == "lite" else 1)
    gate = 2 if variant.fusion in GATED else 0
    reduce_and_restore = 2
    return 6 + sum(variant.blocks) * (reduce_and_restore + convolutions + gate)


def count_mult_adds(network: nn.Module, example: Tensor) -> int:
    """Mult-adds of one forward pass over ``example``."""
    total = 0

    def count(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    handles = [
        layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        with torch.no_grad():
            network(example)
    finally:
        for handle in handles:
            handle.remove()
    return total
