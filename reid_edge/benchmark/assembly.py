"""Assembles the parts of a benchmark's result from timings, failures, bundles and conditions."""

from __future__ import annotations

from collections.abc import Sequence

from reid_edge.benchmark.bound import bound_of
from reid_edge.benchmark.options import BenchmarkOptions
from reid_edge.benchmark.result import LayerBound, ModelEntry, NotRun, Peak, Roofline, Run, total_ms
from reid_edge.benchmark.scheduler import WARM_UP_SECONDS, workers_at_once
from reid_edge.benchmark.statistics import CONFIDENCE, MOST_INTERVAL, MOST_ROUND_SPREAD, summarise
from reid_edge.benchmark.timing import Failure, Timing
from reid_edge.benchmark.worker import FRAME_SIZE, WAKING_QUERIES, WARM_UP_TOLERANCE, WARM_UP_WINDOW
from reid_edge.bundle import Bundle
from reid_edge.manifest import RANDOM_WEIGHTS, Artifact
from reid_edge.runtime.engines.native import native_precision
from reid_edge.system.conditions import Condition, changes
from reid_edge.system.cpu import isa_limit
from reid_edge.system.energy import missing_reason
from reid_edge.system.limits import usable_cpus
from reid_edge.tuning_record import FloatType
from reid_edge.wording import counted

_FLOATS: dict[FloatType, str] = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
#: Bottlenecks of the paper's primary model.
_BLOCKS = tuple(f"{stage}.{number}" for stage in ("conv2", "conv3", "conv4") for number in (0, 1))
#: A result's names of the metrics in a checkpoint's metadata; those are fractions, a result's are percent.
_METRICS = {"mAP": "mAP", "rank1": "R1", "R1": "R1"}


def run_of(timing: Timing, model: int, artifact: Artifact, roofline: Roofline | None, *, plan: bytes = b"") -> Run:
    """Return the result's entry for one timing.

    Args:
        timing: Of a variant.
        model: Index of its bundle among the result's models.
        artifact: Its file.
        roofline: The device's peaks; None: not measured.
        plan: Of the native engine, for its bound.
    """
    summary = summarise(timing.rounds_ms)
    crops = timing.query.crops
    gflops = 2 * artifact.mult_adds * crops / (summary.p50 * 1e6)
    on_cpu = timing.variant.device == "CPU"  # peaks of other devices than the CPU are TensorRT's alone
    peak = peak_of(artifact, timing.variant.threads, roofline) if on_cpu else None
    bound = _bound_of(timing, artifact, roofline, plan) if plan else ()
    return Run(
        model=model,
        engine=artifact.engine,
        engine_description=timing.description,
        precision=artifact.precision,
        execution=timing.execution,
        scenario=timing.query.scenario,
        crops=crops,
        threads=timing.variant.threads,
        rounds_ms=timing.rounds_ms,
        warm_up=timing.warm_up,
        summary=summary,
        crops_per_second=1000 * crops / summary.p50,
        gflops=gflops,
        fraction_of_peak=gflops / peak.gflops if peak else None,
        bound=bound,
        layers=timing.layers,
        fraction_of_bound=total_ms(bound) / summary.p50 if bound else None,
        size_bytes=artifact.size_bytes,
        load_ms=timing.load_ms,
        first_ms=timing.first_ms,
        peak_rss_mb=timing.peak_rss_mb,
        energy=timing.energy,
    )


def peak_of(
    artifact: Artifact, threads: int | None, roofline: Roofline | None, *, cpus: int | None = None
) -> Peak | None:
    """Return the measured peak of a variant's arithmetic, number of threads, and processor (CPU or GPU).

    Args:
        artifact: The variant's file.
        threads: CPU threads asked for; None: those the file was tuned for, else the engine's choice.
        roofline: The device's peaks; None: not measured.
        cpus: Usable CPUs: more threads than those share them, and some engines start no more; None: this process's.
    """
    return _peak_in(arithmetic_of(artifact), artifact, threads_of(artifact, threads), roofline, cpus)


def _peak_in(
    arithmetic: str, artifact: Artifact, threads: int | None, roofline: Roofline | None, cpus: int | None = None
) -> Peak | None:
    gpu = artifact.engine == "tensorrt"
    cpus = usable_cpus() if cpus is None else cpus
    peaks = [
        peak
        for peak in (roofline.peaks if roofline else ())
        if peak.arithmetic == arithmetic
        and (peak.threads is None) == gpu
        and (gpu or threads is None or min(peak.threads or cpus, cpus) == min(threads, cpus))
    ]
    return max(peaks, key=lambda peak: peak.gflops, default=None)


def _bound_of(timing: Timing, artifact: Artifact, roofline: Roofline | None, plan: bytes) -> tuple[LayerBound, ...]:
    """Return the native engine's bound; nothing where its kernels are not those that the peaks were measured with."""
    if isa_limit():
        return ()
    threads = threads_of(artifact, timing.variant.threads)

    def peak_in(arithmetic: str) -> float | None:
        peak = _peak_in(arithmetic, artifact, threads, roofline)
        return peak.gflops if peak else None

    _, kernels, *_ = timing.description.split()
    return bound_of(plan, native_precision(artifact), kernels, timing.query.crops, peak_in)


