"""Measured roofline of this device: its peak in each arithmetic, and its memory bandwidth.

Source of the model: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures", CACM 52 (2009). The best time counts, not the median, since a roof is an upper limit.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from reid_edge.benchmark.memory_bandwidth import measure_bandwidth
from reid_edge.benchmark.peak_kernels import Build, Kernel, numpy_kernels
from reid_edge.benchmark.process import run_module
from reid_edge.benchmark.result import Peak, Roofline
from reid_edge.errors import EngineError, EngineUnavailableError, UsageError
from reid_edge.system.cpu import isa_limit
from reid_edge.system.limits import usable_cpus
from reid_edge.system.threads import thread_limit

#: A wide machine needs more work a call than a narrow one has patience for: batches grow until a call takes this long.
LONG_ENOUGH_SECONDS = 0.002
BATCHES = (1, 8, 64)
#: A kernel runs at least this often, however slow.
MIN_CALLS = 3
#: The processes may take so much longer than they measure: imports, and slow machines' minimum of calls.
GRACE_SECONDS = 120.0


def measure_roofline(threads_options: Sequence[int | None] = (None,), seconds: float = 7.0) -> Roofline:
    """Measure peaks for each number of threads, and memory bandwidth, each in a process of its own.

    Args:
        threads_options: Numbers of CPU threads to measure with; None leaves the choice to the engine.
        seconds: For all together; slow machines take longer, since each kernel runs at least 3 times.

    Raises:
        UsageError: A number of threads below 1.
        EngineError: A process failed; with what it wrote to stderr.
    """
    if any(threads is not None and threads < 1 for threads in threads_options):
        raise UsageError(f"a peak takes at least 1 thread, got {list(threads_options)}.")
    options = list(dict.fromkeys(threads_options))
    share = seconds / (len(options) + 1)
    peaks: list[Peak] = []
    for threads in options:
        peaks += msgspec.json.decode(_in_process("peaks", threads, share), type=list[Peak])
    bandwidth, how = msgspec.json.decode(_in_process("bandwidth", None, share), type=tuple[float, str])
    return Roofline(peaks=_highest(peaks), bandwidth_gbs=bandwidth, bandwidth_how=how)


def measure_peaks(threads: int | None, seconds: float) -> tuple[Peak, ...]:
    """Measure the highest peaks of :func:`installed_kernels`, in this process, with equal time for each kernel."""
    builds = installed_kernels(threads)
    return _highest([peak for build in builds for peak in _time_kernel(build, seconds / len(builds))])


def installed_kernels(threads: int | None) -> list[Build]:
    """Return kernels of OpenVINO, else of ONNX Runtime, else of NumPy; and of the native engine, if installed.

    Args:
        threads: CPU threads; None: the library's choice.
    """
    return [*_library_kernels(threads), *_native_kernels(threads)]


def _native_kernels(threads: int | None) -> list[Build]:
    """Return none where the engine is not installed, or OpenVINO is kept to older instructions: it would not be."""
    from reid_edge.benchmark.peak_native import native_kernels

    try:
        return [] if isa_limit() else native_kernels(threads or thread_limit() or usable_cpus())
    except EngineUnavailableError:
        return []


def _library_kernels(threads: int | None) -> list[Build]:
    if importlib.util.find_spec("openvino"):
        from reid_edge.benchmark.peak_openvino import openvino_kernels

        return openvino_kernels(threads)
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        from reid_edge.benchmark.peak_onnxruntime import onnxruntime_kernels

        return onnxruntime_kernels(threads or thread_limit() or usable_cpus())
    return numpy_kernels(threads or thread_limit() or usable_cpus())


def _time_kernel(build: Build, seconds: float) -> Iterator[Peak]:
    end = time.perf_counter() + seconds
    for batch in BATCHES:
        kernel = build(batch)
        if kernel is None:
            return
        best = _best_seconds(kernel.run, end=0.0)
        if best >= LONG_ENOUGH_SECONDS or batch == BATCHES[-1]:
            yield _peak(kernel, min(best, _best_seconds(kernel.run, end)))
            return
        yield _peak(kernel, best)


def _best_seconds(run: Callable[[], object], end: float) -> float:
    run()
    times: list[float] = []
    while len(times) < MIN_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _peak(kernel: Kernel, seconds: float) -> Peak:
    gflops = kernel.operations / seconds / 1e9
    return Peak(arithmetic=kernel.arithmetic, gflops=round(gflops, 1), threads=kernel.threads, how=kernel.how)


def _gflops(peak: Peak) -> float:
    return peak.gflops


def _highest(peaks: Sequence[Peak]) -> tuple[Peak, ...]:
    """Return the highest peak of each arithmetic and number of threads, in the order of their first appearance."""
    kinds = dict.fromkeys((peak.arithmetic, peak.threads) for peak in peaks)
    return tuple(max((p for p in peaks if (p.arithmetic, p.threads) == kind), key=_gflops) for kind in kinds)


def _in_process(task: str, threads: int | None, seconds: float) -> str:
    """Run a task in a fresh process, and return the last line that it prints."""
    # OpenBLAS reads this when NumPy is imported; the engines take their number as an option.
    blas_threads = threads or thread_limit()
    environment = {"OPENBLAS_NUM_THREADS": str(blas_threads)} if blas_threads else {}
    try:
        run = run_module(
            __name__, task, threads or 0, seconds, environment=environment, timeout=seconds + GRACE_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(
            f"measuring {task} took longer than {error.timeout:.0f} s; leave the roofline out with --no-roofline."
        ) from error
    if run.returncode != 0 or not run.stdout.strip():
        raise EngineError(f"measuring {task} failed (exit status {run.returncode}):\n{run.stderr.strip()[-2000:]}")
    return run.stdout.splitlines()[-1]


def _main(task: str, threads: int, seconds: float) -> None:
    measured = measure_peaks(threads or None, seconds) if task == "peaks" else measure_bandwidth(seconds)
    print(msgspec.json.encode(measured).decode())  # noqa: T201 - what the parent reads


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
