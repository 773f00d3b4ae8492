"""Loads all, checks that their features agree, and times them in interleaved rounds."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contenders import Contender
from inputs import Features
from raw_limit import run_benchmark_app
from results import Agreement, Entry, Part, Run
from workers import ContenderError, ContenderProcess

from reid_edge.benchmark.process import interrupts_deferred
from reid_edge.benchmark.statistics import summarise

#: Of the network alone, on the very same tensor, features of the same float weights differ by rounding only …
NETWORK_COSINE = {"fp32": 0.9999, "half": 0.99, "int8": 0.80}
#: … while from a frame everybody resizes in a way of his own: Pillow's filter of torchreid, OpenCV's of the others.
WHOLE_COSINE = {"fp32": 0.95, "half": 0.95, "int8": 0.80}
TORCH, TORCHREID = "torch, eager", "torchreid FeatureExtractor"
WARM_UP_SECONDS = 0.6
#: Whose network alone is not timed: it is the same call of torch as the plain one's.
_NETWORK_IS_TORCH = (TORCHREID, "BoxMOT PyTorch")
#: What a turn takes beside its samples: waking up, untimed queries, and the last sample's overrun.
_TURN_OVERHEAD = 1.35
_SHORTEST_TURN_SECONDS = 0.1
_LIMIT_SECONDS = 1
_ORDER_SEED = 0


@dataclass
class Stage:
    """All who take part, and what was found so far."""

    threads: int
    crops: tuple[int, ...]
    photographs: Path | None
    folder: Path
    say: Callable[[str], object]
    players: list[Player] = field(default_factory=list)
    agreement: list[Agreement] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    between_people: tuple[float, float] | None = None

    def drop(self, player: Player, reason: str) -> None:
        """Out of the race; said in the result."""
        self.not_run[player.name] = reason
        self.say(f"{player.name} is out: {reason}")
        player.worker.close()
        self.players.remove(player)

    def close(self) -> None:
        """End all processes."""
        for player in self.players:
            player.worker.close()

    def all_do(self, what: Callable[[Player], object], players: Sequence[Player] | None = None) -> None:
        """Whoever fails is dropped, the others go on."""
        for player in list(self.players if players is None else players):
            try:
                what(player)
            except ContenderError as error:
                self.drop(player, str(error))


@dataclass
class Player:
    """A contender, its process, and its times."""

    contender: Contender
    worker: ContenderProcess
    load_s: float = 0.0
    parts: tuple[Part, ...] = ()
    prepared: dict[tuple[Part, int], dict[str, Any]] = field(default_factory=dict)
    rounds: dict[tuple[Part, int], list[tuple[float, ...]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.contender.name


def load_all(stage: Stage, contenders: Sequence[Contender], environment: dict[str, str]) -> None:
    """Start every process and load its model, one after another."""

    def load(player: Player) -> None:
        answer = player.worker.load(stage.threads, stage.photographs)
        player.load_s = answer["load_s"]
        player.parts = ("whole", "network") if answer["whole"] else ("network",)

    for contender in contenders:
        with interrupts_deferred():
            player = Player(contender, ContenderProcess(contender, environment))
            stage.players.append(player)
        stage.all_do(load, [player])


def prepare_all(stage: Stage) -> None:
    """Run every query once, warm up, and keep the features."""

    def prepare(player: Player) -> None:
        for part in player.parts:
            for crops in stage.crops:
                file = _feature_file(stage, player, part, crops)
                answer = player.worker.ask(
                    "prepare", part=part, crops=crops, seconds=WARM_UP_SECONDS, features=str(file)
                )
                player.prepared[part, crops] = answer
                if part == "whole" or player.name not in _NETWORK_IS_TORCH:
                    player.rounds[part, crops] = []

    stage.all_do(prepare)


def check_agreement(stage: Stage) -> None:
    """Drop whoever computes other features, before anything is timed.

    Raises:
        ContenderError: A reference itself could not be run.
    """
    names = {player.name: player for player in stage.players}
    for name in (TORCH, TORCHREID):
        if name not in names:
            raise ContenderError(f"{name} is the reference and did not run: {stage.not_run.get(name, 'not asked')}")
    stage.between_people = _between_people(stage, names[TORCHREID])
    references: dict[Part, Player] = {"network": names[TORCH], "whole": names[TORCHREID]}
    for player in list(stage.players):
        for part in player.parts:
            try:
                stage.agreement.append(_agreement(stage, player, references[part], part))
            except ContenderError as error:
                stage.drop(player, str(error))
                break


def _agreement(stage: Stage, player: Player, reference: Player, part: Part) -> Agreement:
    """How near the contender's features are to the reference's.

    Raises:
        ContenderError: Not near enough, or not of the same shape.
    """
    crops = max(stage.crops)
    ours, theirs = (_unit(np.load(_feature_file(stage, one, part, crops))) for one in (player, reference))
    if ours.shape != theirs.shape:
        raise ContenderError(f"{part}: features of shape {ours.shape}, those of {reference.name} {theirs.shape}")
    cosine = np.sum(ours * theirs, axis=1)
    needed = (NETWORK_COSINE if part == "network" else WHOLE_COSINE)[_arithmetic(player.contender)]
    if not cosine.min() >= needed:
        raise ContenderError(f"{part}: lowest cosine {cosine.min():.4f} with {reference.name}, needed {needed}")
    mean, lowest = round(float(cosine.mean()), 6), round(float(cosine.min()), 6)
    return Agreement(
        contender=player.name, part=part, reference=reference.name, mean=mean, lowest=lowest, needed=needed
    )


def _arithmetic(contender: Contender) -> str:
    if contender.precision == "tuned":  # may hold INT8
        return "int8"
    return "half" if contender.precision == "fp32" and contender.floats != "f32" else contender.precision


def _between_people(stage: Stage, reference: Player) -> tuple[float, float] | None:
    """Mean and highest cosine of two different crops: what agreement must be told from; None with a single crop."""
    crops = max(stage.crops)
    features = _unit(np.load(_feature_file(stage, reference, "whole", crops)))
    others = (features @ features.T)[np.triu_indices(crops, 1)]
    return (round(float(others.mean()), 4), round(float(others.max()), 4)) if crops > 1 else None


def _unit(features: Features) -> np.ndarray[Any, np.dtype[np.float64]]:
    wide = features.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)  # type: ignore[no-any-return]


def _feature_file(stage: Stage, player: Player, part: Part, crops: int) -> Path:
    return stage.folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', player.name)}.{part}.{crops}.npy"


def time_all(stage: Stage, limits: Sequence[Contender], *, rounds: int, deadline: float) -> list[Run]:
    """Rounds: in each, every query of every contender once, in shuffled order, all others asleep.

    Args:
        stage: Who takes part.
        limits: Bundles whose IR benchmark_app times, once a round and number of crops.
        rounds: How many.
        deadline: ``time.monotonic()`` by which all should be done; turns are made as long as that allows.

    Returns:
        Times of those who stayed in to the end.
    """
    order = random.Random(_ORDER_SEED)
    limit_rounds: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for done in range(rounds):
        limit_seconds = _time_limits(stage, limits, limit_rounds)
        turns = [(player, query) for player in stage.players for query in player.rounds]
        left = rounds - done
        free = deadline - time.monotonic() - (left - 1) * limit_seconds
        seconds = max(_SHORTEST_TURN_SECONDS, free / (left * len(turns)) / _TURN_OVERHEAD)
        stage.say(f"round {done + 1} of {rounds}: {len(turns)} turns of {seconds:.2f} s")
        for player, (part, crops) in order.sample(turns, len(turns)):
            if player in stage.players:
                stage.all_do(partial(_turn, part=part, crops=crops, seconds=seconds), [player])
    return _runs(stage, limit_rounds)


def _turn(player: Player, part: Part, crops: int, seconds: float) -> None:
    samples = player.worker.ask("turn", part=part, crops=crops, seconds=seconds)["samples_ms"]
    player.rounds[part, crops].append(tuple(samples))


def _time_limits(
    stage: Stage, limits: Sequence[Contender], into: dict[tuple[str, int], list[tuple[float, ...]]]
) -> float:
    """One run of benchmark_app for each; seconds that it all took."""
    start = time.monotonic()
    for limit in limits:
        for crops in stage.crops:
            if limit.name in stage.not_run:
                continue
            try:
                median = run_benchmark_app(limit, crops, stage.threads, _LIMIT_SECONDS)
            except ContenderError as error:
                stage.not_run[limit.name] = str(error)
            else:
                into.setdefault((limit.name, crops), []).append((median,))
    return time.monotonic() - start


def _runs(stage: Stage, limit_rounds: dict[tuple[str, int], list[tuple[float, ...]]]) -> list[Run]:
    runs = [
        Run(
            contender=player.name,
            part=part,
            crops=crops,
            rounds_ms=tuple(samples),
            summary=summarise(samples),
            first_s=player.prepared[part, crops]["first_s"],
            settled=player.prepared[part, crops]["settled"],
        )
        for player in stage.players
        for (part, crops), samples in player.rounds.items()
    ]
    runs += [
        Run(contender=name, part="network", crops=crops, rounds_ms=tuple(samples), summary=summarise(samples))
        for (name, crops), samples in limit_rounds.items()
        if name not in stage.not_run
    ]
    return runs


def entries(stage: Stage) -> list[Entry]:
    """Who stayed in."""
    found = []
    for player in stage.players:
        with contextlib.suppress(ContenderError):
            memory = player.worker.ask("memory")["peak_rss_mb"]
            found.append(Entry(contender=player.contender, load_s=round(player.load_s, 3), peak_rss_mb=memory))
    return found
