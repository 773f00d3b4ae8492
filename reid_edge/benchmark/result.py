"""The result of a benchmark: one JSON document with what was timed, how, on what device, and every raw sample.

``docs/benchmark.schema.json`` is made from the classes below.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from reid_edge.manifest import EngineName, Precision
from reid_edge.system.conditions import Condition
from reid_edge.system.device import Device
from reid_edge.types import Size

FORMAT_VERSION = 1

#: MLPerf Inference's LoadGen scenarios, and the whole path of a camera: single-stream: one crop a query; multi-stream:
#: N crops a query (the people of one frame); offline: as many crops a second as can be had; end-to-end: from a frame
#: and N boxes to N features, crops cut and resized by the extractor.
Scenario = Literal["single-stream", "multi-stream", "offline", "end-to-end"]
SCENARIOS: tuple[Scenario, ...] = ("single-stream", "multi-stream", "offline", "end-to-end")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Times of one scenario, milliseconds a query, over all samples of all rounds: nothing is left out.

    Attributes:
        samples: How many.
        min: Shortest.
        p50: Median; p90, p95, p99: percentiles, each an observed time (nearest rank).
        ci_low: Lower end of the 95 % confidence interval of the median (order statistics, no distribution assumed).
        ci_high: Upper end.
        round_spread: (largest − smallest median of a round) ÷ p50: how much the machine changed between rounds.
        verdict: ``noisy`` where the interval or the spread is too wide for the median to be believed.
        reasons: Why it is noisy.
    """

    samples: int
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    ci_low: float
    ci_high: float
    round_spread: float
    verdict: Literal["steady", "noisy"]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy over the timed rounds, where the device tells: joules a crop, and which counter said so."""

    joules_per_crop: float
    mean_watts: float
    source: str


@dataclass(frozen=True, kw_only=True)
class LayerBound:
    """One kind of layer of the native engine, at the device's peak.

    Attributes:
        kind: E.g. ``1×1 convolutions``.
        arithmetic: Whose peak bounds it.
        mult_adds: Of a query.
        ms: Shortest time that the instructions allow, milliseconds a query.
    """

    kind: str
    arithmetic: Literal["fp32", "bf16", "int8", "int16"]
    mult_adds: int
    ms: float


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """What one kind of layer of the native engine took in a query, or one thing besides layers.

    Attributes:
        kind: As in ``LayerBound``, or ``pools, norms``, ``resizing``, ``waiting for threads``; ``the rest``: what finds
            the rows of the next layer, and all outside the engine.
        ms: Milliseconds a query: the time of all threads over their number.
    """

    kind: str
    ms: float


def total_ms(layers: Iterable[LayerBound] | Iterable[LayerTime]) -> float:
    """Return the milliseconds of all kinds of layers together."""
    return sum(layer.ms for layer in layers)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One scenario of one model form with one number of threads.

    Attributes:
        model: Index into ``BenchmarkResult.models``.
        engine: What ran it.
        engine_description: Library, version, device, as the engine reports them.
        precision: Which of the bundle's files.
        execution: How, in words: streams and float type of a tuned file, a device other than the CPU; "" for the
            defaults.
        scenario: See :data:`Scenario`.
        crops: Crops a query: 1, N, or for offline the batch.
        threads: CPU threads asked for; None: the engine's choice.
        rounds_ms: Raw samples, one tuple a round, milliseconds a query, in the order measured.
        warm_up: Queries before the first sample; ended when their median had settled.
        summary: Of those samples.
        crops_per_second: ``crops`` ÷ p50.
        gflops: Achieved, 2 × mult-adds of the form × crops ÷ p50, in 10⁹ a second.
        fraction_of_peak: ``gflops`` ÷ this device's measured peak in the arithmetic of the precision; None without.
        bound: Of the native engine, by kind of layer; empty for other engines, and without peaks.
        layers: Where the native engine's time went, in the shortest of some queries that were timed layer by layer
            after the rounds: what disturbs one falls on any layer.  The measurement itself is left out.  Their sum is
            that query's time.  Empty for other engines.
        fraction_of_bound: Sum of ``bound`` ÷ p50: 1 if nothing but multiply-adds took time; None without.
        size_bytes: Of the model's files.
        load_ms: From the start of loading to a loaded engine, its library included, no cache.
        first_ms: First query, with what is compiled on demand; queries of fewer crops, or of another scenario, may
            have run before in the same process, and what they had compiled is there already.
        peak_rss_mb: Largest resident memory of the process once this query had warmed up, MiB; queries of fewer crops
            ran before it.  None where the system does not tell.
        energy: None where the device does not tell.
    """

    model: int
    engine: EngineName
    engine_description: str
    precision: Precision
    execution: str = ""
    scenario: Scenario
    crops: int
    threads: int | None
    rounds_ms: tuple[tuple[float, ...], ...]
    warm_up: int
    summary: Summary
    crops_per_second: float
    gflops: float
    fraction_of_peak: float | None
    bound: tuple[LayerBound, ...] = ()
    layers: tuple[LayerTime, ...] = ()
    fraction_of_bound: float | None = None
    size_bytes: int
    load_ms: float
    first_ms: float
    peak_rss_mb: float | None
    energy: Energy | None = None


@dataclass(frozen=True, kw_only=True)
class NotRun:
    """A model form that was asked for and could not be timed here, and why."""

    model: int
    artifact: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """One bundle.

    Attributes:
        name: The folder's name.
        model_hash: See the bundle's manifest.
        width: β.
        size: Input height and width.
        parameters: Of the network, classifier left out.
        mult_adds: Of one crop, as the paper's Table 6 counts.
        form_mult_adds: Of each model form, by ``engine/precision``: a collapsed form has more than the network.
        accuracy: mAP and R1 in percent by dataset and model form, where measured, e.g.
            ``{"market1501/openvino/int8/mAP": 70.1}``; without a form, the checkpoint's own.
        trained: False for a cell of the grid with random weights: its times count, its features do not.
    """

    name: str
    model_hash: str
    width: float
    size: Size
    parameters: int
    mult_adds: int
    form_mult_adds: dict[str, int] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    trained: bool = True


@dataclass(frozen=True, kw_only=True)
class Peak:
    """What this device reached at best in one arithmetic, in the same run.

    Attributes:
        arithmetic: ``fp32``, ``fp16``, ``bf16``, ``int8``, or ``int16``, in which the native engine computes conv1 of
            float32 on CPUs with AVX2.
        gflops: 10⁹ operations a second, a multiply-add counted as two.
        threads: CPU threads that it took; None on a GPU.
        how: What was computed, by what library.
    """

    arithmetic: Literal["fp32", "fp16", "bf16", "int8", "int16"]
    gflops: float
    threads: int | None
    how: str


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Measured peaks: arithmetic, and memory bandwidth in 10⁹ bytes a second (read plus written)."""

    peaks: tuple[Peak, ...]
    bandwidth_gbs: float
    bandwidth_how: str


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """One benchmark on one device.

    Attributes:
        command: The command line, so that anybody can repeat it.
        protocol: How times were taken: rounds, seconds a round, order, warm-up rule, in words and numbers.
        device: What it ran on.
        before: The machine before the first round; ``after``: after the last.
        notes: What a reader must know: e.g. throttled in the meantime.
    """

    format_version: int = FORMAT_VERSION
    created: str
    command: str
    protocol: dict[str, str | int | float]
    device: Device
    before: Condition
    after: Condition
    roofline: Roofline | None
    models: tuple[ModelEntry, ...]
    runs: tuple[Run, ...]
    not_run: tuple[NotRun, ...] = ()
    notes: tuple[str, ...] = ()
