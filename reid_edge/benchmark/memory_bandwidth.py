"""Memory bandwidth, measured by the two STREAM kernels that NumPy runs in one pass.

Source: McCalpin, "Memory bandwidth and machine balance in current high performance computers" (1995) and
https://www.cs.virginia.edu/stream/ref.html: arrays of at least four times the last-level caches; COPY counts 16 bytes
an element, SUM 24; what a cache fetches before it is overwritten is not counted; the best pass after the first counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reid_edge.system.cpu import cache_sizes
from reid_edge.system.limits import free_memory, usable_cpus
from reid_edge.system.sysfs import ROOT
from reid_edge.wording import counted

_ARRAYS = 3
_TIMES_CACHE = 4
_LEAST_BYTES = 64 << 20
_MOST_BYTES = 512 << 20
_MIN_PASSES = 4

_Array = npt.NDArray[np.float64]
_Kernel = Callable[[_Array, _Array, _Array], object]


def measure_bandwidth(seconds: float, threads: int | None = None, root: Path = ROOT) -> tuple[float, str]:
    """Measure memory bandwidth.

    Args:
        seconds: Time to measure for.
        threads: Python threads, which NumPy lets run at once; None: one for each usable CPU.
        root: Root of the system's files.

    Returns:
        10⁹ bytes a second, read plus written, and how they were measured, in words.
    """
    threads = threads or usable_cpus(root)
    array_bytes, large_enough = _array_bytes(root)
    kernels: dict[str, tuple[_Kernel, int]] = {
        "copy": (lambda a, b, c: np.copyto(c, a), 2),  # noqa: ARG005 - STREAM's kernels have one signature
        "sum": (lambda a, b, c: np.add(a, b, out=c), 3),
    }
    with ThreadPoolExecutor(threads) as pool:
        elements = array_bytes // 8 // threads
        parts = list(pool.map(lambda _: _arrays(elements), range(threads)))
        rates = {
            name: moved * 8 * elements * threads / _best_pass(pool, kernel, parts, seconds / len(kernels)) / 1e9
            for name, (kernel, moved) in kernels.items()
        }
    best = max(rates, key=lambda name: rates[name])
    size = f"{array_bytes >> 20} MiB" + ("" if large_enough else ", less than 4 times the caches")
    method = f"STREAM {best}, {_ARRAYS} arrays of {size}, {counted(threads, 'thread')}, NumPy {np.__version__}"
    return rates[best], method


def _array_bytes(root: Path) -> tuple[int, bool]:
    """Return the bytes of one array, and whether memory allows STREAM's rule."""
    caches = cache_sizes(root)
    wanted = max(_LEAST_BYTES, _TIMES_CACHE * caches[max(caches)] if caches else 0)
    free = free_memory(root)
    most = min(_MOST_BYTES, free // (2 * _ARRAYS) if free is not None else _MOST_BYTES)
    return min(wanted, most), wanted <= most


def _arrays(elements: int) -> tuple[_Array, _Array, _Array]:
    """Return arrays filled by the thread that will use them, so that they lie in its memory."""
    return np.full(elements, 1.0), np.full(elements, 2.0), np.zeros(elements)


def _best_pass(
    pool: ThreadPoolExecutor, kernel: _Kernel, parts: list[tuple[_Array, _Array, _Array]], seconds: float
) -> float:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _MIN_PASSES or time.perf_counter() < end:
        start = time.perf_counter()
        list(pool.map(lambda part: kernel(*part), parts))
        times.append(time.perf_counter() - start)
    return min(times[1:])
