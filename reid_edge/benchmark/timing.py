"""Who is timed doing what, and what was heard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reid_edge.benchmark.records import Energy, Scenario
from reid_edge.bundle import EngineName, Precision


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What one worker loads.

    Attributes:
        bundle: The bundle's folder.
        engine: What runs it.
        precision: Which of the bundle's files.
        threads: CPU threads; None leaves the choice to the engine, or to the file's ``execution``.
        environment: Variables that the worker gets besides this process's, e.g. ``ONEDNN_MAX_CPU_ISA``.
    """

    bundle: Path
    engine: EngineName
    precision: Precision
    threads: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For messages."""
        threads = "" if self.threads is None else f", {self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.engine}/{self.precision} of {self.bundle.name}{threads}"


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked at once: a scenario, and how many crops (:mod:`reid_edge.benchmark.scenarios`)."""

    scenario: Scenario
    crops: int


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One subject's times in one query.

    Attributes:
        subject: What was loaded.
        query: What it was asked.
        rounds_ms: Raw samples of each round, milliseconds a query, in order.
        warm_up: Queries before the first sample.
        settled: Whether times had settled by then.
        load_ms: Of the model form: engine library, check of the files, reading.
        first_ms: First query of this kind, with what the engine compiles for it; nothing is left to compile where a
            query before ran the same batch sizes.
        peak_rss_mb: Peak of the process's resident memory after warming up to this query; smaller ones came before.
        description: Engine library, version and device.
        execution: How a tuned form runs; "" for the engine's defaults.
        energy: Of the rounds; None without a meter.
    """

    subject: Subject
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


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A subject that could not be timed, and why."""

    subject: Subject
    reason: str
