"""The network against plain arithmetic on the raw torchreid state dict: another road to the same number."""

import pytest
import torch
import torch.nn.functional as F

from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.osnet.network import OSNet
from tests.osnet.torchreid_names import to_torchreid


def _norm(x, weights, name):
    mean, variance, scale, shift = (
        weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
    )
    shape = (1, -1, *[1] * (x.ndim - 2))
    return (x - mean.view(shape)) / torch.sqrt(variance.view(shape) + 1e-5) * scale.view(shape) + shift.view(shape)


def _conv_norm(x, weights, name):
    return _norm(F.conv2d(x, weights[f"{name}.conv.weight"]), weights, f"{name}.bn")


def _lite(x, weights, name):
    x = F.conv2d(x, weights[f"{name}.conv1.weight"])
    x = F.conv2d(x, weights[f"{name}.conv2.weight"], padding=1, groups=x.shape[1])
    return F.relu(_norm(x, weights, f"{name}.bn"))


def _gate(x, weights, name):
    pooled = x.flatten(2).mean(2)[:, :, None, None]
    hidden = F.relu(F.conv2d(pooled, weights[f"{name}.fc1.weight"], weights[f"{name}.fc1.bias"]))
    return x * torch.sigmoid(F.conv2d(hidden, weights[f"{name}.fc2.weight"], weights[f"{name}.fc2.bias"]))


def _bottleneck(x, weights, name):
    reduced = F.relu(_conv_norm(x, weights, f"{name}.conv1"))
    total = _gate(_lite(reduced, weights, f"{name}.conv2a"), weights, f"{name}.gate")
    for letter, length in (("b", 2), ("c", 3), ("d", 4)):
        stream = reduced
        for layer in range(length):
            stream = _lite(stream, weights, f"{name}.conv2{letter}.{layer}")
        total = total + _gate(stream, weights, f"{name}.gate")
    restored = _conv_norm(total, weights, f"{name}.conv3")
    if f"{name}.downsample.conv.weight" in weights:
        x = _conv_norm(x, weights, f"{name}.downsample")
    return F.relu(restored + x)


def obvious_osnet(x, weights):
    """OSNet as figure 4 and table 1 draw it, weights by torchreid's names."""
    x = F.relu(_norm(F.conv2d(x, weights["conv1.conv.weight"], stride=2, padding=3), weights, "conv1.bn"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage in ("conv2", "conv3", "conv4"):
        x = _bottleneck(_bottleneck(x, weights, f"{stage}.0"), weights, f"{stage}.1")
        if stage != "conv4":
            x = F.avg_pool2d(F.relu(_conv_norm(x, weights, f"{stage}.2.0")), 2)
    x = F.relu(_conv_norm(x, weights, "conv5")).flatten(2).mean(2)
    return F.relu(_norm(F.linear(x, weights["fc.0.weight"], weights["fc.0.bias"]), weights, "fc.1"))


def randomised(network: OSNet) -> OSNet:
    """Batch norms with statistics of their own, as training leaves them."""
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize(("width", "size"), [(0.25, (256, 128)), (0.3, (71, 45)), (1.1, (64, 32)), (0.02, (13, 13))])
def test_features_are_those_of_the_obvious_computation(width, size):
    torch.manual_seed(0)
    network = randomised(OSNet(OSNetConfig(width=width, size=size))).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = obvious_osnet(x, to_torchreid(network.state_dict()))
        assert torch.allclose(network(x), expected, rtol=1e-9, atol=1e-12)
    assert expected.shape == (2, 512)
    assert expected.abs().sum() > 0
