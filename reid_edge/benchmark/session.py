"""One variant in its worker, and all that was measured of it."""

from __future__ import annotations

from collections.abc import Sequence

from reid_edge.benchmark.process import WorkerProcess
from reid_edge.benchmark.protocol import Load, Loaded, Prepare, Prepared, Profile, Profiled, Round, Timed
from reid_edge.benchmark.result import Energy, LayerTime
from reid_edge.benchmark.timing import Query, Timing, Variant
from reid_edge.system.energy import EnergyMeter, Reading


class Session:
    """Asks a worker to load a variant, to warm up and to take samples, and keeps the replies.

    Its process starts at once: see :func:`~reid_edge.benchmark.process.interrupts_deferred`.  Every method raises
    EngineError where the worker cannot do it, has died or is stuck.
    """

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.process = WorkerProcess(variant.environment)
        self.prepared: dict[Query, Prepared] = {}
        self.rounds: dict[Query, list[tuple[float, ...]]] = {}
        self._layers: dict[Query, tuple[LayerTime, ...]] = {}
        self._turns: dict[Query, list[tuple[Reading, int]]] = {}

    def load(self) -> None:
        """Load the variant."""
        variant = self.variant
        request = Load(
            bundle=str(variant.bundle),
            engine=variant.engine,
            precision=variant.precision,
            threads=variant.threads,
            trusted_keys=variant.trusted_keys,
            device=variant.device,
        )
        self.loaded = self.process.ask(request, Loaded)

    def prepare(self, query: Query, seconds: float) -> None:
        """Warm up to a query for at most so many seconds."""
        request = Prepare(scenario=query.scenario, crops=query.crops, seconds=seconds)
        self.prepared[query] = self.process.ask(request, Prepared, seconds=seconds)
        self.rounds[query] = []
        self._turns[query] = []

    def take_turn(self, query: Query, seconds: float, meter: EnergyMeter | None) -> None:
        """Take samples of a query for one round, and read the meter where it counts what the variant runs on."""
        request = Round(scenario=query.scenario, crops=query.crops, seconds=seconds)
        if meter is None or self.variant.hardware not in meter.hardware:
            timed = self.process.ask(request, Timed, seconds=seconds)
        else:
            with meter.measuring() as reading:
                timed = self.process.ask(request, Timed, seconds=seconds)
            self._turns[query].append((reading, timed.queries))
        self.rounds[query].append(timed.samples_ms)

    def time_layers(self, query: Query, seconds: float) -> None:
        """Time the layers of a query for so many seconds, if the engine can tell them apart."""
        request = Profile(scenario=query.scenario, crops=query.crops, seconds=seconds)
        self._layers[query] = self.process.ask(request, Profiled, seconds=seconds).layers

    def timing(self, query: Query, source: str) -> Timing:
        """Return what was measured of a query; ``source``: the energy meter's, "" without one."""
        prepared = self.prepared[query]
        return Timing(
            variant=self.variant,
            query=query,
            rounds_ms=tuple(self.rounds[query]),
            warm_up=prepared.warm_up,
            settled=prepared.settled,
            load_ms=self.loaded.load_ms,
            first_ms=prepared.first_ms,
            peak_rss_mb=prepared.peak_rss_mb,
            description=self.loaded.description,
            execution=self.loaded.execution,
            energy=energy_of(self._turns[query], query.crops, source),
            layers=self._layers.get(query, ()),
        )


def energy_of(turns: Sequence[tuple[Reading, int]], crops: int, source: str) -> Energy | None:
    """Return the energy of turns; None without turns, or where a counter did not move.

    The device's idle power is counted too: it is drawn while the crops are computed.

    Args:
        turns: Of one variant and query: what the meter read, and the number of queries.
        crops: Of each query.
        source: Name of the meter; see :class:`~reid_edge.benchmark.result.Energy`.
    """
    read = [reading.joules for reading, _ in turns if reading.joules is not None]
    if not turns or len(read) < len(turns):
        return None
    queries = sum(count for _, count in turns)
    seconds = sum(reading.seconds for reading, _ in turns)
    return Energy(joules_per_crop=sum(read) / (queries * crops), mean_watts=sum(read) / seconds, source=source)
