"""The variants and queries that are timed, and the timings that come of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reid_edge.benchmark.result import Energy, LayerTime, Scenario
from reid_edge.manifest import EngineName, Precision
from reid_edge.runtime.engines.hardware import runs_on_nvidia
from reid_edge.system.energy import Hardware
from reid_edge.wording import counted


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One file of a bundle and how it runs: what one worker loads.

    Attributes:
        bundle: The bundle's folder.
        engine: The engine that runs the file.
        precision: Chooses the engine's file.
        threads: CPU threads; None leaves the choice to the engine, or to the file's ``execution``.
        trusted_keys: Public keys, one of which must have signed the bundle that the worker opens; none: anybody.
        device: What computes: ``CPU``, a device of OpenVINO or a provider of ONNX Runtime.
        environment: Variables that the worker gets besides this process's, e.g. ``ONEDNN_MAX_CPU_ISA``.
    """

    bundle: Path
    engine: EngineName
    precision: Precision
    threads: int | None = None
    trusted_keys: tuple[str, ...] = ()
    device: str = "CPU"
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def hardware(self) -> Hardware:
        """What computes it: ``gpu`` for NVIDIA's."""
        return "gpu" if runs_on_nvidia(self.engine, self.device) else "cpu"

    @property
    def name(self) -> str:
        """A name for messages, e.g. ``openvino/int8 of bundle, 2 threads``, or ``openvino/fp16 of bundle on GPU``."""
        threads = "" if self.threads is None else f", {counted(self.threads, 'thread')}"
        device = "" if self.device == "CPU" else f" on {self.device}"
        return f"{self.engine}/{self.precision} of {self.bundle.name}{device}{threads}"


@dataclass(frozen=True, kw_only=True)
class Query:
    """One call of a variant: a scenario, and how many crops (:func:`reid_edge.benchmark.worker.make_query`)."""

    scenario: Scenario
    crops: int


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One variant's times in one query.

    Attributes:
        variant: The variant that was loaded.
        query: The query that it computed.
        rounds_ms: Raw samples of each round, milliseconds a query, in order.
        warm_up: Queries before the first sample.
        settled: Whether times had settled by then.
        load_ms: Of loading the variant: engine library, check of the files, reading.
        first_ms: First query of this kind, with what the engine compiles for it; nothing is left to compile where a
            query before ran the same batch sizes.
        peak_rss_mb: Peak of the process's resident memory after warming up to this query, MiB; queries of fewer crops
            ran before it.
        description: Engine library, version and device.
        execution: Streams and float type of a tuned file; "" for the engine's defaults.
        energy: Of the rounds; None without a meter.
        layers: Where the time of one query went; empty where it was not asked for, or the engine cannot tell.
    """

    variant: Variant
    query: Query
    rounds_ms: tuple[tuple[float, ...], ...]
    warm_up: int
    settled: bool
    load_ms: float
    first_ms: float
    peak_rss_mb: float | None
    description: str
    execution: str
    energy: Energy | None = None
    layers: tuple[LayerTime, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A variant that could not be timed, and why."""

    variant: Variant
    reason: str
