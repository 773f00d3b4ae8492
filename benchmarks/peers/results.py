"""The result of a comparison, with every raw sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from contenders import Contender

from reid_edge.benchmark.result import Summary
from reid_edge.system.conditions import Condition
from reid_edge.system.device import Device

Part = Literal["whole", "network"]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Cosine of a contender's features with the reference's, over the crops of the largest query.

    Attributes:
        reference: For ``network``: plain torch on the very same tensor; for ``whole``: torchreid's extractor.
        needed: Below this the contender is not timed.
    """

    contender: str
    part: Part
    reference: str
    mean: float
    lowest: float
    needed: float


@dataclass(frozen=True, kw_only=True)
class Run:
    """Times of one contender in one query.

    Attributes:
        part: ``whole``: from frame and boxes to features; ``network``: from a ready batch to features.
        rounds_ms: Raw samples of each round, milliseconds a query; of benchmark_app one median a round.
        first_s: First query, with what is compiled on demand.
    """

    contender: str
    part: Part
    crops: int
    rounds_ms: tuple[tuple[float, ...], ...]
    summary: Summary
    first_s: float | None = None
    settled: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A contender that took part, seconds of its loading, and its largest resident memory."""

    contender: Contender
    load_s: float
    peak_rss_mb: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One comparison on one device.

    Attributes:
        weights: The file's name and hash; every contender has these.
        libraries: Versions.
        protocol: How times were taken.
        between_people: Mean and highest cosine of two different crops of the scene, by torchreid's extractor.
        not_run: Who could not take part, and why.
    """

    format: str = "reid-edge-peers/1"
    created: str
    command: str
    weights: str
    threads: int
    crops: tuple[int, ...]
    device: Device
    before: Condition
    after: Condition
    libraries: dict[str, str]
    protocol: dict[str, str | int | float]
    entries: tuple[Entry, ...]
    agreement: tuple[Agreement, ...]
    between_people: tuple[float, float] | None
    runs: tuple[Run, ...]
    not_run: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
