"""Plans written number by number, of networks that no checkpoint has: any channels, streams, gates and norms."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

HEADER = struct.Struct("<8s8I8I2I4f2Q")
BLOCK = struct.Struct("<6I")
ONE_GATE, GATE_EACH, CONCATENATION = 1, 2, 3
BLOCK_AGAIN, TRANSITION, FEATURE = 0, 1, 2


@dataclass(frozen=True)
class RandomPlan:
    """A plan's description, as native/src/plan.h has it, and a seed for its weights.

    Attributes:
        blocks: Of each: middle and output channels, hidden ones of its gates, norm, and what follows it.
    """

    size: tuple[int, int] = (29, 21)
    feature_dim: int = 7
    stem: int = 5
    stem_norm: int = 0
    fusion: int = ONE_GATE
    lengths: tuple[int, ...] = (1, 2)
    blocks: tuple[tuple[int, int, int, int, int], ...] = ((3, 6, 2, 0, TRANSITION), (4, 9, 1, 0, FEATURE))
    with_ranges: bool = False
    seed: int = 0

    @property
    def normed(self) -> bool:
        """Whether it has an instance norm, which magnifies rounding where a channel hardly varies."""
        return bool(self.stem_norm) or any(norm for *_, norm, _ in self.blocks)

    @property
    def _gates(self) -> int:
        return {ONE_GATE: 1, GATE_EACH: len(self.lengths)}.get(self.fusion, 0)

    def weights(self) -> np.ndarray:
        random = np.random.default_rng(self.seed)

        def layer(outputs: int, inputs: int, bias: bool = True) -> list[np.ndarray]:
            return [random.normal(0, (2 / inputs) ** 0.5, outputs * inputs), random.normal(0, 0.1, outputs * bias)]

        def affine(channels: int) -> list[np.ndarray]:
            return [random.uniform(0.5, 1.5, channels), random.normal(0, 0.1, channels)]

        parts = layer(self.stem, 147)
        parts[0] /= 64  # pixels reach 255
        parts += affine(self.stem) if self.stem_norm else []
        inputs = self.stem
        for middle, out, hidden, norm, then in self.blocks:
            parts += layer(middle, inputs)
            for _ in range(sum(self.lengths)):
                parts += layer(middle, middle, bias=False) + layer(middle, 9)
            for _ in range(self._gates):
                parts += layer(hidden, middle) + layer(middle, hidden)
            parts += layer(out, middle * (len(self.lengths) if self.fusion == CONCATENATION else 1))
            parts += layer(out, inputs) if inputs != out else []
            parts += affine(out) if norm else []
            parts += layer(out, out) if then else []
            inputs = out
        return np.concatenate(parts + layer(self.feature_dim, inputs)).astype("<f4")

    def count_ranges(self) -> int:
        fused = len(self.lengths) if self.fusion == CONCATENATION else 1
        of_blocks = (
            middle * (1 + sum(self.lengths) + fused) + out * (2 if then == TRANSITION else 1)
            for middle, out, _, _, then in self.blocks
        )
        return self.stem + sum(of_blocks)

    def encode(self) -> bytes:
        """Return the plan's bytes."""
        weights, ranges = self.weights(), self.count_ranges() * self.with_ranges
        inputs = (self.stem, *(out for _, out, *_ in self.blocks))
        header = HEADER.pack(
            b"reidplan",
            *(1, *self.size, self.feature_dim, self.stem, self.stem_norm, self.fusion, len(self.lengths)),
            *(*self.lengths, *[0] * (8 - len(self.lengths))),
            *(len(self.blocks), 0),
            *(104.0, 116.0, 124.0, 1e-5),
            *(len(weights), ranges),
        )
        records = (
            BLOCK.pack(before, middle, out, hidden, norm, then)
            for before, (middle, out, hidden, norm, then) in zip(inputs, self.blocks, strict=False)
        )
        values = np.random.default_rng(self.seed).uniform(0.5, 3, ranges).astype("<f4")
        return b"".join((header, *records, weights.tobytes(), values.tobytes()))


def random_plan(seed: int, *, with_ranges: bool = False, most_channels: int = 40) -> RandomPlan:
    """Draw a description of up to `most_channels` channels: a block may be wider or narrower than its neighbours."""
    random = np.random.default_rng(seed)

    def channels() -> int:
        return int(random.integers(1, most_channels + 1))

    fusion, count, pools = int(random.integers(4)), int(random.integers(1, 6)), 0
    size = (int(random.integers(13, 50)), int(random.integers(13, 50)))
    blocks = []
    for number in range(count):
        last = number + 1 == count
        then = FEATURE if last else int(random.integers(2)) if pools < 2 else BLOCK_AGAIN
        pools += then == TRANSITION
        out = blocks[-1][1] if blocks and random.integers(2) else channels()
        hidden = int(random.integers(1, 9)) if fusion in (ONE_GATE, GATE_EACH) else 0
        blocks.append((channels(), out, hidden, int(random.integers(3)), then))
    return RandomPlan(
        size=size,
        feature_dim=channels(),
        stem=channels(),
        stem_norm=int(random.integers(2)),
        fusion=fusion,
        lengths=tuple(int(n) for n in random.integers(1, 5, int(random.integers(1, 9)))),
        blocks=tuple(blocks),
        with_ranges=with_ranges,
        seed=seed,
    )
