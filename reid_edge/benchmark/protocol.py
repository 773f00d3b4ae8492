"""Messages between a session and its worker: one line of JSON each."""

from __future__ import annotations

import msgspec

from reid_edge.benchmark.result import LayerTime, Scenario
from reid_edge.manifest import EngineName, Precision


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Load one variant; answered by :class:`Loaded`."""

    bundle: str
    engine: EngineName
    precision: Precision
    threads: int | None
    trusted_keys: tuple[str, ...] = ()
    device: str = "CPU"


class Prepare(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Make a query's input, run it once, and warm up for at most so many seconds; answered by :class:`Prepared`."""

    scenario: Scenario
    crops: int
    seconds: float


class Round(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Time a prepared query for so many seconds; answered by :class:`Timed`."""

    scenario: Scenario
    crops: int
    seconds: float


class Profile(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Time the layers of a prepared query for so many seconds; answered by :class:`Profiled`."""

    scenario: Scenario
    crops: int
    seconds: float


class Loaded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Loading took ``load_ms``; ``description`` is the engine's, ``execution`` says how, "" for the defaults."""

    load_ms: float
    description: str
    execution: str


class Prepared(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The first query's time, how many queries ran before times had settled, and the peak of resident memory, MiB."""

    first_ms: float
    warm_up: int
    settled: bool
    peak_rss_mb: float | None


class Timed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Times in order, milliseconds; ``queries`` counts also those that woke the caches before the first sample."""

    samples_ms: tuple[float, ...]
    queries: int


class Profiled(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Where the time of the shortest query went; nothing from engines that cannot tell."""

    layers: tuple[LayerTime, ...]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The request failed, and why."""

    reason: str


Request = Load | Prepare | Round | Profile
Reply = Loaded | Prepared | Timed | Profiled | Failed
