"""How a form may be run on this device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reid_edge.system.limits import usable_cpus
from reid_edge.tune.engines import TuningEngine
from reid_edge.tune.forms import Candidate
from reid_edge.tuning_record import Execution


def refinements(candidate: Candidate, engine: TuningEngine) -> Iterator[Candidate]:
    """The same form with other threads, or with queries in smaller batches, which may fit a cache."""
    cpus, crops, execution = usable_cpus(), engine.crops, candidate.execution
    for threads in engine.thread_counts():
        if execution.streams <= threads < cpus or (threads == cpus and execution.streams == 1):
            changed = replace(execution, threads=threads)
            yield replace(candidate, name=f"{candidate.name}, {threads} threads", execution=changed)
    for batch in sorted({crops // 2, crops // 4}):
        if batch >= max(2, execution.streams) and batch in (2, 4, 8, 16):
            yield replace(candidate, name=f"{candidate.name}, batches of {batch}", max_batch=batch)


def run_by(candidate: Candidate, execution: Execution) -> Candidate:
    """A candidate with its execution in its name."""
    streams = f", {execution.streams} streams" if execution.streams > 1 else ""
    floats = "" if execution.float_type == "f32" else f", {execution.float_type}"
    return replace(candidate, name=f"{candidate.name}{floats}{streams}", execution=execution)
