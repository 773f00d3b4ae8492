"""What a tuning tried, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from reid_edge.tune.forms import Candidate
from reid_edge.tune.objective import Score
from reid_edge.tuning_record import Trial


@dataclass
class Evidence:
    """Trials by name; a later one of the same name replaces an earlier one.

    Attributes:
        engine: What runs them all.
        trials: In the order in which they were first added.
    """

    engine: str
    trials: dict[str, Trial] = field(default_factory=dict)

    def add(
        self, candidate: Candidate, outcome: str, *, score: Score | None = None, heat: str = "", note: str = ""
    ) -> None:
        """Add a trial.

        Args:
            candidate: What was tried.
            outcome: See :class:`~reid_edge.tuning_record.Trial`; ``heat`` and ``note`` likewise.
            score: None keeps what an earlier trial of that name scored.
            heat: Which one the score is of.
            note: Why that is the outcome.
        """
        known = self.trials.get(candidate.name)
        if score is None and known is not None and known.objective is not None:
            score, heat = Score(known.objective, known.ci_low, known.ci_high), known.heat
        self.trials[candidate.name] = Trial(
            name=candidate.name,
            engine=self.engine,
            rewrite=candidate.form.plan.names(),
            int8=tuple(sorted(candidate.form.int8)),
            execution=candidate.execution,
            objective=score.value if score else None,
            ci_low=score.low if score else None,
            ci_high=score.high if score else None,
            heat=heat,
            outcome=outcome,  # type: ignore[arg-type]
            note=note,
        )
