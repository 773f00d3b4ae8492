"""Candidates: the points of the grid that tuning searches, each one way to compute the network on this device."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

from reid_edge.manifest import EngineName, Precision
from reid_edge.osnet.architecture import NetworkVariant, OSNetConfig
from reid_edge.osnet.rewrites import Rewrite, why_illegal
from reid_edge.tuning_record import Execution, FloatType

if TYPE_CHECKING:  # its module needs converters that a machine that only times rewrites lacks
    from reid_edge.tune.engines import TuningEngine

PLAIN = Rewrite()
#: Rewrites of the whole network that are tried, the plain network first.
REWRITES = (
    PLAIN,
    Rewrite(merge=True),
    Rewrite(batch_gates=True),
    Rewrite(join=True),
    Rewrite(merge=True, batch_gates=True),
    Rewrite(batch_gates=True, join=True),
)
FLOAT_NAMES: dict[FloatType, str] = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
_PLAIN_FLOATS: dict[Precision, FloatType] = {"fp32": "f32", "fp16": "f16"}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One point of the grid.

    Attributes:
        engine: What runs it.
        rewrite: Exact rewrite of the network.
        int8: Whether all but the gates is in INT8.
        execution: How it is run; its float type is that of the layers that are not in INT8.
        max_batch: The most crops that the engine takes at once.
    """

    engine: EngineName
    rewrite: Rewrite = PLAIN
    int8: bool = False
    execution: Execution = field(default_factory=Execution)
    max_batch: int

    @property
    def name(self) -> str:
        """Unique in a grid, e.g. ``openvino, batch_gates, int8 + bf16, 2 streams``."""
        execution = self.execution
        rewrite = " + ".join(self.rewrite.names[1:]) or "plain"
        return ", ".join(
            [
                self.engine,
                rewrite,
                _precision_name(execution.float_type, int8=self.int8),
                *([f"{execution.streams} streams"] if execution.streams > 1 else []),
                *([f"threads: {execution.threads}"] if execution.threads is not None else []),
                *([f"batches of {self.max_batch}"] if self.max_batch < _USUAL_MAX_BATCH else []),
            ]
        )

    @property
    def complexity(self) -> tuple[int, ...]:
        """Sorts the simpler first: float32 before other floats before INT8, then fewer rewrites and settings."""
        execution = self.execution
        return (
            self.int8,
            execution.float_type != "f32",
            len(self.rewrite.names),
            execution.streams,
            execution.threads is not None,
        )

    @property
    def key(self) -> str:
        """Names this candidate's folder and its results in the cache."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


_USUAL_MAX_BATCH = 32


def _precision_name(float_type: FloatType, *, int8: bool) -> str:
    if not int8:
        return FLOAT_NAMES[float_type]
    return "int8" if float_type == "f32" else f"int8 + {FLOAT_NAMES[float_type]}"


def grid(engine: TuningEngine, variant: NetworkVariant, max_batch: int) -> list[Candidate]:
    """List the whole grid of an engine, what costs least to try first.

    Args:
        engine: Says which float types and streams it can have.
        variant: Of the network: which rewrites apply to it.
        max_batch: The most crops that the exported files take at once.

    Returns:
        The plain network before rewritten ones, one stream before several.
    """
    tried = REWRITES if engine.rewrites else (PLAIN,)
    rewrites = [each for each in tried if not why_illegal(variant, each)]
    precisions = [
        (int8, float_type)
        for float_type in engine.float_types()
        for int8 in ((False, True) if float_type in engine.int8_float_types else (False,))
    ]
    return [
        Candidate(
            engine=engine.name,
            rewrite=rewrite,
            int8=int8,
            execution=Execution(streams=streams, float_type=float_type),
            max_batch=max_batch,
        )
        for rewrite, streams, (int8, float_type) in product(rewrites, engine.stream_counts(), precisions)
    ]


def plain_candidates(engine: TuningEngine, max_batch: int) -> list[Candidate]:
    """List the candidates that compute what the plain exports of an engine compute."""
    with_int8, *_ = (*engine.int8_float_types, "f32")
    return [
        Candidate(
            engine=engine.name,
            int8=precision == "int8",
            execution=Execution(float_type=_PLAIN_FLOATS.get(precision, with_int8)),
            max_batch=max_batch,
        )
        for precision in engine.plain
    ]


def refinements(candidate: Candidate, engine: TuningEngine) -> Iterator[Candidate]:
    """Yield a candidate with other numbers of threads, and with queries in smaller batches, which may fit a cache."""
    cpus, crops, execution = engine.device_class().cpus, engine.crops, candidate.execution
    for threads in engine.thread_counts():
        if execution.streams <= threads < cpus or (threads == cpus and execution.streams == 1):
            yield replace(candidate, execution=replace(execution, threads=threads))
    for batch in sorted({crops // 2, crops // 4}):
        if batch >= max(2, execution.streams) and batch in (2, 4, 8, 16):
            yield replace(candidate, max_batch=batch)


def int8_parts(config: OSNetConfig) -> tuple[str, ...]:
    """Name what is in INT8 for a manifest: every layer, and every bottleneck without its gates."""
    stages = zip(("conv2", "conv3", "conv4"), config.variant.blocks, strict=True)
    bottlenecks = [f"{stage}.{number}" for stage, count in stages for number in range(count)]
    return ("conv1", "transition2", "transition3", "conv5", "fc", *bottlenecks)
