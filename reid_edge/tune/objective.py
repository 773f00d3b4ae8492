"""What tuning minimises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reid_edge.benchmark.result import Summary
from reid_edge.benchmark.statistics import summarise
from reid_edge.benchmark.timing import Query, Timing
from reid_edge.errors import UsageError

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
    """What is minimised, and how many crops a query has.

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
        """What is timed."""
        if self.goal == "throughput":
            return Query(scenario="offline", crops=OFFLINE_CROPS)
        return Query(scenario="single-stream" if self.crops == 1 else "multi-stream", crops=self.crops)

    @property
    def text(self) -> str:
        """For tables and the manifest."""
        crops = f"{self.query.crops} crop{'s' if self.query.crops > 1 else ''}"
        return {
            "p50": f"p50 of {crops}, ms",
            "p99": f"p99 of {crops}, ms",
            "throughput": f"ms a crop, {crops} at once",
            "energy": f"joules a crop, {crops} at once",
        }[self.goal]

    def score(self, timing: Timing) -> Score:
        """The figure of a timing.

        Raises:
            UsageError: Energy was asked for, and was not measured.
        """
        if self.goal == "energy":
            if timing.energy is None:
                raise UsageError("this device tells no energy; use --objective p50, p99 or throughput.")
            return Score(timing.energy.joules_per_crop)
        return _of_times[self.goal](summarise(timing.rounds_ms), timing.query.crops)


_of_times: dict[str, Callable[[Summary, int], Score]] = {
    "p50": lambda times, _crops: Score(times.p50, times.ci_low, times.ci_high),
    "p99": lambda times, _crops: Score(times.p99),
    "throughput": lambda times, crops: Score(times.p50 / crops, times.ci_low / crops, times.ci_high / crops),
}
