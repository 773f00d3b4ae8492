"""Median latency of a bundle's files for its manifest: a short benchmark."""

from __future__ import annotations

from pathlib import Path

from reid_edge.benchmark.scheduler import time_variants
from reid_edge.benchmark.statistics import summarise
from reid_edge.benchmark.timing import Query, Timing, Variant
from reid_edge.errors import EngineError
from reid_edge.manifest import Artifact, Latency
from reid_edge.system.cpu import cpu_name

#: From a frame and boxes to features, so that a manifest's figures hold for a camera.
QUERIES = (Query(scenario="end-to-end", crops=1), Query(scenario="end-to-end", crops=8))
ROUNDS = 3
SECONDS = 0.35
BUDGET_SECONDS = 4.0


def measure(bundle_path: Path, artifact: Artifact) -> list[Latency]:
    """Time one artifact in a fresh process, from a frame and boxes to features.

    Raises:
        EngineError: It could not be timed; with the reason.
    """
    variant = Variant(bundle=bundle_path, engine=artifact.engine, precision=artifact.precision)
    timings, failures = time_variants([variant], QUERIES, rounds=ROUNDS, seconds=SECONDS, budget_seconds=BUDGET_SECONDS)
    if failures:
        raise EngineError(f"timing {artifact.name} failed:\n{failures[0].reason}")
    return [_latency(artifact, timing) for timing in timings]


def _latency(artifact: Artifact, timing: Timing) -> Latency:
    median = summarise(timing.rounds_ms).p50
    return Latency(artifact=artifact.name, crops=timing.query.crops, median_ms=round(median, 3), device=cpu_name())
