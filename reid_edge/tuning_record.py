"""What a tuned bundle says of itself: how its file is run, where that was fastest, and what else was tried."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

FloatType = Literal["f32", "bf16", "f16"]


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How an engine runs a file.

    Attributes:
        threads: CPU threads; None leaves the choice to the engine.
        streams: Parts that a batch is computed in at once, each by its share of the threads; 1: every layer on all.
        float_type: What the layers that are not INT8 are computed in.
    """

    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    streams: Annotated[int, msgspec.Meta(ge=1)] = 1
    float_type: FloatType = "f32"

    def __str__(self) -> str:
        threads = "threads of the engine's choice" if self.threads is None else f"{self.threads} threads"
        return f"{threads}, {self.streams} streams, {self.float_type}"


@dataclass(frozen=True, kw_only=True)
class DeviceClass:
    """What decides whether a choice made on one device holds on another.

    Attributes:
        cpu: Model name of the CPU.
        instruction_sets: Those that matter to inference.
        cpus: Logical CPUs that the process may use.
        isa_limit: ``ONEDNN_MAX_CPU_ISA`` where set.
        gpu: Name of the GPU, for files that run there.
    """

    cpu: str
    instruction_sets: tuple[str, ...]
    cpus: int
    isa_limit: str = ""
    gpu: str = ""

    def differences(self, here: DeviceClass) -> list[str]:
        """What makes ``here`` another class; the CPU's name alone does not: models of one family differ in it."""
        facts = (
            ("instruction sets", ", ".join(self.instruction_sets), ", ".join(here.instruction_sets)),
            ("CPUs", str(self.cpus), str(here.cpus)),
            ("ONEDNN_MAX_CPU_ISA", self.isa_limit or "not set", here.isa_limit or "not set"),
            ("GPU", self.gpu or here.gpu, here.gpu),
        )
        return [f"{name}: there {there}, here {now or 'none'}" for name, there, now in facts if there != now]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate that was tried.

    Attributes:
        name: Short and unique.
        engine: What ran it.
        rewrite: Exact rewrites, e.g. ``fold``, ``merge``; earlier releases named blocks too (``collapse conv3.0``).
        int8: Layers and bottlenecks in INT8, gates left out; earlier releases named halves of bottlenecks too.
        execution: How it ran.
        objective: What was minimised: milliseconds a query, or its inverse for throughput, joules a crop for energy;
            None where it was not timed.
        ci_low: Of the objective, 95 %; ``ci_high``.
        heat: Which stage the objective comes from; figures of different stages were not taken side by side.
        outcome: ``chosen``, ``slower``, ``inaccurate``, ``pruned`` (not tried to the end) or ``failed``.
        note: Why.
    """

    name: str
    engine: str
    rewrite: tuple[str, ...]
    int8: tuple[str, ...]
    execution: Execution
    objective: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    heat: str = ""
    outcome: Literal["chosen", "slower", "inaccurate", "pruned", "failed"]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a tuned file was chosen.

    Attributes:
        device: Where.
        objective: What was minimised, e.g. ``p50 of 8 crops, ms``.
        constraint: What a candidate had to keep, e.g. ``mAP within 0.5 of FP32's on market1501 (3,368 queries)``.
        accuracy: What it kept: figures of merit by name.
        gains: Objective of each plain export ÷ that of the chosen, timed in the same interleaved rounds, by name.
        trials: Everything tried.
        minutes: How long it took.
        tools: Versions of what took part.
    """

    device: DeviceClass
    objective: str
    constraint: str
    accuracy: dict[str, float] = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)
    trials: tuple[Trial, ...]
    minutes: float
    tools: dict[str, str] = field(default_factory=dict)
