"""What a peak is measured with: convolutions and products of matrices that keep every unit of the CPU busy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reid_edge.system.limits import usable_cpus

Arithmetic = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Something to time.

    Attributes:
        arithmetic: What it is computed in, as the engine reports.
        operations: Of one call, a multiply-add counted as two.
        threads: CPU threads that it takes.
        how: What is computed, by what.
        run: Computes it once.
    """

    arithmetic: Arithmetic
    operations: int
    threads: int
    how: str
    run: Callable[[], object]


#: From a batch to its kernel; None where this CPU or this library has not got the arithmetic.
Build = Callable[[int], Kernel | None]


def candidates(threads: int | None) -> list[Build]:
    """Kernels of OpenVINO, else of ONNX Runtime, else of NumPy, whichever is installed.

    Args:
        threads: CPU threads; None: the library's choice.
    """
    if importlib.util.find_spec("openvino"):
        from reid_edge.benchmark.peak_openvino import openvino_kernels

        return openvino_kernels(threads)
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        from reid_edge.benchmark.peak_onnxruntime import onnxruntime_kernels

        return onnxruntime_kernels(threads or usable_cpus())
    return numpy_kernels(threads or usable_cpus())


def numpy_kernels(threads: int) -> list[Build]:
    """Products of float32 matrices by NumPy's BLAS, whose threads the environment has set."""

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
