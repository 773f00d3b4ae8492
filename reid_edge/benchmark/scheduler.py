"""Time variants side by side, each in a process of its own, in interleaved rounds.

Every figure of time in a bundle, a benchmark's result or a tuning record is taken here.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from reid_edge.benchmark.process import interrupts_deferred
from reid_edge.benchmark.session import Session
from reid_edge.benchmark.timing import Failure, Query, Timing, Variant
from reid_edge.errors import EngineError
from reid_edge.runtime.cuda import find_gpu
from reid_edge.system.energy import EnergyMeter
from reid_edge.system.limits import free_memory
from reid_edge.system.sysfs import ROOT

#: Longest warm-up of one query.
WARM_UP_SECONDS = 2.0
#: MiB that a worker may take: Python, an engine, and a network with a few batch sizes compiled.
WORKER_MEBIBYTES = 400
#: MiB that CUDA and TensorRT take besides: on a Jetson of the memory that CPU and GPU share, on a card of its own too.
GPU_MEBIBYTES = 1000
#: Never more workers, however much memory there is: rounds of so many take long enough for the machine to change.
MOST_WORKERS = 24
#: Largest share of a budget that all warming up takes.
_WARM_UP_SHARE = 0.25
#: A turn takes longer than its samples, since the worker has to wake first.
_TURN_OVERHEAD = 1.25
#: Shortest turn, however small the budget; one query is timed in any case.
_SHORTEST_TURN_SECONDS = 0.02
#: Longest time for the layers of one query.
_LAYER_SECONDS = 0.2
_SHUFFLE_SEED = 0


def _ignore(_count: int) -> None:
    return


def step_count(variants: int, queries: int, rounds: int) -> int:
    """Return how many steps :func:`time_variants` reports in all."""
    return variants * queries * (1 + rounds)


def time_variants(
    variants: Sequence[Variant],
    queries: Sequence[Query],
    *,
    rounds: int,
    seconds: float,
    budget_seconds: float | None = None,
    on_step: Callable[[int], object] = _ignore,
    energy_meter: EnergyMeter | None = None,
    with_layers: bool = False,
) -> tuple[list[Timing], list[Failure]]:
    """Time every variant in every query.

    All are loaded and warmed up; then, in each round, each query is timed on every variant in turn, in shuffled order,
    while the others are stopped.  A disturbance of the machine so reaches all of them alike.  Where memory does not
    hold all variants at once, they are timed in groups, in the order given.

    Args:
        variants: Files of bundles, and how they run.
        queries: What each variant computes.
        rounds: Number of rounds, in each of which every variant is timed once in every query.
        seconds: Of samples, for each variant, query and round.
        budget_seconds: Shorten rounds so that all of them take about so long; loading is not shortened.
        on_step: Called with the number of steps done; :func:`step_count` in all.
        energy_meter: Read around each round.
        with_layers: After the rounds, time the layers of each query, where an engine can tell them apart.

    Returns:
        Timings in the order of variants, then queries; and the variants that failed, whose timings are left out.
    """
    timings: list[Timing] = []
    failures: list[Failure] = []
    groups = math.ceil(len(variants) / workers_at_once(on_gpu=any(one.hardware == "gpu" for one in variants)))
    at_once = math.ceil(len(variants) / max(1, groups))
    for start in range(0, len(variants), max(1, at_once)):
        group = variants[start : start + at_once]
        budget = None if budget_seconds is None else budget_seconds * len(group) / len(variants)
        with _Group(group, queries, rounds, Clock(seconds, budget), on_step, energy_meter) as sessions:
            sessions.run()
            if with_layers:
                sessions.time_layers()
            timings += sessions.timings()
            failures += sessions.failures
    return timings, failures


def workers_at_once(root: Path = ROOT, *, on_gpu: bool = False) -> int:
    """Return how many variants may be loaded at once: what half of the free memory holds, and of the card's, 1 to 24.

    Args:
        root: Folder that holds the system's files.
        on_gpu: Whether some of them compute on a GPU of CUDA.
    """
    most = MOST_WORKERS
    if (free := free_memory(root)) is not None:
        most = min(most, free // 2 // (WORKER_MEBIBYTES + on_gpu * GPU_MEBIBYTES << 20))
    if on_gpu and (gpu := find_gpu()) is not None and gpu.memory_bytes and not gpu.shares_memory:
        most = min(most, gpu.memory_bytes // 2 // (GPU_MEBIBYTES << 20))
    return max(1, most)


class Clock:
    """Divides a budget into warm-ups and turns.

    Args:
        seconds: Longest turn.
        budget: Seconds for all warm-ups and turns from now on; None: every turn is as long as it may be.
    """

    def __init__(self, seconds: float, budget: float | None) -> None:
        self._seconds = seconds
        self._budget = budget
        self._end = None if budget is None else time.monotonic() + budget

    def warm_up(self, turns: int) -> float:
        """Return the seconds for each of so many warm-ups."""
        if self._budget is None:
            return WARM_UP_SECONDS
        return min(WARM_UP_SECONDS, _WARM_UP_SHARE * self._budget / turns)

    def turn(self, turns_left: int) -> float:
        """Return the seconds for the next of so many turns."""
        if self._end is None:
            return self._seconds
        left = (self._end - time.monotonic()) / turns_left / _TURN_OVERHEAD
        return min(self._seconds, max(_SHORTEST_TURN_SECONDS, left))


class _Group(contextlib.AbstractContextManager["_Group"]):
    """Sessions of the variants that are loaded at once."""

    def __init__(
        self,
        variants: Sequence[Variant],
        queries: Sequence[Query],
        rounds: int,
        clock: Clock,
        on_step: Callable[[int], object],
        meter: EnergyMeter | None,
    ) -> None:
        self.failures: list[Failure] = []
        self._variants, self._queries, self._rounds = variants, queries, rounds
        self._clock, self._on_step, self._meter = clock, on_step, meter
        self._sessions: list[Session] = []
        self._failed: list[Session] = []
        self._processes = contextlib.ExitStack()

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def run(self) -> None:
        """Load all, then time all, round by round."""
        for variant in self._variants:
            self._prepare(variant)
        order = random.Random(_SHUFFLE_SEED)  # noqa: S311 - an order, not a secret
        for round_ in range(self._rounds):
            self._round(self._rounds - round_, order)

    def time_layers(self) -> None:
        """Time the layers of each query."""
        for session in self._able():
            for query in self._queries:
                seconds = min(_LAYER_SECONDS, self._clock.turn(1))
                self._try(session, partial(session.time_layers, query, seconds), steps=0)

    def timings(self) -> list[Timing]:
        """Return the timings of all that did not fail."""
        source = self._meter.source if self._meter else ""
        return [session.timing(query, source) for session in self._able() for query in self._queries]

    def _able(self) -> list[Session]:
        return [session for session in self._sessions if session not in self._failed]

    def _prepare(self, variant: Variant) -> None:
        seconds = self._clock.warm_up(len(self._variants) * len(self._queries))
        with interrupts_deferred():
            session = Session(variant)
            self._processes.callback(session.process.close)
        self._sessions.append(session)
        self._try(session, session.load, steps=0)
        for query in sorted(self._queries, key=lambda query: query.crops):
            self._try(session, partial(session.prepare, query, seconds))

    def _round(self, rounds_left: int, order: random.Random) -> None:
        seconds = self._clock.turn(rounds_left * max(1, len(self._able())) * len(self._queries))
        for query in self._queries:
            for session in order.sample(self._sessions, len(self._sessions)):
                self._try(session, partial(session.take_turn, query, seconds, self._meter))

    def _try(self, session: Session, act: Callable[[], None], *, steps: int = 1) -> None:
        """Do one thing in a session; one that fails is ended, and the others go on."""
        if session not in self._failed:
            try:
                act()
            except EngineError as error:
                self._failed.append(session)
                self.failures.append(Failure(variant=session.variant, reason=str(error)))
                session.process.close()
        self._on_step(steps)
