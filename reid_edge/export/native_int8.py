"""Weights and ranges of an INT8 plan: which integers, biases and ranges lose least.

The library rounds each weight to the nearest step when it packs a plan (``native/src/pack.c``).  What it is given here
lies on such steps already, and is chosen layer by layer on the calibration crops, which go through the network twice
side by side: exactly, and with everything rounded that precedes the layer.

* Each output's integers are chosen together, so that their errors cancel for inputs that vary together: coordinate
  descent on eᵀHe from the nearest integers, e the weights' errors and H the covariance of the inputs' bytes (the
  objective of Frantar et al., GPTQ, ICLR 2023).
* The mean error that is left goes into the bias (Nagel et al., Data-Free Quantization, ICCV 2019, section 4.2).
* Ranges are wider than what the few calibration crops reached: a value that is cut off costs more than a coarser step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from reid_edge.runtime.native.plan import Fusion, Norm, PlannedBlock, PlannedNetwork, Then

#: Ranges are the largest values of calibration times this,
MARGIN = 1.25
#: and for each channel at least this part of its activation's largest.
LEAST_RANGE = 0.2
#: Rounds of coordinate descent at most; it ends when no integer changes.
ROUNDS = 20
#: Added to H's diagonal, as a part of its mean: crops that calibration did not see vary in other ways too.
DAMPING = 0.02

_LARGEST = 127
_BYTES = 255
_EPSILON = 1e-5


@dataclass(frozen=True)
class _Map:
    """An activation of the calibration crops, N×C×H×W, exact and as INT8 has it."""

    exact: Tensor
    rounded: Tensor

    def __add__(self, other: _Map) -> _Map:
        return _Map(self.exact + other.exact, self.rounded + other.rounded)

    def relu(self) -> _Map:
        return _Map(torch.relu(self.exact), torch.relu(self.rounded))


@dataclass(frozen=True)
class _Stored:
    """An activation in bytes: its map, and the value of one unit of each channel."""

    map: _Map
    scale: Tensor


class Int8Rounding:
    """Chooses what an INT8 plan holds.

    Args:
        network: Its weights in float32.
        pixels: Calibration crops, N×H×W×3 uint8 BGR.
        mean_bgr: 255 · mean of the training images.
    """

    def __init__(
        self, network: PlannedNetwork, pixels: npt.NDArray[np.uint8], mean_bgr: tuple[float, float, float]
    ) -> None:
        self._network = network
        self._pixels = pixels
        self._mean = torch.tensor(mean_bgr).view(1, 3, 1, 1)
        self._weights = {name: torch.tensor(array) for name, array in network.named_arrays()}
        self._ranges: list[Tensor] = []

    @torch.no_grad()
    def run(self) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
        """Return the weights by name, and the ranges in a plan's order."""
        stored = self._stem()
        for block in self._network.blocks:
            stored = self._block(block, stored)
        weights = {name: tensor.numpy() for name, tensor in self._weights.items()}
        return weights, torch.cat(self._ranges).numpy()

    # ---- the network ----

    def _stem(self) -> _Stored:
        inputs = torch.from_numpy(self._pixels).permute(0, 3, 1, 2).float() - self._mean
        weight = self._weights["conv1.conv.weight"]
        rounded = self._round_stem(weight, inputs)
        bias = self._weights["conv1.conv.bias"]
        out = _Map(*(functional.conv2d(inputs, each, bias, stride=2, padding=3) for each in (weight, rounded)))
        out = self._corrected(out, "conv1.conv.bias")
        if self._network.stem_norm:
            out = self._normed(out, "conv1.norm")
        return self._store(_each(functional.max_pool2d, out.relu(), 3, 2, 1))

    def _block(self, block: PlannedBlock, stored: _Stored) -> _Stored:
        name = block.name
        reduced = self._store(self._convolve(f"{name}.reduce.conv", [stored]).relu())
        fused = self._store(self._fused(block, reduced))
        out = self._store(self._restored(block, fused, stored).relu())
        if not block.after:
            return out
        after = self._convolve(f"{block.after}.conv", [out]).relu()
        return out if block.then == Then.FEATURE else self._store(_each(functional.avg_pool2d, after, 2))

    def _fused(self, block: PlannedBlock, reduced: _Stored) -> _Map:
        streams = []
        for stream, length in enumerate(self._network.lengths):
            layer = reduced
            for index in range(length):
                out = self._lite(f"{block.name}.streams.{stream}.{index}", layer)
                layer = self._store(out)
            streams.append(self._gated(block, stream, out, layer.map))
        if self._network.fusion == Fusion.CONCATENATION:
            return _Map(*(torch.cat([getattr(each, kind) for each in streams], 1) for kind in ("exact", "rounded")))
        return sum(streams[1:], streams[0])

    def _lite(self, name: str, layer: _Stored) -> _Map:
        """A pointwise and a depthwise convolution, whose bias corrects both."""
        pointwise = self._weights[f"{name}.pointwise.weight"]
        (rounded,) = self._round([pointwise], [layer])
        self._weights[f"{name}.pointwise.weight"] = rounded
        taps, bias = self._weights[f"{name}.depthwise.weight"], self._weights[f"{name}.depthwise.bias"]
        taps = taps.view(len(taps), 1, 3, 3)
        between = _convolved(layer.map, pointwise, rounded)
        out = _each(functional.conv2d, between, taps, bias, padding=1, groups=len(taps))
        return self._corrected(out, f"{name}.depthwise.bias").relu()

    def _gated(self, block: PlannedBlock, stream: int, before: _Map, stored: _Map) -> _Map:
        """A stream times its gate, which sees means of what was not yet rounded to bytes."""
        gate = {Fusion.ONE_GATE: "gate", Fusion.GATE_EACH: f"gate.{stream}"}.get(self._network.fusion)
        if gate is None:
            return stored
        (w1, b1), (w2, b2) = (
            (self._weights[f"{block.name}.{gate}.{layer}.weight"], self._weights[f"{block.name}.{gate}.{layer}.bias"])
            for layer in ("fc1", "fc2")
        )

        def gates(x: Tensor) -> Tensor:
            hidden = torch.relu(functional.linear(x.mean((2, 3)), w1, b1))
            return torch.sigmoid(functional.linear(hidden, w2, b2))[:, :, None, None]

        return _Map(stored.exact * gates(before.exact), stored.rounded * gates(before.rounded))

    def _restored(self, block: PlannedBlock, fused: _Stored, stored: _Stored) -> _Map:
        name, projects = f"{block.name}.restore.conv", block.channels[0] != block.channels[2]
        project = f"{block.name}.project.conv"
        if block.norm == Norm.BEFORE_SUM:
            restored = self._normed(self._convolve(name, [fused]), f"{block.name}.restore.norm")
            return restored + (self._convolve(project, [stored]) if projects else stored.map)
        if projects:  # one sum, of the inputs of both
            out = self._convolve(name, [fused, stored], also=project)
        else:
            out = self._convolve(name, [fused], addend=stored.map)
        return self._normed(out, f"{block.name}.norm") if block.norm == Norm.AFTER_SUM else out

    def _convolve(
        self, name: str, inputs: list[_Stored], *, also: str | None = None, addend: _Map | None = None
    ) -> _Map:
        """A 1×1 convolution of one input, or of two by the layers ``name`` and ``also``; its bias corrects the sum."""
        names = [name, also] if also else [name]
        exact = [self._weights[f"{each}.weight"] for each in names]
        rounded = self._round(exact, inputs)
        out = addend
        for layer, stored, before, after in zip(names, inputs, exact, rounded, strict=True):
            self._weights[f"{layer}.weight"] = after
            part = _convolved(stored.map, before, after, self._weights[f"{layer}.bias"])
            out = part if out is None else out + part
        assert out is not None
        return self._corrected(out, f"{name}.bias")

    def _normed(self, out: _Map, name: str) -> _Map:
        gamma, beta = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return _each(functional.instance_norm, out, None, None, gamma, beta, True, 0.0, _EPSILON)

    # ---- what is chosen ----

    def _store(self, out: _Map) -> _Stored:
        most = out.exact.amax((0, 2, 3)) * MARGIN
        ranges = most.maximum(most.max() * LEAST_RANGE).clamp(min=1e-6)
        self._ranges.append(ranges)
        scale = ranges / _BYTES
        step = scale.view(1, -1, 1, 1)
        return _Stored(_Map(out.exact, (out.rounded / step).round().clamp(max=_BYTES) * step), scale)

    def _corrected(self, out: _Map, bias: str) -> _Map:
        error = (out.exact - out.rounded).mean((0, 2, 3))
        self._weights[bias] = self._weights[bias] + error
        return _Map(out.exact, out.rounded + error.view(1, -1, 1, 1))

    def _round(self, weights: list[Tensor], inputs: list[_Stored]) -> list[Tensor]:
        """Weights [outputs][inputs] of one sum, on the steps that the library will find."""
        scale = torch.cat([each.scale for each in inputs])
        units = torch.cat([(each.map.rounded / each.scale.view(1, -1, 1, 1)).flatten(2) for each in inputs], 1)
        joined = torch.cat([each.flatten(1) for each in weights], 1) * scale
        step = joined.abs().amax(1, keepdim=True).clamp(min=1e-12) / _LARGEST
        chosen = choose_integers(joined / step, _covariance(units)) * step / scale
        parts = torch.split(chosen, [each.flatten(1).shape[1] for each in weights], 1)
        return [part.reshape(each.shape) for part, each in zip(parts, weights, strict=True)]

    def _round_stem(self, weight: Tensor, inputs: Tensor) -> Tensor:
        """The weights of conv1, whose inputs are the image's bytes."""
        patches = (functional.unfold(each[None], 7, padding=3, stride=2) for each in inputs)
        covariance = torch.stack([_covariance(each) for each in patches]).mean(0)
        flat = weight.flatten(1)
        step = flat.abs().amax(1, keepdim=True).clamp(min=1e-12) / _LARGEST
        rounded = (choose_integers(flat / step, covariance) * step).reshape(weight.shape)
        self._weights["conv1.conv.weight"] = rounded
        return rounded


