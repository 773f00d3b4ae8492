"""Plans: descriptions of a network with its weights, for the native engine.

The format is set by ``native/src/plan.h``: a header, a record for each block, weights, and for INT8 the ranges of the
activations.  Nothing in a plan is an offset or a name; the library checks every number before it uses it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from reid_edge.errors import ConfigError
from reid_edge.types import Size

Array = npt.NDArray[np.float32]
#: Names of a folded network's weights, as torch and the ONNX file give them, without the prefix ``network.``.
Weights = Mapping[str, npt.NDArray[np.floating]]

VERSION = 1
HEADER = struct.Struct("<8s8I8I2I4f2Q")
BLOCK = struct.Struct("<6I")
_MAGIC = b"reidplan"
_NORM_EPSILON = 1e-5
#: Limits of ``native/src/plan.h``: streams of a bottleneck, layers of a stream, bottlenecks, channels of a layer and
#: numbers of a feature, numbers of a map.
MAX_STREAMS, MAX_LENGTH, MAX_BLOCKS, MAX_CHANNELS, MAX_MAP = 8, 16, 64, 4096, 1 << 26


class Fusion(IntEnum):
    """How the streams of a bottleneck are joined; fixed gates are folded, so that theirs is an addition."""

    ADDITION, ONE_GATE, GATE_EACH, CONCATENATION = range(4)


class Norm(IntEnum):
    """Where a bottleneck has an instance norm: nowhere, after the residual sum, or on the restored branch."""

    NONE, AFTER_SUM, BEFORE_SUM = range(3)


class Then(IntEnum):
    """What follows a bottleneck: the next one, a transition and its pool, or conv5 and the feature."""

    BLOCK, TRANSITION, FEATURE = range(3)


@dataclass(frozen=True)
class PlannedBlock:
    """A bottleneck.

    Attributes:
        name: Prefix of its weights.
        channels: Of its input, of its streams, of its output.
        hidden: Of its gate; 0 without one.
        norm: Its instance norm.
        then: What follows.
        after: Name of the transition or conv5 that follows, or empty.
    """

    name: str
    channels: tuple[int, int, int]
    hidden: int
    norm: Norm
    then: Then
    after: str


def make_plan(weights: Weights, size: Size, mean: tuple[float, float, float]) -> bytes:
    """Write a network as a plan.

    Args:
        weights: Of a network whose batch norms are folded (:func:`reid_edge.osnet.folding.fold`), and whose conv1 takes
            BGR pixels minus mean (:func:`~reid_edge.osnet.folding.fold_scale`).  Biases that are missing are zero.
        size: Height and width of the input, pixels.
        mean: Of the training images, RGB, full scale = 1.

    Raises:
        ConfigError: The native engine cannot compute this network; the message says why.
    """
    network = PlannedNetwork(weights)
    require_limits(
        size=size,
        mean=mean,
        lengths=network.lengths,
        blocks=len(network.blocks),
        channels=network.channels,
        feature_dim=len(network["fc.weight"]),
    )
    values = np.concatenate([array.ravel() for _, array in network.named_arrays()])
    blocks = network.blocks
    header = HEADER.pack(
        _MAGIC,
        VERSION,
        *size,
        len(network["fc.weight"]),
        len(network["conv1.conv.weight"]),
        int(network.stem_norm),
        network.fusion,
        len(network.lengths),
        *(*network.lengths, *[0] * (MAX_STREAMS - len(network.lengths))),
        *(len(blocks), 0),
        *(255 * part for part in reversed(mean)),
        _NORM_EPSILON,
        *(len(values), 0),
    )
    records = (BLOCK.pack(*block.channels, block.hidden, block.norm, block.then) for block in blocks)
    return b"".join((header, *records, values.astype("<f4").tobytes()))


def require_limits(
    *,
    size: Size,
    mean: tuple[float, float, float],
    lengths: Sequence[int],
    blocks: int,
    channels: Sequence[int],
    feature_dim: int,
) -> None:
    """Refuse a network that is larger than plans are.

    Args:
        size: Height and width of the input, pixels.
        mean: Of the training images, full scale = 1.
        lengths: Layers of each stream.
        blocks: Bottlenecks in all.
        channels: Output channels of conv1, conv2, conv3 and conv4.
        feature_dim: Numbers of a feature.

    Raises:
        ConfigError: It is; the message says in what.
    """
    for what, found, most in (
        ("streams in a bottleneck", len(lengths), MAX_STREAMS),
        ("layers in a stream", max(lengths, default=0), MAX_LENGTH),
        ("bottlenecks", blocks, MAX_BLOCKS),
        ("channels in a layer", max(channels), MAX_CHANNELS),
        ("numbers in a feature", feature_dim, MAX_CHANNELS),
        ("numbers in a map", _largest_map(size, channels), MAX_MAP),
    ):
        if found > most:
            raise ConfigError(
                f"the native engine computes at most {most:,} {what}, and this network has {found:,}. "
                "Use another engine (--engine)."
            )
    if not all(0 <= part <= 1 for part in mean):
        raise ConfigError(
            f"the native engine expects a mean of the images from 0 to 1, full scale = 1, and this network has {mean}. "
            "Use another engine (--engine)."
        )


def _largest_map(size: Size, channels: Sequence[int]) -> int:
    """Count the numbers of the largest map that a stage puts out: conv1 and its pool halve the input, rounded up."""
    height, width = (-(-side // 2) for side in size)
    largest = height * width * channels[0]
    height, width = -(-height // 2), -(-width // 2)
    for count in channels[1:]:
        largest = max(largest, height * width * count)
        height, width = height // 2, width // 2
    return largest


def with_ranges(plan: bytes, ranges: Array) -> bytes:
    """Return a plan with the ranges of its activations, which INT8 needs.

    Args:
        plan: Without ranges.
        ranges: As :meth:`reid_edge.runtime.native.library.NativeNetwork.calibrate` returns them.
    """
    end = HEADER.size
    return plan[: end - 8] + struct.pack("<Q", len(ranges)) + plan[end:] + ranges.astype("<f4").tobytes()


class PlannedNetwork:
    """Reads what a network is from the names and shapes of its weights.

    Raises:
        ConfigError: Weights that this release's plans have no place for.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = {
            name.removeprefix("network."): np.asarray(array, np.float32) for name, array in weights.items()
        }
        self.lengths = self._stream_lengths()
        self.fusion = self._fusion()
        self.blocks = list(self._blocks())

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def __getitem__(self, name: str) -> Array:
        if name not in self._weights:
            raise ConfigError(f"the native engine needs the weights '{name}', which this network does not have.")
        return self._weights[name]

    @property
    def stem_norm(self) -> bool:
        """Whether conv1 has an instance norm."""
        return "conv1.norm.weight" in self

    @property
    def channels(self) -> tuple[int, ...]:
        """Output channels of conv1, conv2, conv3 and conv4."""
        ends = (block.channels[-1] for block in self.blocks if block.then != Then.BLOCK)
        return (len(self["conv1.conv.weight"]), *ends)

    def named_arrays(self) -> Iterator[tuple[str, Array]]:
        """Yield the names of all weights, and these, in the order of a plan.

        Raises:
            ConfigError: Weights of a shape that does not fit, or weights that a plan has no place for.
        """
        used = set()
        for name, shape in self._order():
            used.add(name)
            yield name, self._array(name, shape)
        if unknown := sorted(set(self._weights) - used - {"mean_bgr"}):
            raise ConfigError(
                f"the native engine does not compute this network: it has no place for {', '.join(unknown[:3])} "
                f"({len(unknown)} in all). Use another engine, or export with the rewrite 'fold' alone."
            )

    def _array(self, name: str, shape: tuple[int, ...]) -> Array:
        count = int(np.prod(shape))
        if name not in self._weights and name.endswith(".bias"):
            return np.zeros(shape, np.float32)
        array = self[name]
        if name.endswith("gate.fc2.weight") or ".gate.fc2.bias" in name:  # stream-wise: one number for all channels
            array = np.broadcast_to(array.reshape(len(array), -1), (shape[0], array.size // len(array)))
        if array.size != count:
            raise ConfigError(f"the native engine expects '{name}' of {shape}, got {array.shape}.")
        return array.reshape(shape)

    def _numbers(self, pattern: str) -> list[int]:
        found = (re.match(pattern, name) for name in self._weights)
        return sorted({int(match[1]) for match in found if match})

    def _stream_lengths(self) -> list[int]:
        streams = self._numbers(r"conv2\.0\.streams\.(\d+)\.")
        return [len(self._numbers(rf"conv2\.0\.streams\.{stream}\.(\d+)\.pointwise\.")) for stream in streams]

    def _fusion(self) -> Fusion:
        if "conv2.0.gate.fc1.weight" in self:
            return Fusion.ONE_GATE
        if "conv2.0.gate.0.fc1.weight" in self:
            return Fusion.GATE_EACH
        middle, fused = len(self["conv2.0.reduce.conv.weight"]), self["conv2.0.restore.conv.weight"].shape[1]
        return Fusion.ADDITION if fused == middle else Fusion.CONCATENATION

    def _blocks(self) -> Iterator[PlannedBlock]:
        for stage, after in (("conv2", "transition2"), ("conv3", "transition3"), ("conv4", "conv5")):
            numbers = self._numbers(rf"{stage}\.(\d+)\.")
            for number in numbers:
                last = number == numbers[-1]
                then = Then.BLOCK if not last else Then.FEATURE if after == "conv5" else Then.TRANSITION
                yield self._block(f"{stage}.{number}", then, after if last else "")

    def _block(self, name: str, then: Then, after: str) -> PlannedBlock:
        middle, inputs = self[f"{name}.reduce.conv.weight"].shape[:2]
        outputs = len(self[f"{name}.restore.conv.weight"])
        gate = {Fusion.ONE_GATE: "gate", Fusion.GATE_EACH: "gate.0"}.get(self.fusion)
        hidden = len(self[f"{name}.{gate}.fc1.weight"]) if gate else 0
        norm = Norm.AFTER_SUM if f"{name}.norm.weight" in self else Norm.NONE
        if f"{name}.restore.norm.weight" in self:
            norm = Norm.BEFORE_SUM
        return PlannedBlock(name, (inputs, middle, outputs), hidden, norm, then, after)

    def _order(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield names and shapes of all weights in the order of a plan."""
        stem = len(self["conv1.conv.weight"])
        yield from _conv("conv1.conv", (stem, 3, 7, 7))
        if "conv1.norm.weight" in self:
            yield from _affine("conv1.norm", stem)
        for block in self.blocks:
            yield from self._order_of(block)
        features, inputs = self["fc.weight"].shape
        yield from _conv("fc", (features, inputs))

    def _order_of(self, block: PlannedBlock) -> Iterator[tuple[str, tuple[int, ...]]]:
        name, (inputs, middle, outputs) = block.name, block.channels
        yield from _conv(f"{name}.reduce.conv", (middle, inputs))
        for stream, length in enumerate(self.lengths):
            for layer in range(length):
                prefix = f"{name}.streams.{stream}.{layer}"
                yield f"{prefix}.pointwise.weight", (middle, middle)
                yield from _conv(f"{prefix}.depthwise", (middle, 9))
        for gate in self._gates():
            yield from _conv(f"{name}.{gate}.fc1", (block.hidden, middle))
            yield from _conv(f"{name}.{gate}.fc2", (middle, block.hidden))
        fused = middle * (len(self.lengths) if self.fusion == Fusion.CONCATENATION else 1)
        yield from _conv(f"{name}.restore.conv", (outputs, fused))
        if inputs != outputs:
            yield from _conv(f"{name}.project.conv", (outputs, inputs))
        if block.norm != Norm.NONE:
            yield from _affine(f"{name}.norm" if block.norm == Norm.AFTER_SUM else f"{name}.restore.norm", outputs)
        if block.after:
            yield from _conv(f"{block.after}.conv", (outputs, outputs))

    def _gates(self) -> list[str]:
        if self.fusion == Fusion.ONE_GATE:
            return ["gate"]
        return [f"gate.{stream}" for stream in range(len(self.lengths))] if self.fusion == Fusion.GATE_EACH else []


def _conv(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _affine(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)
