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
#: … while from a frame each resizes differently: torchreid by Pillow's filter, the others by OpenCV's.
WHOLE_COSINE = {"fp32": 0.95, "half": 0.95, "int8": 0.80}
TORCH, TORCHREID = "torch, eager", "torchreid FeatureExtractor"
WARM_UP_SECONDS = 0.6
#: Contenders whose network alone is not timed: it is the same call of torch as the plain one's.
_NETWORK_IS_TORCH = (TORCHREID, "BoxMOT PyTorch")
#: A turn takes longer than its samples: waking up, untimed queries, and the last sample's overrun.
_TURN_OVERHEAD = 1.35
_SHORTEST_TURN_SECONDS = 0.1
_LIMIT_SECONDS = 1
_ORDER_SEED = 0


@dataclass
class Scheduler:
    """The sessions of all contenders, and the findings so far."""

    threads: int
    crops: tuple[int, ...]
    photographs: Path | None
    folder: Path
    say: Callable[[str], object]
    sessions: list[Session] = field(default_factory=list)
    agreement: list[Agreement] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    between_people: tuple[float, float] | None = None

    def drop(self, session: Session, reason: str) -> None:
        """End a session; its contender is listed in the result with the reason."""
        self.not_run[session.name] = reason
        self.say(f"{session.name} is out: {reason}")
        session.worker.close()
        self.sessions.remove(session)

    def close(self) -> None:
        """End all processes."""
        for session in self.sessions:
            session.worker.close()

    def all_do(self, what: Callable[[Session], object], sessions: Sequence[Session] | None = None) -> None:
        """Do one thing in all sessions; one that fails is dropped, and the others go on."""
        for session in list(self.sessions if sessions is None else sessions):
            try:
                what(session)
            except ContenderError as error:
                self.drop(session, str(error))


@dataclass
class Session:
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


def load_all(scheduler: Scheduler, contenders: Sequence[Contender], environment: dict[str, str]) -> None:
    """Start every process and load its model, one after another."""

    def load(session: Session) -> None:
        answer = session.worker.load(scheduler.threads, scheduler.photographs)
        session.load_s = answer["load_s"]
        session.parts = ("whole", "network") if answer["whole"] else ("network",)

    for contender in contenders:
        with interrupts_deferred():
            session = Session(contender, ContenderProcess(contender, environment))
            scheduler.sessions.append(session)
        scheduler.all_do(load, [session])


def prepare_all(scheduler: Scheduler) -> None:
    """Run every query once, warm up, and keep the features."""

    def prepare(session: Session) -> None:
        for part in session.parts:
            for crops in scheduler.crops:
                file = _feature_file(scheduler, session, part, crops)
                answer = session.worker.ask(
                    "prepare", part=part, crops=crops, seconds=WARM_UP_SECONDS, features=str(file)
                )
                session.prepared[part, crops] = answer
                if part == "whole" or session.name not in _NETWORK_IS_TORCH:
                    session.rounds[part, crops] = []

    scheduler.all_do(prepare)


def check_agreement(scheduler: Scheduler) -> None:
    """Drop contenders that compute other features, before anything is timed.

    Raises:
        ContenderError: A reference itself could not be run.
    """
    names = {session.name: session for session in scheduler.sessions}
    for name in (TORCH, TORCHREID):
        if name not in names:
            raise ContenderError(f"{name} is the reference and did not run: {scheduler.not_run.get(name, 'not asked')}")
    scheduler.between_people = _between_people(scheduler, names[TORCHREID])
    references: dict[Part, Session] = {"network": names[TORCH], "whole": names[TORCHREID]}
    for session in list(scheduler.sessions):
        for part in session.parts:
            try:
                scheduler.agreement.append(_agreement(scheduler, session, references[part], part))
            except ContenderError as error:
                scheduler.drop(session, str(error))
                break


def _agreement(scheduler: Scheduler, session: Session, reference: Session, part: Part) -> Agreement:
    """Compare a contender's features with the reference's.

    Raises:
        ContenderError: Not near enough, or not of the same shape.
    """
    crops = max(scheduler.crops)
    ours, theirs = (_unit(np.load(_feature_file(scheduler, one, part, crops))) for one in (session, reference))
    if ours.shape != theirs.shape:
        raise ContenderError(f"{part}: features of shape {ours.shape}, those of {reference.name} {theirs.shape}")
    cosine = np.sum(ours * theirs, axis=1)
    needed = (NETWORK_COSINE if part == "network" else WHOLE_COSINE)[_arithmetic(session.contender)]
    if not cosine.min() >= needed:
        raise ContenderError(f"{part}: lowest cosine {cosine.min():.4f} with {reference.name}, needed {needed}")
    mean, lowest = round(float(cosine.mean()), 6), round(float(cosine.min()), 6)
    return Agreement(
        contender=session.name, part=part, reference=reference.name, mean=mean, lowest=lowest, needed=needed
    )


