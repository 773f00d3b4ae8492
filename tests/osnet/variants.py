"""The rows of the paper's Table 5, Table 8 and supplement A, other stems, and a network of each by plain arithmetic."""

import torch
import torch.nn.functional as F

from reid_edge.osnet.architecture import NetworkVariant

VARIANTS = {
    "1 primary": NetworkVariant(),
    "2 full conv": NetworkVariant(convolution="standard"),
    "3 same depth": NetworkVariant(streams=(4, 4, 4, 4)),
    "4 concatenation": NetworkVariant(fusion="concatenation"),
    "5 addition": NetworkVariant(fusion="addition"),
    "6 separate AGs": NetworkVariant(fusion="separate"),
    "7 stream-wise": NetworkVariant(fusion="streamwise"),
    "8 learned-and-fixed": NetworkVariant(fusion="fixed"),
    "9 T = 1": NetworkVariant(streams=(1,), fusion="addition"),
    "10 T = 2": NetworkVariant(streams=(1, 2)),
    "11 T = 3": NetworkVariant(streams=(1, 2, 3)),
    "3-8-6": NetworkVariant(blocks=(3, 8, 6)),
    "IBN": NetworkVariant(instance_norm=True),
    "AIN": NetworkVariant(ain=True),
}
#: Of the primary model's weights.
STEMS = {
    "stride 1": NetworkVariant(stem_stride=1),
    "no pool": NetworkVariant(stem_pool=False),
    "stride 1, no pool": NetworkVariant(stem_stride=1, stem_pool=False),
    "maximum": NetworkVariant(pooling="maximum"),
}


class Obvious:
    """What a state dict computes, written from the paper without the network's modules."""

    def __init__(self, weights, variant):
        self.weights, self.variant = weights, variant

    def __call__(self, x):
        stride = self.variant.stem_stride
        x = F.relu(self._norm(self._conv(x, "conv1.conv", stride=stride, padding=3), "conv1.norm"))
        x = F.max_pool2d(x, 3, 2, 1) if self.variant.stem_pool else x
        for stage, count in zip(("conv2", "conv3", "conv4"), self.variant.blocks, strict=True):
            for number in range(count):
                x = self._block(x, f"{stage}.{number}")
            if stage != "conv4":
                name = stage.replace("conv", "transition")
                x = F.avg_pool2d(F.relu(self._conv_norm(x, name)), 2)
        x = F.relu(self._conv_norm(x, "conv5")).flatten(2)
        x = x.mean(2) if self.variant.pooling == "average" else x.max(2).values
        return F.relu(self._norm(F.linear(x, self.weights["fc.weight"], self.weights["fc.bias"]), "fc_norm"))

    def _conv(self, x, name, **how):
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), **how)

    def _norm(self, x, name):
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale, shift = (self.weights[f"{name}.{key}"].view(shape) for key in ("weight", "bias"))
        if f"{name}.running_mean" in self.weights:
            mean, variance = (self.weights[f"{name}.{key}"].view(shape) for key in ("running_mean", "running_var"))
        else:
            mean = x.mean((2, 3), keepdim=True)
            variance = ((x - mean) ** 2).mean((2, 3), keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def _conv_norm(self, x, name, **how):
        return self._norm(self._conv(x, f"{name}.conv", **how), f"{name}.norm")

    def _layer(self, x, name):
        if self.variant.convolution == "standard":
            return F.relu(self._conv_norm(x, name, padding=1))
        x = self._conv(self._conv(x, f"{name}.pointwise"), f"{name}.depthwise", padding=1, groups=x.shape[1])
        return F.relu(self._norm(x, f"{name}.norm"))

    def _gate(self, x, name, stream):
        fusion = self.variant.fusion
        if fusion == "fixed":
            return x / (1 + torch.exp(-self.weights[f"{name}.{stream}.logits"])).view(1, -1, 1, 1)
        if fusion in ("addition", "concatenation"):
            return x
        name = f"{name}.{stream}" if fusion == "separate" else name
        pooled = x.flatten(2).mean(2)[:, :, None, None]
        return x * torch.sigmoid(self._conv(F.relu(self._conv(pooled, f"{name}.fc1")), f"{name}.fc2"))

    def _block(self, x, name):
        reduced = F.relu(self._conv_norm(x, f"{name}.reduce"))
        streams = []
        for number, length in enumerate(self.variant.streams):
            stream = reduced
            for layer in range(length):
                stream = self._layer(stream, f"{name}.streams.{number}.{layer}")
            streams.append(self._gate(stream, f"{name}.gate", number))
        fused = torch.cat(streams, 1) if self.variant.fusion == "concatenation" else sum(streams)
        restored = self._conv_norm(fused, f"{name}.restore")
        if f"{name}.project.conv.weight" in self.weights:
            x = self._conv_norm(x, f"{name}.project")
        total = restored + x
        if self.variant.instance_norm and name.startswith("conv2"):
            total = self._norm(total, f"{name}.norm")
        return F.relu(total)
