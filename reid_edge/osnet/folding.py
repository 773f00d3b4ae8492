"""Fold what is constant after training into the convolutions and linear layers: every export begins with this."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from reid_edge.osnet.network import Bottleneck, ConvNorm, FixedGate, Lite3x3, OSNet


def fold(network: OSNet) -> OSNet:
    """Fold every batch norm, and every fixed gate, into the convolution or linear layer before it.

    Instance norms stay, because their statistics depend on the input.

    Args:
        network: As trained; it is left as it was.

    Returns:
        A new network in evaluation mode, with the same features.
    """
    folded = deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
        elif isinstance(module, Lite3x3) and isinstance(module.norm, nn.BatchNorm2d):
            module.depthwise = fuse_conv_bn_eval(module.depthwise, module.norm)
            module.norm = nn.Identity()
    for module in list(folded.modules()):
        if isinstance(module, Bottleneck) and module.fusion == "fixed":
            _fold_fixed_gates(module)
    if isinstance(folded.fc_norm, nn.BatchNorm1d):
        folded.fc = fuse_linear_bn_eval(folded.fc, folded.fc_norm)
        folded.fc_norm = nn.Identity()
    return folded


@torch.no_grad()
def _fold_fixed_gates(block: Bottleneck) -> None:
    """Multiply each stream's last layer by its gate.

    A fixed gate is positive, so it may pass the ReLU before it: w·relu(y) = relu(w·y).
    """
    if not isinstance(block.gate, nn.ModuleList):
        return  # folded before
    for stream, gate in zip(block.streams, block.gate, strict=True):
        assert isinstance(stream, nn.Sequential) and isinstance(gate, FixedGate)
        layer = stream[-1]
        conv = layer.depthwise if isinstance(layer, Lite3x3) else layer.conv
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        weights = gate.weights().flatten()
        conv.weight.mul_(weights.view(-1, 1, 1, 1))
        conv.bias.mul_(weights)
    block.gate = nn.Identity()


def fold_scale(network: OSNet, std: tuple[float, float, float]) -> OSNet:
    """Let conv1 take BGR pixels minus mean instead of RGB normalised values.

    The colour order and the division by 255·std go into conv1's weights.  The mean cannot go into its bias: conv1 pads
    its *normalised* input with zeros, that is, with the mean, and pixels would be padded with black.

    Args:
        network: Takes N×3×H×W RGB, normalised; it is left as it was.
        std: Standard deviation of each channel, RGB, full scale = 1.

    Returns:
        A new network that takes N×3×H×W BGR, 0 to 255, minus 255·mean.
    """
    scaled = deepcopy(network).eval()
    weight = scaled.conv1.conv.weight
    scale = 255.0 * torch.tensor(std, dtype=weight.dtype).view(1, 3, 1, 1)
    with torch.no_grad():
        weight.copy_((weight / scale).flip(1))
    return scaled
