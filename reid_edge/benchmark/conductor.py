"""Times model forms side by side: each in a process of its own, in interleaved rounds.  The one way to time."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable, Sequence
from functools import partial

from reid_edge.benchmark.memory import workers_at_once
from reid_edge.benchmark.player import Player
from reid_edge.benchmark.process import interrupts_deferred
from reid_edge.benchmark.timing import Failure, Query, Subject, Timing
from reid_edge.errors import EngineError
from reid_edge.system.energy import EnergyMeter

#: Longest warm-up of one query.
WARM_UP_SECONDS = 2.0
#: Of a budget, all warming up takes at most this share.
_WARM_UP_SHARE = 0.25
#: A turn takes longer than its samples: the worker wakes first.
_TURN_OVERHEAD = 1.25
#: Shortest turn, however small the budget; one query is timed in any case.
_SHORTEST_TURN_SECONDS = 0.02
_SHUFFLE_SEED = 0


def _ignore(_count: int) -> None:
    return


def step_count(subjects: int, queries: int, rounds: int) -> int:
    """How many steps :func:`time_subjects` reports in all."""
    return subjects * queries * (1 + rounds)


def time_subjects(
    subjects: Sequence[Subject],
    queries: Sequence[Query],
    *,
    rounds: int,
    seconds: float,
    budget_seconds: float | None = None,
    on_step: Callable[[int], object] = _ignore,
    energy_meter: EnergyMeter | None = None,
) -> tuple[list[Timing], list[Failure]]:
    """Time every subject in every query.

    All are loaded and warmed up; then, in each round, each query is timed on every subject in turn, in shuffled order,
    while the others are stopped.  Whatever disturbs the machine for a while disturbs all of them.  Where memory does
    not hold all subjects at once, they take part in groups, in the order given.

    Args:
        subjects: Model forms.
        queries: What each is asked.
        rounds: How often each is timed.
        seconds: Of samples, for each subject, query and round.
        budget_seconds: Shorten rounds so that all takes about so long; loading takes what it takes.
        on_step: Called with the number of steps done; :func:`step_count` in all.
        energy_meter: Read around each round.

    Returns:
        Timings in the order of subjects, then queries; and the subjects that failed, whose timings are left out.
    """
    timings: list[Timing] = []
    failures: list[Failure] = []
    groups = math.ceil(len(subjects) / workers_at_once())
    at_once = math.ceil(len(subjects) / max(1, groups))
    for start in range(0, len(subjects), max(1, at_once)):
        group = subjects[start : start + at_once]
        budget = None if budget_seconds is None else budget_seconds * len(group) / len(subjects)
        with _Group(group, queries, rounds, Clock(seconds, budget), on_step, energy_meter) as players:
            players.play()
            timings += players.timings()
            failures += players.failures
    return timings, failures


class Clock:
    """How long warming up and turns may take."""

    def __init__(self, seconds: float, budget: float | None) -> None:
        self._seconds = seconds
        self._budget = budget
        self._end = None if budget is None else time.monotonic() + budget

    def warm_up(self, turns: int) -> float:
        """Seconds for each of so many warm-ups."""
        if self._budget is None:
            return WARM_UP_SECONDS
        return min(WARM_UP_SECONDS, _WARM_UP_SHARE * self._budget / turns)

    def turn(self, turns_left: int) -> float:
        """Seconds for the next of so many turns."""
        if self._end is None:
            return self._seconds
        left = (self._end - time.monotonic()) / turns_left / _TURN_OVERHEAD
        return min(self._seconds, max(_SHORTEST_TURN_SECONDS, left))


class _Group(contextlib.AbstractContextManager["_Group"]):
    """Subjects that are loaded at once."""

    def __init__(
        self,
        subjects: Sequence[Subject],
        queries: Sequence[Query],
        rounds: int,
        clock: Clock,
        on_step: Callable[[int], object],
        meter: EnergyMeter | None,
    ) -> None:
        self.failures: list[Failure] = []
        self._subjects, self._queries, self._rounds = subjects, queries, rounds
        self._clock, self._on_step, self._meter = clock, on_step, meter
        self._players: list[Player] = []
        self._failed: list[Player] = []
        self._processes = contextlib.ExitStack()

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def play(self) -> None:
        """Load all, then time all, round by round."""
        seconds = self._clock.warm_up(len(self._subjects) * len(self._queries))
        for subject in self._subjects:
            with interrupts_deferred():
                player = Player(subject)
                self._processes.callback(player.process.close)
            self._players.append(player)
            self._let(player, player.load, steps=0)
            for query in sorted(self._queries, key=lambda query: query.crops):
                self._let(player, partial(player.prepare, query, seconds))
        order = random.Random(_SHUFFLE_SEED)  # noqa: S311 - an order, not a secret
        for round_ in range(self._rounds):
            self._round(self._rounds - round_, order)

    def timings(self) -> list[Timing]:
        """Of those that did not fail."""
        source = self._meter.source if self._meter else ""
        return [player.timing(query, source) for player in self._able() for query in self._queries]

    def _able(self) -> list[Player]:
        return [player for player in self._players if player not in self._failed]

    def _round(self, rounds_left: int, order: random.Random) -> None:
        seconds = self._clock.turn(rounds_left * max(1, len(self._able())) * len(self._queries))
        for query in self._queries:
            for player in order.sample(self._players, len(self._players)):
                self._let(player, partial(player.take_turn, query, seconds, self._meter))

    def _let(self, player: Player, act: Callable[[], None], *, steps: int = 1) -> None:
        """One that fails takes no further part; the others go on."""
        if player not in self._failed:
            try:
                act()
            except EngineError as error:
                self._failed.append(player)
                self.failures.append(Failure(subject=player.subject, reason=str(error)))
                player.process.close()
        self._on_step(steps)
