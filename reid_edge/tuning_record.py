"""Record of a tuning in a bundle's manifest: how the file is run, on which device that was fastest, and all trials."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from reid_edge.wording import counted

FloatType = Literal["f32", "bf16", "f16"]
#: More than any edge device has cores; engines start as many threads as they are given.
MAX_THREADS = 512


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Options that an engine runs a file with.

    Attributes:
        threads: CPU threads; None leaves the choice to the engine.
        streams: Parts that a batch is computed in at once, each by its share of the threads; 1: every layer on all.
        float_type: Type that the layers which are not INT8 are computed in.
    """

    threads: Annotated[int, msgspec.Meta(ge=1, le=MAX_THREADS)] | None = None
    streams: Annotated[int, msgspec.Meta(ge=1, le=MAX_THREADS)] = 1
    float_type: FloatType = "f32"

    def __str__(self) -> str:
        threads = "threads of the engine's choice" if self.threads is None else f"{counted(self.threads, 'thread')}"
        return f"{threads}, {self.streams} streams, {self.float_type}"


@dataclass(frozen=True, kw_only=True)
class DeviceClass:
    """Facts that decide whether a choice made on one device holds on another.

    Attributes:
        cpu: Model name of the CPU.
        instruction_sets: Instruction sets that matter to inference.
        cpus: Logical CPUs that the process may use.
        isa_limit: ``ONEDNN_MAX_CPU_ISA`` where set.
        gpu: Name of the GPU or NPU, for files that run there, with what tells modules of one name apart.
        power_mode: A Jetson's power mode, which sets clocks and cores; "" elsewhere, and in earlier bundles.
        device: What computes, as ``--device`` names it: ``CPU``, where TensorRT runs on the GPU all the same; a device
            of OpenVINO; or a provider of ONNX Runtime.
    """

    cpu: str
    instruction_sets: tuple[str, ...]
    cpus: int
    isa_limit: str = ""
    gpu: str = ""
    power_mode: str = ""
    device: str = "CPU"

    def __str__(self) -> str:
        """Describe it for a person, e.g. ``GPU: Arc A770; AMD EPYC, 2 CPUs``."""
        device = "" if self.device == "CPU" else self.device
        computes = ": ".join(filter(None, (device, self.gpu)))
        mode = f"power mode {self.power_mode}" if self.power_mode else ""
        return "; ".join(filter(None, (computes, f"{self.cpu}, {counted(self.cpus, 'CPU')}", mode)))

    def differences(self, here: DeviceClass) -> list[str]:
        """List the facts that make ``here`` another class; the CPU's name is none: it differs within a family."""
        facts = (
            ("device", self.device, here.device),
            ("instruction sets", ", ".join(self.instruction_sets), ", ".join(here.instruction_sets)),
            ("CPUs", str(self.cpus), str(here.cpus)),
            ("ONEDNN_MAX_CPU_ISA", self.isa_limit or "not set", here.isa_limit or "not set"),
            ("NPU" if self.device.startswith("NPU") else "GPU", self.gpu or here.gpu, here.gpu),
            ("power mode", self.power_mode or here.power_mode, here.power_mode),
        )
        return [f"{name}: there {there}, here {now or 'none'}" for name, there, now in facts if there != now]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate that was tried.

    Attributes:
        name: Short name, unique in the tuning.
        engine: Engine that ran it.
        rewrite: Exact rewrites, e.g. ``fold``, ``merge``; earlier releases named blocks too (``collapse conv3.0``).
        int8: Layers and bottlenecks in INT8, gates left out; earlier releases named halves of bottlenecks too.
        execution: Options that it ran with.
        objective: Figure that was minimised: milliseconds a query, its inverse for throughput, or joules a crop; None
            where it was not timed.
        ci_low: Of the objective, 95 %; ``ci_high``.
        heat: Stage whose measurement gave the objective; figures of different stages were not taken side by side.
        outcome: ``chosen``, ``slower``, ``inaccurate``, ``pruned`` (not tried to the end) or ``failed``.
        note: Reason of the outcome.
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
    """Record of how a tuned file was chosen.

    Attributes:
        device: Class of device that it was tuned on.
        objective: Figure that was minimised, e.g. ``p50 of 8 crops, ms``.
        constraint: Accuracy that a candidate had to keep, e.g. ``mAP within 0.5 of FP32's on market1501
            (3,368 queries)``.
        accuracy: Figures of merit of the chosen candidate, by name.
        gains: Objective of each plain export ÷ that of the chosen, timed in the same interleaved rounds, by name.
        trials: All candidates.
        minutes: Duration of the tuning.
        tools: Versions of the packages that took part.
    """

    device: DeviceClass
    objective: str
    constraint: str
    accuracy: dict[str, float] = field(default_factory=dict)
    gains: dict[str, float] = field(default_factory=dict)
    trials: tuple[Trial, ...]
    minutes: float
    tools: dict[str, str] = field(default_factory=dict)
