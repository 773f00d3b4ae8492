"""Tune one checkpoint: measure the grid in stages, then choose the fastest candidate that keeps the accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reid_edge.bundle import Bundle
from reid_edge.errors import EngineError, ParityError, TuningError
from reid_edge.manifest import Artifact
from reid_edge.progress import Notify
from reid_edge.system.energy import EnergyMeter
from reid_edge.tune.builder import CandidateBuilder
from reid_edge.tune.candidates import Candidate, grid, plain_candidates, refinements
from reid_edge.tune.constraint import Constraint, Judgement
from reid_edge.tune.measurement import Objective, Score, Stage, StageResult, fastest_first, measure
from reid_edge.tune.result_cache import ResultCache
from reid_edge.tuning_record import Trial, Tuning

FIRST_STAGE = Stage(name="first stage", rounds=3, seconds=0.3, share=0.1)
SECOND_STAGE = Stage(name="second stage", rounds=4, seconds=0.4, share=0.1)
FINAL = Stage(name="final", rounds=10, seconds=0.5, share=0.15)
#: Candidates that the second stage takes besides their refinements, and that the final measurement takes.
SECOND_STAGE_SIZE = 4
FINALISTS = 4
#: How many of the second stage's candidates are refined.
REFINED = 2
#: Shares of the budget after which no more files are made, no candidate starts in the first and second stage, and no
#: finalist is checked.  The candidates that the plain exports compute take part in the final measurement in any case.
_BUILD_UNTIL, _FIRST_UNTIL, _SECOND_UNTIL, _CHECK_UNTIL = 0.5, 0.6, 0.75, 0.85
#: Time that a candidate needs in a stage before its first sample: a process starts, loads and compiles the network.
_START_SECONDS = 2.5


@dataclass(frozen=True)
class Choice:
    """The candidate chosen, checked, in a bundle of its own, and the evidence."""

    bundle: Bundle
    tuning: Tuning


@dataclass
class TrialLog:
    """Everything tried, by name; a later trial of the same name replaces an earlier one."""

    trials: dict[str, Trial] = field(default_factory=dict)

    def add(
        self,
        candidate: Candidate,
        int8: tuple[str, ...],
        outcome: str,
        *,
        score: Score | None = None,
        stage: str = "",
        note: str = "",
    ) -> None:
        """Add a trial.

        Args:
            candidate: What was tried.
            int8: Parts of it in INT8.
            outcome: See :class:`~reid_edge.tuning_record.Trial`, and ``note``.
            score: None keeps what an earlier trial of that name scored.
            stage: Which one the score is of.
            note: Why that is the outcome.
        """
        known = self.trials.get(candidate.name)
        if score is None and known is not None and known.objective is not None:
            score, stage = Score(known.objective, known.ci_low, known.ci_high), known.heat
        self.trials[candidate.name] = Trial(
            name=candidate.name,
            engine=candidate.engine,
            rewrite=candidate.rewrite.names,
            int8=int8,
            execution=candidate.execution,
            objective=score.value if score else None,
            ci_low=score.low if score else None,
            ci_high=score.high if score else None,
            heat=stage,
            outcome=outcome,  # type: ignore[arg-type]
            note=note,
        )


class Tuner:
    """Finds the fastest candidate that keeps the accuracy.

    Args:
        builder: Makes candidates' files, for the engines that take part.
        objective: What is minimised.
        constraint: What must be kept.
        cache: Remembers measurements across interruptions, and the time spent.
        budget_minutes: About how long it may take; what is left out is recorded.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
        meter: For the objective ``energy``.
    """

    def __init__(
        self,
        builder: CandidateBuilder,
        objective: Objective,
        constraint: Constraint,
        cache: ResultCache,
        *,
        budget_minutes: float,
        notify: Notify,
        meter: EnergyMeter | None = None,
    ) -> None:
        self._builder, self._objective, self._constraint = builder, objective, constraint
        self._cache, self._notify, self._meter = cache, notify, meter
        self._budget = 60 * budget_minutes
        self._engines = builder.engines
        (self._device,) = {engine.device for engine in builder.engines.values()}
        self._log = TrialLog()

    def run(self) -> Choice:
        """Measure stage by stage, and choose.

        Raises:
            TuningError: Nothing could be timed, or nothing keeps the accuracy, not even plain FP32.
            OutputError: The work folder cannot be written.
        """
        variant = self._builder.reference.network.config.variant
        candidates = [
            one for engine in self._engines.values() for one in grid(engine, variant, self._builder.max_batch)
        ]
        best = self._measured(FIRST_STAGE, candidates, until=_FIRST_UNTIL)[:SECOND_STAGE_SIZE]
        refined = [finer for one in best[:REFINED] for finer in refinements(one, self._engines[one.engine])]
        best = self._measured(SECOND_STAGE, [*best, *refined], until=_SECOND_UNTIL) or best
        return self.choose(self._with_plain(best[:FINALISTS]))

    def choose(self, finalists: Sequence[Candidate]) -> Choice:
        """Check finalists, time them beside the plain exports, and take the fastest that keeps the accuracy.

        Raises:
            TuningError: None could be timed, or none keeps the accuracy.
        """
        bundles = self._checked(finalists)
        candidates = {candidate.name: candidate for candidate in finalists if candidate.name in bundles}
        files = {name: (bundle, bundle.manifest.artifacts[0]) for name, bundle in bundles.items()}
        files |= {_plain_name(artifact): (self._builder.base, artifact) for artifact in self._plain_artifacts()}
        result = self._recall(FINAL, candidates.values(), lambda: self._measure(files, FINAL))
        self._note(result, candidates, FINAL)
        if not result.scores:
            raise self._nothing_timed(result)
        for name in fastest_first(result, sorted(candidates, key=lambda name: candidates[name].complexity)):
            judgement = self._judge(candidates[name], bundles[name])
            if judgement.passed:
                self._add(candidates[name], "chosen", note=judgement.note)
                return Choice(bundles[name], self._tuning(candidates[name], result, judgement))
            self._add(candidates[name], "inaccurate", note=judgement.note)
        raise TuningError(f"no candidate keeps the accuracy ({self._constraint.text}): {self._reasons('inaccurate')}")

    def _measured(self, stage: Stage, candidates: Sequence[Candidate], *, until: float) -> list[Candidate]:
        """Time as many candidates, of those that come first, as the budget allows; the fastest first."""
        named = {candidate.name: candidate for candidate in candidates}
        result = self._recall(stage, candidates, lambda: self._time_stage(stage, candidates, until))
        self._note(result, named, stage)
        if result.failures and not result.scores:
            raise self._nothing_timed(result)
        return [named[name] for name in result.order]

    def _time_stage(self, stage: Stage, candidates: Sequence[Candidate], until: float) -> StageResult:
        most = max(0, int((until * self._budget - self._cache.seconds) / _START_SECONDS))
        late = {one.name: "no time was left to time it" for one in candidates[most:]}
        if not most:
            return StageResult(left_out=late)
        files, failures, unmade = self._files(candidates[:most])
        result = self._measure(files, stage) if files else StageResult()
        return replace(result, failures={**failures, **result.failures}, left_out={**late, **unmade})

    def _files(
        self, candidates: Sequence[Candidate]
    ) -> tuple[dict[str, tuple[Bundle, Artifact]], dict[str, str], dict[str, str]]:
        """Files to time; why others could not be made; and why others were not tried."""
        on_step = self._notify("making files", len(candidates))
        made: dict[str, tuple[Bundle, Artifact]] = {}
        failures, left_out = {}, {}
        for candidate in candidates:
            try:
                if self._late(_BUILD_UNTIL) and not self._builder.is_quick(candidate):
                    left_out[candidate.name] = "no time was left to make it"
                else:
                    bundle = self._builder.build(candidate, draft=True)
                    made[candidate.name] = bundle, bundle.manifest.artifacts[0]
            except (EngineError, ParityError) as error:
                failures[candidate.name] = str(error)
            on_step()
        return made, failures, left_out

    def _checked(self, finalists: Sequence[Candidate]) -> dict[str, Bundle]:
        on_step = self._notify("making and checking finalists", len(finalists))
        plain = {candidate.key for candidate in self._plain_candidates()}
        bundles = {}
        for candidate in finalists:
            try:
                if self._late(_CHECK_UNTIL) and candidate.key not in plain:
                    self._add(candidate, "pruned", note="no time was left to check it")
                else:
                    bundles[candidate.name] = self._builder.build_checked(candidate)
            except (EngineError, ParityError) as error:
                self._add(candidate, "failed", note=str(error))
            on_step()
        return bundles

    def _measure(self, files: Mapping[str, tuple[Bundle, Artifact]], stage: Stage) -> StageResult:
        return measure(
            files,
            self._objective,
            stage,
            device=self._device,
            budget_seconds=self._budget,
            notify=self._notify,
            meter=self._meter,
        )

    def _recall(self, stage: Stage, candidates: Iterable[Candidate], run: Callable[[], StageResult]) -> StageResult:
        key = " ".join([stage.name, *sorted(candidate.key for candidate in candidates)])
        return self._cache.recall(key, run, StageResult)

    def _judge(self, candidate: Candidate, bundle: Bundle) -> Judgement:
        return self._cache.recall(f"judgement {candidate.key}", lambda: self._constraint.judge(bundle), Judgement)

    def _note(self, result: StageResult, candidates: Mapping[str, Candidate], stage: Stage) -> None:
        for name in candidates.keys() & result.scores.keys():
            self._add(candidates[name], "slower", score=result.scores[name], stage=stage.name)
        for name in candidates.keys() & result.failures.keys():
            self._add(candidates[name], "failed", note=result.failures[name])
        for name in candidates.keys() & result.left_out.keys():
            self._add(candidates[name], "pruned", note=result.left_out[name])

    def _add(
        self, candidate: Candidate, outcome: str, *, score: Score | None = None, stage: str = "", note: str = ""
    ) -> None:
        int8 = self._builder.int8_parts(candidate)
        self._log.add(candidate, int8, outcome, score=score, stage=stage, note=note)

    def _with_plain(self, finalists: Sequence[Candidate]) -> list[Candidate]:
        """Add what the plain exports compute, so that the choice is never slower than they are."""
        plain = self._plain_candidates()
        keys = {candidate.key for candidate in plain}
        return [*plain, *(candidate for candidate in finalists if candidate.key not in keys)]

    def _plain_candidates(self) -> list[Candidate]:
        return [one for engine in self._engines.values() for one in plain_candidates(engine, self._builder.max_batch)]

    def _plain_artifacts(self) -> list[Artifact]:
        return [
            artifact
            for artifact in self._builder.base.manifest.artifacts
            if artifact.engine in self._engines and artifact.precision in self._engines[artifact.engine].plain
        ]

    def _tuning(self, chosen: Candidate, result: StageResult, judgement: Judgement) -> Tuning:
        names = {_plain_name(artifact) for artifact in self._plain_artifacts()}
        best = result.scores[chosen.name].value
        return Tuning(
            device=self._engines[chosen.engine].device_class(),
            objective=self._objective.text,
            constraint=self._constraint.text,
            accuracy=judgement.figures,
            gains={name: result.scores[name].value / best for name in sorted(names & set(result.scores))},
            trials=tuple(self._log.trials.values()),
            minutes=self._cache.seconds / 60,
            tools={name: version for one in self._engines.values() for name, version in one.tools().items()},
        )

    def _nothing_timed(self, result: StageResult) -> TuningError:
        reasons = "; ".join(dict.fromkeys(result.failures.values())) or self._reasons("failed")
        return TuningError(f"nothing could be timed: {reasons}")

    def _reasons(self, outcome: str) -> str:
        return "; ".join(
            f"{trial.name}: {trial.note}" for trial in self._log.trials.values() if trial.outcome == outcome
        )

    def _late(self, share: float) -> bool:
        """Return True if this share of the budget has been used."""
        return self._cache.seconds > share * self._budget


def _plain_name(artifact: Artifact) -> str:
    return f"plain export {artifact.name}"
