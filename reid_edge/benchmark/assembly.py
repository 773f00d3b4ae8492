"""From timings to what a result says of them."""

from __future__ import annotations

from reid_edge.benchmark.result import ModelEntry, Peak, Roofline, Run
from reid_edge.benchmark.statistics import summarise
from reid_edge.benchmark.timing import Timing
from reid_edge.bundle import RANDOM_WEIGHTS, Artifact, Bundle
from reid_edge.system.limits import usable_cpus
from reid_edge.tuning_record import FloatType

_FLOATS: dict[FloatType, str] = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
#: Bottlenecks of the paper's primary model.
_BLOCKS = tuple(f"{stage}.{number}" for stage in ("conv2", "conv3", "conv4") for number in (0, 1))
#: What a checkpoint's metadata calls figures of merit, as fractions; a result gives percent.
_METRICS = {"mAP": "mAP", "rank1": "R1", "R1": "R1"}


def run_of(timing: Timing, model: int, artifact: Artifact, roofline: Roofline | None) -> Run:
    """What a result says of one timing."""
    summary = summarise(timing.rounds_ms)
    crops = timing.query.crops
    gflops = 2 * artifact.mult_adds * crops / (summary.p50 * 1e6)
    peak = peak_of(artifact, timing.variant.threads, roofline)
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
        size_bytes=artifact.size_bytes,
        load_ms=timing.load_ms,
        first_ms=timing.first_ms,
        peak_rss_mb=timing.peak_rss_mb,
        energy=timing.energy,
    )


def peak_of(
    artifact: Artifact, threads: int | None, roofline: Roofline | None, *, cpus: int | None = None
) -> Peak | None:
    """The measured peak that a model form is held against: of its arithmetic, its number of threads, CPU or GPU.

    Args:
        artifact: The form.
        threads: CPU threads that were asked for; None: what the form was tuned for, else the engine's choice.
        roofline: The device's peaks; None: not measured.
        cpus: CPUs at hand: more threads than those share them, and some engines start no more; None: of this process.
    """
    wanted, threads = arithmetic_of(artifact), threads_of(artifact, threads)
    gpu = artifact.engine == "tensorrt"
    cpus = usable_cpus() if cpus is None else cpus
    peaks = [
        peak
        for peak in (roofline.peaks if roofline else ())
        if peak.arithmetic == wanted
        and (peak.threads is None) == gpu
        and (gpu or threads is None or min(peak.threads or cpus, cpus) == min(threads, cpus))
    ]
    return max(peaks, key=lambda peak: peak.gflops, default=None)


def threads_of(artifact: Artifact, threads: int | None) -> int | None:
    """CPU threads that a form runs with: those asked for, else those it was tuned for, else the engine's choice."""
    return threads or (artifact.execution.threads if artifact.execution else None)


def arithmetic_of(artifact: Artifact) -> str:
    """What most of a model form is computed in; CPU engines keep FP16 files in memory and compute them in FP32.

    A tuned file counts as INT8 where every bottleneck has its streams or its ends (1x1 convolutions) in INT8, each
    about half of a bottleneck's multiply-adds; one with any bottleneck in float is held against its float type's peak.
    """
    in_int8 = {part.partition(" ")[0] for part in artifact.int8}
    if artifact.precision == "int8" or in_int8.issuperset(_BLOCKS):
        return "int8"
    if artifact.execution is not None:
        return _FLOATS[artifact.execution.float_type]
    return "fp16" if artifact.precision == "fp16" and artifact.engine == "tensorrt" else "fp32"


def model_entry(bundle: Bundle, artifacts: list[Artifact], accuracy: dict[str, float]) -> ModelEntry:
    """What a result says of a bundle.

    Args:
        bundle: Opened.
        artifacts: The forms that were asked for.
        accuracy: What was measured, in percent.
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
    """False for random weights, as cells of the grid have."""
    return bundle.manifest.model.dataset != RANDOM_WEIGHTS


def _own_accuracy(metrics: dict[str, float]) -> dict[str, float]:
    """``{"market1501/test/mAP": 0.704}`` → ``{"market1501/mAP": 70.4}``."""
    parts = {tuple(key.split("/")): value for key, value in metrics.items()}
    return {
        f"{path[0]}/{_METRICS[path[-1]]}": round(100 * value, 2)
        for path, value in parts.items()
        if len(path) > 1 and path[-1] in _METRICS
    }
