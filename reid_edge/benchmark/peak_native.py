"""Peak kernels by the native engine: its own 1x1 convolution on numbers that stay in the first cache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from reid_edge.benchmark.peak_kernels import Arithmetic, Build, Kernel
from reid_edge.runtime.native.library import NativePrecision, available_kernels, compute_peak, stem_products

_PRECISIONS: tuple[NativePrecision, ...] = ("fp32", "bf16", "int8")
#: Of the convolution in one call: some milliseconds with AVX-512.
_ROUNDS = 4000


def native_kernels(threads: int) -> list[Build]:
    """Return a kernel in each arithmetic that the engine computes in on this CPU, for so many CPU threads.

    Where conv1 in float32 multiplies 16 bits, the INT8 kernels of the same name do so too: their peak is that of
    ``int16``.  The CPU may have faster ones for bytes.
    """
    fastest = [(precision, names[0]) for precision in _PRECISIONS if (names := available_kernels(precision))]
    found: list[tuple[Arithmetic, NativePrecision, str]] = [(precision, precision, name) for precision, name in fastest]
    float_kernels = dict(fastest)["fp32"]
    if stem_products("fp32", float_kernels) == 1:
        found.append(("int16", "int8", float_kernels))
    return [partial(_build, *one, threads) for one in found]


def _build(arithmetic: Arithmetic, precision: NativePrecision, kernels: str, threads: int, batch: int) -> Kernel:
    pool = ThreadPoolExecutor(threads)
    rounds = _ROUNDS * batch

    def compute(rounds: int) -> int:
        return compute_peak(precision, rounds, kernels)

    return Kernel(
        arithmetic=arithmetic,
        operations=2 * threads * rounds * compute(1),
        threads=threads,
        how=f"1×1 convolution in the first cache, native {kernels}",
        run=lambda: sum(pool.map(compute, [rounds] * threads)),
    )
