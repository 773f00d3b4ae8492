"""Times candidates against one another, in heats: all briefly, the best longer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from reid_edge.benchmark.scheduler import step_count, time_variants
from reid_edge.benchmark.statistics import compare
from reid_edge.benchmark.timing import Variant
from reid_edge.bundle import Bundle, EngineName, Precision
from reid_edge.system.energy import EnergyMeter
from reid_edge.tune.objective import Objective, Score


@dataclass(frozen=True, kw_only=True)
class Heat:
    """How long a heat takes.

    Attributes:
        name: For the progress bar and the journal.
        rounds: How often each entrant is timed.
        seconds: Of samples, each time.
        budget_seconds: All of it, loading and warming up apart, is made to take no longer.
    """

    name: str
    rounds: int
    seconds: float
    budget_seconds: float


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a heat measured, by entrant.

    Attributes:
        scores: Those that were timed.
        medians_ms: Of each round, for these.
        failures: Why the others were not.
    """

    scores: dict[str, Score] = field(default_factory=dict)
    medians_ms: dict[str, tuple[float, ...]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def order(self) -> list[str]:
        """Entrants, best first."""
        return sorted(self.scores, key=lambda name: self.scores[name].value)

    def ties(self, name: str, best: str) -> bool:
        """Whether one is not surely slower than the best: by the ratios of their medians in the same rounds.

        Figures that are no median (p99, energy) tie only when they are equal.
        """
        if self.scores[name].low is None:
            return self.scores[name] == self.scores[best]
        ratio = compare(*([(median,) for median in self.medians_ms[one]] for one in (name, best)))
        return ratio.low <= 1.0


def run_heat(
    entrants: Mapping[str, tuple[Bundle, Precision]],
    engine: EngineName,
    objective: Objective,
    heat: Heat,
    notify: Callable[[str, int], Callable[..., object]],
    meter: EnergyMeter | None,
) -> Standing:
    """Time every entrant, interleaved, each in a process of its own.

    Args:
        entrants: Bundle and file, by name.
        engine: What runs them.
        objective: What is minimised.
        heat: How long.
        notify: Told of progress.
        meter: For energy.
    """
    variants = {
        name: Variant(bundle=bundle.path, engine=engine, precision=precision)
        for name, (bundle, precision) in entrants.items()
    }
    on_step = notify(f"timing: {heat.name}", step_count(len(variants), 1, heat.rounds))
    timings, failures = time_variants(
        list(variants.values()),
        [objective.query],
        rounds=heat.rounds,
        seconds=heat.seconds,
        budget_seconds=heat.budget_seconds,
        on_step=on_step,
        energy_meter=meter,
    )
    names = {id(variant): name for name, variant in variants.items()}
    return Standing(
        scores={names[id(timing.variant)]: objective.score(timing) for timing in timings},
        medians_ms={names[id(timing.variant)]: tuple(map(statistics.median, timing.rounds_ms)) for timing in timings},
        failures={names[id(failure.variant)]: failure.reason for failure in failures},
    )


def fastest_first(standing: Standing, preferred: Sequence[str]) -> list[str]:
    """Entrants in the order in which they are to be chosen.

    The fastest comes first, unless one that is simpler (earlier in ``preferred``) ties with it.
    """
    left = [name for name in preferred if name in standing.scores]
    order = []
    while left:
        best = min(left, key=lambda name: standing.scores[name].value)
        chosen = next(name for name in left if name == best or standing.ties(name, best))
        order.append(chosen)
        left.remove(chosen)
    return order
