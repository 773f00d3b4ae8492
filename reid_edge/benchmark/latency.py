"""Median latency of a bundle's artifacts, each in a process of its own.

Engines keep pools of spinning threads; two in one process halve each other.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

from reid_edge.bundle import Artifact, Latency, open_bundle
from reid_edge.crops import Image
from reid_edge.errors import EngineError
from reid_edge.runtime import Extractor
from reid_edge.runtime.cpu import cpu_name

CROPS = (1, 8)
WARM_UP_CALLS = 5
MIN_CALLS = 20
SECONDS = 1.0
#: Height and width of the crops, as a detector might give them.
CROP_SIZE = (220, 90)


def measure(bundle_path: Path, artifact: Artifact) -> list[Latency]:
    """Time one artifact in a fresh process, from crops to features.

    Raises:
        EngineError: The process failed; with what it said.
    """
    command = [sys.executable, "-m", __name__, str(bundle_path), artifact.engine, artifact.precision]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise EngineError(f"timing {artifact.name} failed:\n{run.stderr.strip()[-2000:]}")
    return msgspec.json.decode(run.stdout.splitlines()[-1], type=list[Latency])


def _measure_here(bundle_path: Path, engine: str, precision: str) -> list[Latency]:
    bundle = open_bundle(bundle_path)
    artifact = next(a for a in bundle.manifest.artifacts if (a.engine, a.precision) == (engine, precision))
    extractor = Extractor(bundle, engine=artifact.engine, precision=artifact.precision, cache_dir=None)
    crop = np.random.default_rng(0).integers(0, 256, (*CROP_SIZE, 3), dtype=np.uint8)
    return [
        Latency(artifact=artifact.name, crops=count, median_ms=_median_ms(extractor, [crop] * count), device=cpu_name())
        for count in CROPS
    ]


def _median_ms(extractor: Extractor, crops: list[Image]) -> float:
    for _ in range(WARM_UP_CALLS):
        extractor(crops)
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < MIN_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        extractor(crops)
        times.append(time.perf_counter() - start)
    return round(1000 * statistics.median(times), 3)


if __name__ == "__main__":
    print(msgspec.json.encode(_measure_here(Path(sys.argv[1]), sys.argv[2], sys.argv[3])).decode())
