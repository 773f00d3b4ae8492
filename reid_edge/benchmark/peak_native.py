"""Peak kernels by the native engine: its own 1x1 convolution on numbers that stay in the first cache."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from reid_edge.benchmark.peak_kernels import Build, Kernel
from reid_edge.runtime.native.library import NativePrecision, available_kernels, compute_peak

_PRECISIONS: tuple[NativePrecision, ...] = ("fp32", "bf16", "int8")
#: Of the convolution in one call: some milliseconds with AVX-512.
_ROUNDS = 4000


def native_kernels(threads: int) -> list[Build]:
    """Return a kernel in each precision that this CPU has instructions for, for so many CPU threads."""
    return [partial(_build, precision, threads) for precision in _PRECISIONS if available_kernels(precision)]


def _build(precision: NativePrecision, threads: int, batch: int) -> Kernel:
    pool = ThreadPoolExecutor(threads)
    rounds = _ROUNDS * batch

    def run() -> int:
        return sum(pool.map(partial(compute_peak, precision), [rounds] * threads))

    return Kernel(
        arithmetic=precision,
        operations=2 * threads * rounds * compute_peak(precision, 1),
        threads=threads,
        how=f"1×1 convolution in the first cache, native {available_kernels(precision)[0]}",
        run=run,
    )
