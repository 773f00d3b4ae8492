"""Kernels that measure a CPU's peak: large enough to keep all its units busy; here NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Arithmetic = Literal["fp32", "fp16", "bf16", "int8", "int16"]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One computation to time.

    Attributes:
        arithmetic: Arithmetic that it is computed in, as the engine reports it.
        operations: Operations of one call, a multiply-add counted as two.
        threads: CPU threads that it takes.
        how: Computation and library, in words.
        run: Computes it once.
    """

    arithmetic: Arithmetic
    operations: int
    threads: int
    how: str
    run: Callable[[], object]


#: Takes a batch size and returns a kernel; None where this CPU or this library does not support the arithmetic.
Build = Callable[[int], Kernel | None]


def numpy_kernels(threads: int) -> list[Build]:
    """Return products of float32 matrices by NumPy's BLAS, whose threads the environment has set."""

    def build(batch: int, size: int) -> Kernel:
        rng = np.random.default_rng(0)
        left, right = (rng.random((rows, size), np.float32) for rows in (128 * batch, size))
        product = np.empty_like(left)
        return Kernel(
            arithmetic="fp32",
            operations=2 * left.size * size,
            threads=threads,
            how=f"product of matrices {len(left)}×{size} and {size}×{size}, NumPy {np.__version__}",
            run=lambda: np.matmul(left, right, out=product),
        )

    return [lambda batch, size=size: build(batch, size) for size in (512, 1024)]  # type: ignore[misc]
