"""One tuning: search, heats, choice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from reid_edge.bundle import Artifact, Bundle, Precision
from reid_edge.errors import EngineError, ParityError, TuningError
from reid_edge.osnet.architecture import OSNetConfig
from reid_edge.progress import Notify
from reid_edge.system.energy import EnergyMeter
from reid_edge.tune.constraint import Constraint, Kept
from reid_edge.tune.evidence import Evidence
from reid_edge.tune.executions import refinements, run_by
from reid_edge.tune.forms import Candidate, Form, make_form, parts
from reid_edge.tune.journal import Journal
from reid_edge.tune.objective import Objective, Score
from reid_edge.tune.profile import Profile, profile
from reid_edge.tune.race import Heat, Standing, fastest_first, run_heat
from reid_edge.tune.search import Probe, absorbing, mixtures
from reid_edge.tune.workshop import Workshop
from reid_edge.tuning_record import Execution, FloatType, Tuning

#: Forms that each float type sends into the first heat; how many candidates the later heats take.
FORMS = 6
SECOND_HEAT = 4
FINALISTS = 4
#: How often each probe is profiled.
PASSES = 2
#: Shares of the budget; the rest is for making and checking finalists.
_PROBING, _HEAT, _FINAL = 0.45, 0.1, 0.15
#: Share of the budget after which no more forms are made where no profile has thinned them out; plans take a while.
_MAKING = 0.65


@dataclass(frozen=True)
class Choice:
    """The candidate chosen, checked, in a bundle of its own, and the evidence."""

    bundle: Bundle
    tuning: Tuning


class Tuner:
    """Finds the fastest candidate that keeps the accuracy.

    Args:
        workshop: Makes candidates.
        objective: What is minimised.
        constraint: What must be kept.
        journal: Remembers measurements across interruptions.
        budget_minutes: About how long it may take; what is left out is written down.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
        meter: For the objective ``energy``.
    """

    def __init__(
        self,
        workshop: Workshop,
        objective: Objective,
        constraint: Constraint,
        journal: Journal,
        *,
        budget_minutes: float,
        notify: Notify,
        meter: EnergyMeter | None = None,
    ) -> None:
        self._workshop, self._objective, self._constraint = workshop, objective, constraint
        self._journal, self._notify, self._meter = journal, notify, meter
        self._budget = 60 * budget_minutes
        self._engine = workshop.engine
        self._evidence = Evidence(workshop.engine.name)
        self._config: OSNetConfig = workshop.reference.network.config

    def run(self) -> Choice:
        """Search, race, choose.

        Raises:
            TuningError: Nothing that ran keeps the accuracy, not even plain FP32.
            OutputError: The work folder cannot be written.
        """
        candidates = {candidate.name: candidate for candidate in self._first_entrants()}
        first = self._heat("first heat", candidates, _HEAT, rounds=3, seconds=0.3)
        refined = [candidates[name] for name in first.order[:SECOND_HEAT]]
        for candidate in refined[:2]:
            refined += refinements(candidate, self._engine)
        candidates |= {candidate.name: candidate for candidate in refined}
        second = self._heat("second heat", {c.name: c for c in refined}, _HEAT, rounds=4, seconds=0.4)
        finalists = [candidates[name] for name in second.order[:FINALISTS]]
        return self._choose(self._with_plain(finalists))

    def _first_entrants(self) -> list[Candidate]:
        entrants = []
        for float_type in self._engine.float_types():
            for name, form in self._forms(float_type):
                for streams in self._engine.stream_counts():
                    execution = Execution(streams=streams, float_type=float_type)
                    entrants.append(run_by(self._candidate(name, form), execution))
        return entrants

    def _forms(self, float_type: FloatType) -> list[tuple[str, Form]]:
        """The most promising forms; each also with the mean absorbed, if they are few enough."""
        asked = self._engine.probes(self._config, float_type)
        if self._engine.profiled:
            measured = self._profiles(asked, float_type)
            if not measured:  # this float type cannot be compiled here
                return []
            forms = mixtures(self._config, [(probe, times.places) for probe, times in measured], most=FORMS)
        else:
            forms = [(probe.name, probe.form) for probe in asked]
        few = forms[: self._engine.absorbing]
        return [*forms, *((f"{name}, absorb_mean", absorbing(self._config, form)) for name, form in few)]

    def _profiles(self, asked: Sequence[Probe], float_type: FloatType) -> list[tuple[Probe, Profile]]:
        """Each probe's layer times, the least of several passes: what disturbs one seldom disturbs the next."""
        on_step = self._notify(f"profiling layers, {float_type}", PASSES * len(asked))
        least: dict[str, Profile] = {}
        for number in range(PASSES):
            for probe in asked:
                candidate = run_by(self._candidate(probe.name, probe.form), Execution(float_type=float_type))
                times = self._profile(candidate, number)
                if times is not None:
                    known = least.get(probe.name)
                    least[probe.name] = times if known is None else known.least(times)
                    self._evidence.add(candidate, "pruned", note=str(least[probe.name]))
                on_step()
        return [(probe, least[probe.name]) for probe in asked if probe.name in least]

    def _profile(self, candidate: Candidate, number: int) -> Profile | None:
        crops = min(self._objective.query.crops, candidate.max_batch)
        key = f"profile {number} {candidate.key}"
        needed = number == 0 and not candidate.form.blocks
        if not needed and not self._journal.knows(key) and self._elapsed() > _PROBING * self._budget:
            if number == 0:
                self._evidence.add(candidate, "pruned", note="no time was left to profile it")
            return None
        try:
            return self._journal.recall(
                key, lambda: profile(self._workshop.candidate(candidate, draft=True), crops), Profile
            )
        except EngineError as error:
            self._evidence.add(candidate, "failed", note=str(error))
            return None

    def _candidate(self, name: str, form: Form) -> Candidate:
        most = max(artifact.max_batch for artifact in self._workshop.base.manifest.artifacts)
        return Candidate(name, form, Execution(), most)

    def _heat(
        self, name: str, candidates: Mapping[str, Candidate], share: float, *, rounds: int, seconds: float
    ) -> Standing:
        def run() -> Standing:
            entrants, failures = self._made(candidates.values())
            heat = Heat(name=name, rounds=rounds, seconds=seconds, budget_seconds=share * self._budget)
            standing = self._race(entrants, heat)
            return replace(standing, failures={**failures, **standing.failures})

        standing = self._journal.recall(_heat_key(name, candidates.values()), run, Standing)
        self._note(standing, candidates, name)
        if not standing.scores:
            reasons = [*standing.failures.values()] or [trial.note for trial in self._evidence.trials.values()]
            raise TuningError(f"nothing could be timed: {'; '.join(dict.fromkeys(reasons))}")
        return standing

    def _made(self, candidates: Collection[Candidate]) -> tuple[dict[str, tuple[Bundle, Precision]], dict[str, str]]:
        """Entrants, and why there are no others."""
        on_step = self._notify("making files", len(candidates))
        made: dict[str, tuple[Bundle, Precision]] = {}
        failures = {}
        for candidate in candidates:
            try:
                if made and self._too_late(candidate):
                    failures[candidate.name] = "no time was left to make it"
                else:
                    made[candidate.name] = (self._workshop.candidate(candidate, draft=True), "tuned")
            except (EngineError, ParityError) as error:
                failures[candidate.name] = str(error)
            on_step()
        return made, failures

    def _too_late(self, candidate: Candidate) -> bool:
        left = self._elapsed() < _MAKING * self._budget
        return not (left or self._engine.profiled or not candidate.form.blocks)

    def _race(self, entrants: Mapping[str, tuple[Bundle, Precision]], heat: Heat) -> Standing:
        return run_heat(entrants, self._engine.name, self._objective, heat, self._notify, self._meter)

    def _note(self, standing: Standing, candidates: Mapping[str, Candidate], heat: str) -> None:
        for name, score in standing.scores.items():
            if name in candidates:
                self._evidence.add(candidates[name], "slower", score=score, heat=heat)
        for name, reason in standing.failures.items():
            if name in candidates:
                self._evidence.add(candidates[name], "failed", note=reason)

    def _with_plain(self, finalists: Sequence[Candidate]) -> list[Candidate]:
        """What the plain exports compute can always be chosen, so that the choice is never slower than they are."""
        plain = [self._candidate("plain float", make_form({}, config=self._config))]
        if "int8" in self._engine.plain:
            int8 = make_form({}, int8=parts(self._config), config=self._config)
            plain.append(self._candidate("plain int8", int8))
        if "fp16" in self._engine.plain:
            plain.append(run_by(plain[0], Execution(float_type="f16")))
        keys = {candidate.key for candidate in plain}
        return [*plain, *(candidate for candidate in finalists if candidate.key not in keys)]

    def _choose(self, finalists: Sequence[Candidate]) -> Choice:
        bundles = self._checked(finalists)
        candidates = {candidate.name: candidate for candidate in finalists if candidate.name in bundles}

        def run() -> Standing:
            entrants: dict[str, tuple[Bundle, Precision]] = {
                name: (bundle, "tuned") for name, bundle in bundles.items()
            }
            base = self._workshop.base
            entrants |= {_plain_name(artifact): (base, artifact.precision) for artifact in self._plain_artifacts()}
            return self._race(
                entrants, Heat(name="final", rounds=10, seconds=0.5, budget_seconds=_FINAL * self._budget)
            )

        standing = self._journal.recall(_heat_key("final", candidates.values()), run, Standing)
        self._note(standing, candidates, "final")
        for name in fastest_first(standing, sorted(candidates, key=lambda name: candidates[name].complexity)):
            kept = self._kept(candidates[name], bundles[name])
            if kept.passed:
                self._evidence.add(candidates[name], "chosen", note=kept.note)
                return Choice(bundles[name], self._tuning(standing, standing.scores[name], kept))
            self._evidence.add(candidates[name], "inaccurate", note=kept.note)
        raise TuningError(
            f"no form keeps the accuracy ({self._constraint.text}): "
            + "; ".join(
                f"{trial.name}: {trial.note}"
                for trial in self._evidence.trials.values()
                if trial.outcome == "inaccurate"
            )
        )

    def _kept(self, candidate: Candidate, bundle: Bundle) -> Kept:
        return self._journal.recall(f"kept {candidate.key}", lambda: self._constraint.judge(bundle), Kept)

    def _checked(self, finalists: Sequence[Candidate]) -> dict[str, Bundle]:
        on_step = self._notify("making and checking finalists", len(finalists))
        bundles = {}
        for candidate in finalists:
            try:
                bundles[candidate.name] = self._workshop.checked(candidate)
            except (EngineError, ParityError) as error:
                self._evidence.add(candidate, "failed", note=str(error))
            on_step()
        return bundles

    def _plain_artifacts(self) -> list[Artifact]:
        held = self._workshop.base.manifest.artifacts
        return [
            artifact
            for artifact in held
            if artifact.engine == self._engine.name and artifact.precision in self._engine.plain
        ]

    def _tuning(self, standing: Standing, chosen: Score, kept: Kept) -> Tuning:
        names = {_plain_name(artifact) for artifact in self._plain_artifacts()}
        return Tuning(
            device=self._engine.device(),
            objective=self._objective.text,
            constraint=self._constraint.text,
            accuracy=kept.figures,
            gains={name: standing.scores[name].value / chosen.value for name in sorted(names & set(standing.scores))},
            trials=tuple(self._evidence.trials.values()),
            minutes=self._elapsed() / 60,
            tools=self._engine.tools(),
        )

    def _elapsed(self) -> float:
        return self._journal.seconds


def _plain_name(artifact: Artifact) -> str:
    return f"plain export {artifact.name}"


def _heat_key(name: str, candidates: Iterable[Candidate]) -> str:
    return " ".join([name, *sorted(candidate.key for candidate in candidates)])
