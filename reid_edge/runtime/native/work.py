"""Multiply-adds of a plan by kind of layer: what bounds the native engine's time."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from reid_edge.runtime.native.plan import BLOCK, HEADER

Kind = Literal["stem 7×7", "1×1 convolutions", "depthwise 3×3", "gates, sums, feature"]
_THEN_TRANSITION = 1
_THEN_BLOCK = 0
_UNGATED = (0, 3)
_CONCATENATION = 3


def count_work(plan: bytes) -> dict[Kind, int]:
    """Count the multiply-adds of one crop, without the channels that kernels add to fill their vectors.

    The weighted sum of the streams counts as one for each number of each stream.  Pools and norms have none.

    Args:
        plan: As :func:`reid_edge.runtime.native.plan.make_plan` writes it.
    """
    _, _, height, width, features, stem, _, fusion, streams, *rest = HEADER.unpack_from(plan)
    lengths, blocks = rest[:8], rest[8]
    height, width = (height + 1) // 2, (width + 1) // 2
    work: Counter[Kind] = Counter({"stem 7×7": height * width * 147 * stem})
    height, width = (height + 1) // 2, (width + 1) // 2
    outputs = stem
    for index in range(blocks):
        inputs, middle, outputs, hidden, _, then = BLOCK.unpack_from(plan, HEADER.size + index * BLOCK.size)
        pixels, layers = height * width, sum(lengths[:streams])
        fused = middle * (streams if fusion == _CONCATENATION else 1)
        ends = inputs * middle + fused * outputs + (inputs * outputs if inputs != outputs else 0)
        after = 0 if then == _THEN_BLOCK else outputs * outputs
        work["1×1 convolutions"] += pixels * (ends + after + layers * middle**2)
        work["depthwise 3×3"] += pixels * layers * middle * 9
        gates = 0 if fusion in _UNGATED else streams * 2 * hidden * middle
        work["gates, sums, feature"] += gates + pixels * streams * middle
        if then == _THEN_TRANSITION:
            height, width = height // 2, width // 2
    work["gates, sums, feature"] += outputs * features
    return dict(work)
