"""Time candidates against one another, in stages: all briefly, the best longer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from reid_edge.benchmark.result import Summary
from reid_edge.benchmark.scheduler import step_count, time_variants
from reid_edge.benchmark.statistics import compare, summarise
from reid_edge.benchmark.timing import Query, Timing, Variant
from reid_edge.bundle import Bundle
from reid_edge.errors import UsageError
from reid_edge.manifest import Artifact
from reid_edge.progress import Notify
from reid_edge.system.energy import EnergyMeter
from reid_edge.wording import counted

Goal = Literal["p50", "p99", "throughput", "energy"]
#: Crops a query for throughput, where nobody waits for a single one.
OFFLINE_CROPS = 32
MAX_CROPS = 1024


@dataclass(frozen=True)
class Score:
    """A figure to minimise, with the 95 % interval of the median that it comes from (None for other figures)."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The figure that tuning minimises, and the number of crops in a query.

    Attributes:
        goal: ``p50`` or ``p99`` of a query's milliseconds; ``throughput``: milliseconds a crop when nobody waits;
            ``energy``: joules a crop.
        crops: People of one frame; ignored for throughput.

    Raises:
        UsageError: Crops out of range.
    """

    goal: Goal = "p50"
    crops: int = 1

    def __post_init__(self) -> None:
        if self.crops not in range(1, MAX_CROPS + 1):
            raise UsageError(f"--crops must be from 1 to {MAX_CROPS}, got {self.crops}.")

    @property
    def query(self) -> Query:
        """The query that is timed."""
        if self.goal == "throughput":
            return Query(scenario="offline", crops=OFFLINE_CROPS)
        return Query(scenario="single-stream" if self.crops == 1 else "multi-stream", crops=self.crops)

    @property
    def text(self) -> str:
        """Description for tables and the manifest."""
        crops = counted(self.query.crops, "crop")
        return {
            "p50": f"p50 of {crops}, ms",
            "p99": f"p99 of {crops}, ms",
            "throughput": f"ms a crop, {crops} at once",
            "energy": f"joules a crop, {crops} at once",
        }[self.goal]

    def score(self, timing: Timing) -> Score:
        """Take the figure to minimise from a timing.

        Raises:
            UsageError: Energy was asked for, and was not measured.
        """
        if self.goal == "energy":
            if timing.energy is None:
                raise UsageError("this device reports no energy; use --objective p50, p99 or throughput.")
            return Score(timing.energy.joules_per_crop)
        return _SCORES[self.goal](summarise(timing.rounds_ms), timing.query.crops)


_SCORES: dict[str, Callable[[Summary, int], Score]] = {
    "p50": lambda times, _crops: Score(times.p50, times.ci_low, times.ci_high),
    "p99": lambda times, _crops: Score(times.p99),
    "throughput": lambda times, crops: Score(times.p50 / crops, times.ci_low / crops, times.ci_high / crops),
}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Length of one stage of the measurement.

    Attributes:
        name: For the progress bar and the manifest.
        rounds: How often each file is timed.
        seconds: Of samples, each time.
        share: Of the whole budget, at most this is spent on it, loading apart.
    """

    name: str
    rounds: int
    seconds: float
    share: float


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """Results of a stage, by the name of the candidate (or plain export).

    Attributes:
        scores: Of those that were timed.
        medians_ms: Of each round, for these.
        failures: Why others could not be timed.
        left_out: Why others were not tried.
    """

    scores: dict[str, Score] = field(default_factory=dict)
    medians_ms: dict[str, tuple[float, ...]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def order(self) -> list[str]:
        """Names of those that were timed, best first."""
        return sorted(self.scores, key=lambda name: self.scores[name].value)

    def ties(self, name: str, best: str) -> bool:
        """Return True if one is not surely slower than the best: by the ratios of their medians in the same rounds.

        Figures that are no median (p99, energy) tie only when they are equal.
        """
        if self.scores[name].low is None:
            return self.scores[name] == self.scores[best]
        ratio = compare(*([(median,) for median in self.medians_ms[one]] for one in (name, best)))
        return ratio.low <= 1.0


def measure(
    files: Mapping[str, tuple[Bundle, Artifact]],
    objective: Objective,
    stage: Stage,
    *,
    device: str,
    budget_seconds: float,
    notify: Notify,
    meter: EnergyMeter | None,
) -> StageResult:
    """Time files side by side: interleaved, each in a process of its own.

    Args:
        files: Bundle, and which of its files, by name.
        objective: What is minimised.
        stage: How long.
        device: What computes, as ``--device`` names it.
        budget_seconds: Of the whole tuning; the stage takes its share.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
        meter: For energy.
    """
    variants = {
        name: Variant(bundle=bundle.path, engine=artifact.engine, precision=artifact.precision, device=device)
        for name, (bundle, artifact) in files.items()
    }
    timings, failures = time_variants(
        list(variants.values()),
        [objective.query],
        rounds=stage.rounds,
        seconds=stage.seconds,
        budget_seconds=stage.share * budget_seconds,
        on_step=notify(f"timing: {stage.name}", step_count(len(variants), 1, stage.rounds)),
        energy_meter=meter,
    )
    names = {id(variant): name for name, variant in variants.items()}
    return StageResult(
        scores={names[id(timing.variant)]: objective.score(timing) for timing in timings},
        medians_ms={names[id(timing.variant)]: tuple(map(statistics.median, timing.rounds_ms)) for timing in timings},
        failures={names[id(failure.variant)]: failure.reason for failure in failures},
    )


def fastest_first(result: StageResult, preferred: Sequence[str]) -> list[str]:
    """Names in the order in which they are to be chosen.

    The fastest comes first, unless one that is simpler (earlier in ``preferred``) ties with it.
    """
    left = [name for name in preferred if name in result.scores]
    order = []
    while left:
        best = min(left, key=lambda name: result.scores[name].value)
        chosen = next(name for name in left if name == best or result.ties(name, best))
        order.append(chosen)
        left.remove(chosen)
    return order
