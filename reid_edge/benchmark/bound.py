"""The shortest time that a CPU's instructions allow the native engine, by kind of layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from reid_edge.benchmark.result import LayerBound
from reid_edge.errors import EngineUnavailableError
from reid_edge.runtime.native.library import NativePrecision, stem_products
from reid_edge.runtime.native.work import count_work

BoundArithmetic = Literal["fp32", "bf16", "int8", "int16"]
#: Takes an arithmetic; returns the measured peak, 10⁹ operations a second, or None.
PeakIn = Callable[[BoundArithmetic], float | None]


def bound_of(
    plan: bytes, precision: NativePrecision, kernels: str, crops: int, peak_in: PeakIn
) -> tuple[LayerBound, ...]:
    """Return the time of each kind of layer at the measured peak of the instructions that compute it.

    1×1 convolutions are computed in the engine's precision; the rest in float32, except conv1 where its kernels
    multiply integers: in INT8 bytes once; else 16 bits once, or bytes twice, by the two halves of such weights.

    Args:
        plan: The network.
        precision: That the engine computes in.
        kernels: Name of its kernels, e.g. ``avx512vnni``.
        crops: Of a query.
        peak_in: Peaks with as many threads as the query ran with.

    Returns:
        Nothing where a peak was not measured, or the kernels are not on this CPU.
    """
    try:
        products = stem_products(precision, kernels)
    except EngineUnavailableError:
        return ()
    of_16_bits = products == 1 and precision != "int8"
    stem: BoundArithmetic = "int16" if of_16_bits else "int8" if products else "fp32"
    computed: dict[str, tuple[BoundArithmetic, int]] = {
        "stem 7×7": (stem, products or 1),
        "1×1 convolutions": (precision, 1),
    }
    bounds = []
    for kind, mult_adds in count_work(plan).items():
        arithmetic, times = computed.get(kind, ("fp32", 1))
        if (peak := peak_in(arithmetic)) is None:
            return ()
        ms = 2 * times * mult_adds * crops / peak / 1e6
        bounds.append(LayerBound(kind=kind, arithmetic=arithmetic, mult_adds=mult_adds * crops, ms=ms))
    return tuple(bounds)