def _arithmetic(contender: Contender) -> str:
    if contender.precision == "tuned":  # may hold INT8
        return "int8"
    return "half" if contender.precision == "fp32" and contender.floats != "f32" else contender.precision


def _between_people(scheduler: Scheduler, reference: Session) -> tuple[float, float] | None:
    """Mean and highest cosine of two different crops: what agreement must be told from; None with a single crop."""
    crops = max(scheduler.crops)
    features = _unit(np.load(_feature_file(scheduler, reference, "whole", crops)))
    others = (features @ features.T)[np.triu_indices(crops, 1)]
    return (round(float(others.mean()), 4), round(float(others.max()), 4)) if crops > 1 else None


def _unit(features: Features) -> np.ndarray[Any, np.dtype[np.float64]]:
    wide = features.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)  # type: ignore[no-any-return]


def _feature_file(scheduler: Scheduler, session: Session, part: Part, crops: int) -> Path:
    return scheduler.folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', session.name)}.{part}.{crops}.npy"


def time_all(scheduler: Scheduler, limits: Sequence[Contender], *, rounds: int, deadline: float) -> list[Run]:
    """Time round by round: every query of every contender once, in shuffled order, all others stopped.

    Args:
        scheduler: The sessions to time.
        limits: Bundles whose IR benchmark_app times, once a round and number of crops.
        rounds: How many.
        deadline: ``time.monotonic()`` by which all should be done; turns are made as long as that allows.

    Returns:
        Times of the contenders that were not dropped.
    """
    order = random.Random(_ORDER_SEED)
    limit_rounds: dict[tuple[str, int], list[tuple[float, ...]]] = {}
    for done in range(rounds):
        limit_seconds = _time_limits(scheduler, limits, limit_rounds)
        turns = [(session, query) for session in scheduler.sessions for query in session.rounds]
        left = rounds - done
        free = deadline - time.monotonic() - (left - 1) * limit_seconds
        seconds = max(_SHORTEST_TURN_SECONDS, free / (left * len(turns)) / _TURN_OVERHEAD)
        scheduler.say(f"round {done + 1} of {rounds}: {len(turns)} turns of {seconds:.2f} s")
        for session, (part, crops) in order.sample(turns, len(turns)):
            if session in scheduler.sessions:
                scheduler.all_do(partial(_turn, part=part, crops=crops, seconds=seconds), [session])
    return _runs(scheduler, limit_rounds)


def _turn(session: Session, part: Part, crops: int, seconds: float) -> None:
    samples = session.worker.ask("turn", part=part, crops=crops, seconds=seconds)["samples_ms"]
    session.rounds[part, crops].append(tuple(samples))


def _time_limits(
    scheduler: Scheduler, limits: Sequence[Contender], into: dict[tuple[str, int], list[tuple[float, ...]]]
) -> float:
    """Run benchmark_app once for each limit; return the seconds that all of it took."""
    start = time.monotonic()
    for limit in limits:
        for crops in scheduler.crops:
            if limit.name in scheduler.not_run:
                continue
            try:
                median = run_benchmark_app(limit, crops, scheduler.threads, _LIMIT_SECONDS)
            except ContenderError as error:
                scheduler.not_run[limit.name] = str(error)
            else:
                into.setdefault((limit.name, crops), []).append((median,))
    return time.monotonic() - start


def _runs(scheduler: Scheduler, limit_rounds: dict[tuple[str, int], list[tuple[float, ...]]]) -> list[Run]:
    runs = [
        Run(
            contender=session.name,
            part=part,
            crops=crops,
            rounds_ms=tuple(samples),
            summary=summarise(samples),
            first_s=session.prepared[part, crops]["first_s"],
            settled=session.prepared[part, crops]["settled"],
        )
        for session in scheduler.sessions
        for (part, crops), samples in session.rounds.items()
    ]
    runs += [
        Run(contender=name, part="network", crops=crops, rounds_ms=tuple(samples), summary=summarise(samples))
        for (name, crops), samples in limit_rounds.items()
        if name not in scheduler.not_run
    ]
    return runs


def entries(scheduler: Scheduler) -> list[Entry]:
    """Return an entry for each contender that was not dropped."""
    found = []
    for session in scheduler.sessions:
        with contextlib.suppress(ContenderError):
            memory = session.worker.ask("memory")["peak_rss_mb"]
            found.append(Entry(contender=session.contender, load_s=round(session.load_s, 3), peak_rss_mb=memory))
    return found