def choose_integers(targets: Tensor, covariance: Tensor) -> Tensor:
    """Choose integers near the targets so that the error of each row's sum is small.

    Args:
        targets: outputs×inputs, at most 127 in absolute value.  A row's largest is rounded to the nearest integer in
            any case, so that the step that the library derives from it stays the same.
        covariance: inputs×inputs, of the inputs.

    Returns:
        outputs×inputs whole numbers from −127 to 127.
    """
    inputs = targets.shape[1]
    metric = (covariance + torch.eye(inputs) * (DAMPING * covariance.diagonal().mean() + 1e-9)).double()
    wanted = targets.double()
    chosen = wanted.round()
    largest = wanted.abs().argmax(1)
    for _ in range(ROUNDS):
        before = chosen.clone()
        for k in range(inputs):
            better = ((wanted - chosen) @ metric[:, k] / metric[k, k]).round()
            better[largest == k] = 0
            chosen[:, k] = (chosen[:, k] + better).clamp(-_LARGEST, _LARGEST)
        if torch.equal(before, chosen):
            break
    return chosen.to(targets.dtype)


def _covariance(units: Tensor) -> Tensor:
    """N×C×P to C×C."""
    rows = units.transpose(0, 1).flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    return rows @ rows.T / rows.shape[1]


def _each(function, out: _Map, *arguments, **options) -> _Map:  # type: ignore[no-untyped-def]
    return _Map(function(out.exact, *arguments, **options), function(out.rounded, *arguments, **options))


def _convolved(out: _Map, exact: Tensor, rounded: Tensor, bias: Tensor | None = None) -> _Map:
    return _Map(
        *(
            functional.conv2d(x, w.view(*w.shape[:2], 1, 1), bias)
            for x, w in ((out.exact, exact), (out.rounded, rounded))
        )
    )
