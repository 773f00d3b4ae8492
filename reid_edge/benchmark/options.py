"""Options of a benchmark: which variants, which queries, and how thoroughly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reid_edge.benchmark.result import SCENARIOS, Scenario
from reid_edge.benchmark.timing import Query, Variant
from reid_edge.bundle import Bundle
from reid_edge.errors import EngineUnavailableError, UsageError
from reid_edge.manifest import ENGINES, PRECISIONS, Artifact, EngineName, Precision

#: Crops a query of the offline scenario: the largest batch that an export allows by default.
OFFLINE_CROPS = 32
#: A budget for timing one bundle, and for each more.
FIRST_BUNDLE_SECONDS = 150.0
NEXT_BUNDLE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of a benchmark.

    Attributes:
        engines: Engines to time; None: all that a bundle has files for.
        precisions: Precisions to time; None: all that a bundle has files for.
        threads: Numbers of CPU threads, each of them a variant; None leaves the choice to the engine.
        scenarios: See :data:`reid_edge.benchmark.result.Scenario`.
        crops: Crops a query of multi-stream and end-to-end; single-stream has one, offline 32.
        rounds: How often each variant is timed in each query.
        seconds: Longest time for the samples of one variant and query in one round.
        budget_seconds: Rounds are shortened so that timing takes about so long; None: 150 for one bundle and 30 for
            each more.
        roofline: Measure this device's peaks too.
        root: Folder of Market-1501, to measure mAP and R1 of each variant; None: not measured.
        partial: ``root`` holds a subset on purpose.
        skip_bad: Leave out files of ``root`` that are no readable images; the result's notes say how many.
        device: What computes: ``CPU``, a device of OpenVINO or a provider of ONNX Runtime.
        trusted_keys: Public keys, one of which must have signed each bundle; none: a bundle is not asked who made it.
        command: The command line, for the result.

    Raises:
        UsageError: A number is out of range, or a scenario has no query with these numbers of crops.
    """

    engines: tuple[EngineName, ...] | None = None
    precisions: tuple[Precision, ...] | None = None
    threads: tuple[int | None, ...] = (None,)
    scenarios: tuple[Scenario, ...] = SCENARIOS
    crops: tuple[int, ...] = (1, 8)
    rounds: int = 6
    seconds: float = 1.0
    budget_seconds: float | None = None
    roofline: bool = True
    root: Path | None = None
    partial: bool = False
    skip_bad: bool = False
    device: str = "CPU"
    trusted_keys: tuple[str, ...] = ()
    command: str = ""

    def __post_init__(self) -> None:
        if not self.crops or min(self.crops) < 1 or max(self.crops) > 1024:
            raise UsageError(f"crops must be from 1 to 1024, got {', '.join(map(str, self.crops)) or 'none'}.")
        if not 1 <= self.rounds <= 1000 or not 0 < self.seconds <= 3600:
            raise UsageError(f"rounds must be from 1 to 1000 and seconds up to 3600: {self.rounds}, {self.seconds:g}.")
        if self.budget_seconds is not None and not 0 < self.budget_seconds <= 86400:
            raise UsageError(f"a budget is up to 86400 seconds, got {self.budget_seconds:g}.")
        if not self.threads or not all(count is None or 1 <= count <= 512 for count in self.threads):
            raise UsageError(f"threads must be from 1 to 512, got {', '.join(map(str, self.threads)) or 'none'}.")
        asked = {query.scenario for query in self.queries()}
        if missing := [scenario for scenario in self.scenarios if scenario not in asked]:
            raise UsageError(f"{', '.join(missing)} needs more than one crop a query; add some: crops 1,8.")

    def queries(self) -> tuple[Query, ...]:
        """Return the queries of every variant."""
        counts = {
            "single-stream": (1,),
            "multi-stream": tuple(count for count in self.crops if count > 1),
            "offline": (OFFLINE_CROPS,),
            "end-to-end": self.crops,
        }
        return tuple(
            Query(scenario=scenario, crops=count)
            for scenario in dict.fromkeys(self.scenarios)
            for count in dict.fromkeys(counts[scenario])
        )

    def budget(self, bundles: int) -> float:
        """Return the seconds for timing so many bundles."""
        if self.budget_seconds is not None:
            return self.budget_seconds
        return FIRST_BUNDLE_SECONDS + NEXT_BUNDLE_SECONDS * (bundles - 1)

    def artifacts(self, bundle: Bundle) -> list[Artifact]:
        """Return the bundle's files that are asked for.

        Raises:
            EngineUnavailableError: It holds none of them.
        """
        held = bundle.manifest.artifacts
        chosen = self.chosen(bundle.path, [artifact.name for artifact in held])
        return [artifact for artifact in held if artifact.name in chosen]

    def chosen(self, path: Path, names: Sequence[str]) -> list[str]:
        """Return which of a bundle's files are asked for.

        Args:
            path: The bundle's folder, for the message.
            names: Files that it holds, or will hold once it is made, as ``engine/precision``.

        Raises:
            EngineUnavailableError: None of them is asked for.
        """
        engines, precisions = self.engines or ENGINES, self.precisions or PRECISIONS
        wanted = {f"{engine}/{precision}" for engine in engines for precision in precisions}
        if found := [name for name in names if name in wanted]:
            return found
        raise EngineUnavailableError(
            f"{path} holds nothing of {','.join(engines)} × {','.join(precisions)}; "
            f"it holds {', '.join(names) or 'no model file'}."
        )

    def variants(self, bundle: Bundle) -> list[Variant]:
        """Return a variant for each file and number of threads."""
        return [
            Variant(
                bundle=bundle.path,
                engine=artifact.engine,
                precision=artifact.precision,
                threads=threads,
                trusted_keys=self.trusted_keys,
                device=self.device,
            )
            for artifact in self.artifacts(bundle)
            for threads in dict.fromkeys(self.threads)
        ]
