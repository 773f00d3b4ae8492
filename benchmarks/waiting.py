"""Measures what an engine's threads cost while they wait: alone, beside busy processes, and between calls.

    python benchmarks/waiting.py BUNDLE [--engine native] [--precision fp32] [--threads 2] [--busy 1] [--rounds 10]
        [--seconds 0.5] [--out FILE]

Threads that compute one crop together wait for one another some twenty times; of a batch each computes crops of its
own.  Where another process takes a core, a thread that waits by spinning burns the time that the others need.  In each
round 1 and 8 crops are computed for so many seconds, alone and beside busy processes; after each the process sleeps.
Printed are medians of the rounds, in milliseconds: the time of a call, its CPU time (of all threads), how many cores
that is, and the CPU time of a second without calls.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

CROPS = (1, 8)
SLEEP_SECONDS = 0.2


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Have so many processes compute while the block runs."""
    with contextlib.ExitStack() as running:
        for _ in range(count):
            command = [sys.executable, __file__, "--compute", str(os.getpid())]
            process = running.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
            running.callback(process.kill)
            process.stdout.readline()  # it begins
        yield


def compute(parent: int) -> None:
    print("begins", flush=True)
    while os.getppid() == parent:
        sum(range(10_000))


def measure(call, seconds: float) -> dict[str, float]:
    """Milliseconds of a call, and of CPU time for a call; then CPU milliseconds of a second without calls."""
    for _ in range(3):
        call()
    samples, cpu, end = [], time.process_time(), time.perf_counter() + seconds
    while not samples or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        samples.append(1000 * (time.perf_counter() - start))
    cpu = 1000 * (time.process_time() - cpu)
    idle = time.process_time()
    time.sleep(SLEEP_SECONDS)
    idle = 1000 * (time.process_time() - idle)
    return {
        "wall_ms": statistics.median(samples),
        "cpu_ms": cpu / len(samples),
        "cores": cpu / sum(samples),
        "idle_cpu_ms": idle / SLEEP_SECONDS,
    }


def measure_rounds(infer, size, options: argparse.Namespace) -> list[dict[str, Any]]:
    batch = np.random.default_rng(0).integers(0, 256, (max(CROPS), *size, 3), dtype=np.uint8)
    measured = []
    for _ in range(options.rounds):
        for crops in CROPS:
            for busy in (0, options.busy):
                with busy_processes(busy):
                    figures = measure(lambda crops=crops: infer(batch[:crops]), options.seconds)
                measured.append({"crops": crops, "busy": busy, **figures})
    return measured


def show(measured: list[dict[str, Any]]) -> None:
    names = ("wall_ms", "cpu_ms", "cores", "idle_cpu_ms")
    print(f"{'crops':>5}{'busy processes':>16}" + "".join(f"{name:>13}" for name in names))
    for crops in CROPS:
        for busy in sorted({one["busy"] for one in measured}):
            fitting = [one for one in measured if (one["crops"], one["busy"]) == (crops, busy)]
            medians = "".join(f"{statistics.median(one[name] for one in fitting):13.3f}" for name in names)
            print(f"{crops:5}{busy:16}{medians}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--engine", default="native")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=1, help="processes that compute beside it")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one measurement")
    parser.add_argument("--out", type=Path, help="JSON with the figures of each round")
    parser.add_argument("--compute", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compute:
        compute(options.compute)
        return
    if not options.bundle:
        parser.error("a bundle is needed")
    from reid_edge.bundle import open_bundle
    from reid_edge.runtime.engines import EngineOptions, load_engine
    from reid_edge.system.device import describe_device

    bundle = open_bundle(options.bundle)
    artifact = bundle.artifact(options.engine, options.precision)
    engine = load_engine(bundle, artifact, EngineOptions(threads=options.threads))
    device = describe_device()
    about = {
        "command": " ".join(sys.argv),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": msgspec.to_builtins(device),
        "load_before": os.getloadavg(),
    }
    measured = measure_rounds(engine.infer, bundle.manifest.input.size, options)
    print(f"{device.name}: {engine.description}, {options.precision}, {options.threads} threads")
    show(measured)
    if options.out:
        options.out.write_text(json.dumps({**about, "rounds": measured}) + "\n")


if __name__ == "__main__":
    main()