def threads_of(artifact: Artifact, threads: int | None) -> int | None:
    """Return the CPU threads of a file: those asked for, else those it was tuned for, else None: the engine chooses."""
    return threads or (artifact.execution.threads if artifact.execution else None)


def arithmetic_of(artifact: Artifact) -> str:
    """Return the arithmetic that most of a file is computed in; CPU engines compute FP16 files in FP32.

    A tuned file counts as INT8 where every bottleneck has its streams or its ends (1x1 convolutions) in INT8, each
    about half of a bottleneck's multiply-adds; one with any bottleneck in float is compared with its float type's peak.
    """
    in_int8 = {part.partition(" ")[0] for part in artifact.int8}
    if artifact.precision == "int8" or in_int8.issuperset(_BLOCKS):
        return "int8"
    if artifact.execution is not None:
        return _FLOATS[artifact.execution.float_type]
    return "fp16" if artifact.precision == "fp16" and artifact.engine == "tensorrt" else "fp32"


def model_entry(bundle: Bundle, artifacts: list[Artifact], accuracy: dict[str, float]) -> ModelEntry:
    """Return the result's entry for a bundle.

    Args:
        bundle: The bundle.
        artifacts: Its files that were asked for.
        accuracy: Measured figures, percent, by ``dataset/engine/precision/metric``.
    """
    manifest = bundle.manifest
    return ModelEntry(
        name=bundle.path.resolve().name,
        model_hash=manifest.model_hash,
        width=manifest.model.width,
        size=manifest.input.size,
        parameters=manifest.model.parameters,
        mult_adds=manifest.model.mult_adds,
        form_mult_adds={artifact.name: artifact.mult_adds for artifact in artifacts},
        accuracy=_own_accuracy(manifest.model.metrics) | accuracy,
        trained=is_trained(bundle),
    )


def is_trained(bundle: Bundle) -> bool:
    """Return whether a bundle's weights were trained; cells of the grid may have random ones."""
    return bundle.manifest.model.dataset != RANDOM_WEIGHTS


def _own_accuracy(metrics: dict[str, float]) -> dict[str, float]:
    """Return a checkpoint's figures as a result has them: ``market1501/test/mAP`` 0.704 is ``market1501/mAP`` 70.4."""
    parts = {tuple(key.split("/")): value for key, value in metrics.items()}
    return {
        f"{path[0]}/{_METRICS[path[-1]]}": round(100 * value, 2)
        for path, value in parts.items()
        if len(path) > 1 and path[-1] in _METRICS
    }


def not_run_of(failure: Failure, model: int) -> NotRun:
    """Return the result's entry for a variant that could not be timed.

    Args:
        failure: The variant, and why.
        model: Index of its bundle among the result's models.
    """
    variant = failure.variant
    threads = "" if variant.threads is None else f" with {counted(variant.threads, 'thread')}"
    device = "" if variant.device == "CPU" else f" on {variant.device}"
    return NotRun(
        model=model,
        artifact=f"{variant.engine}/{variant.precision}{device}{threads}",
        reason=failure.reason,
    )


def notes_of(before: Condition, after: Condition, timings: Sequence[Timing]) -> tuple[str, ...]:
    """Return sentences on whatever could mislead a reader of the result, e.g. that the machine was throttled."""
    notes = [*changes(before, after), missing_reason()]
    if unsettled := [timing for timing in timings if not timing.settled]:
        notes.append(
            f"Times had not settled when warming up ended in {len(unsettled)} of {len(timings)} runs: "
            + ", ".join(dict.fromkeys(timing.variant.name for timing in unsettled))
            + "."
        )
    if limit := isa_limit():
        notes.append(
            f"oneDNN was kept to {limit} (ONEDNN_MAX_CPU_ISA): OpenVINO ran as on an older CPU, ONNX Runtime and "
            "NumPy ran as on this one."
        )
    return tuple(note for note in notes if note)


def protocol_of(options: BenchmarkOptions, bundles: int) -> dict[str, str | int | float]:
    """Return how times are taken, in words and numbers.

    Args:
        options: Of the benchmark.
        bundles: How many are timed.
    """
    return {
        "rounds": options.rounds,
        "seconds_per_round": options.seconds,
        "budget_seconds": options.budget(bundles),
        "order": "each variant in a process of its own, stopped (SIGSTOP) while others are timed; in each round "
        "each query is timed on every variant in turn, in shuffled order (seeded)",
        "warm_up": f"windows of {WARM_UP_WINDOW} queries until two medians differ by at most "
        f"{100 * WARM_UP_TOLERANCE:g} %, at most {WARM_UP_SECONDS:g} s; up to {WAKING_QUERIES} untimed queries after "
        "each sleep",
        "statistics": f"all samples; percentiles by nearest rank; {100 * CONFIDENCE:g} % interval of the median by "
        f"order statistics; noisy where that is wider than {100 * MOST_INTERVAL:g} % of the median, or medians of "
        f"rounds differ by over {100 * MOST_ROUND_SPREAD:g} %",
        "end_to_end": f"{FRAME_SIZE[1]}x{FRAME_SIZE[0]} frame and boxes of people, cut and resized, to features",
        "forms_at_once": workers_at_once(),
    }
