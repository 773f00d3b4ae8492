"""Exact algebra on a trained network: the same function, computed another way.

Each rewrite returns a new network and leaves the given one as it was.  All assume evaluation mode.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from reid_edge.osnet.network import ConvNorm, Lite3x3, OSNet


def fold(network: OSNet) -> OSNet:
    """Fold every batch norm into the convolution or linear layer before it."""
    folded = deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, ConvNorm) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
        elif isinstance(module, Lite3x3) and isinstance(module.norm, nn.BatchNorm2d):
            module.depthwise = fuse_conv_bn_eval(module.depthwise, module.norm)
            module.norm = nn.Identity()
    if isinstance(folded.fc_norm, nn.BatchNorm1d):
        folded.fc = fuse_linear_bn_eval(folded.fc, folded.fc_norm)
        folded.fc_norm = nn.Identity()
    return folded


def fold_scale(network: OSNet, std: tuple[float, float, float]) -> OSNet:
    """Let conv1 take BGR pixels minus mean instead of RGB normalised values.

    The colour order and the division by 255·std go into conv1's weights.  The mean cannot: conv1 pads its *normalised*
    input with zeros.
    """
    scaled = deepcopy(network).eval()
    weight = scaled.conv1.conv.weight
    scale = 255.0 * torch.tensor(std, dtype=weight.dtype).view(1, 3, 1, 1)
    with torch.no_grad():
        weight.copy_((weight / scale).flip(1))
    return scaled
