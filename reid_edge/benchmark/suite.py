"""A benchmark of bundles on this device: everything that goes into one result."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

from reid_edge.benchmark.accuracy import load_splits, measure_accuracy
from reid_edge.benchmark.assembly import is_trained, model_entry, run_of, threads_of
from reid_edge.benchmark.options import BenchmarkOptions
from reid_edge.benchmark.result import BenchmarkResult, NotRun, Roofline, Run
from reid_edge.benchmark.roofline import measure_roofline
from reid_edge.benchmark.scheduler import WARM_UP_SECONDS, step_count, time_variants, workers_at_once
from reid_edge.benchmark.statistics import CONFIDENCE, MOST_INTERVAL, MOST_ROUND_SPREAD
from reid_edge.benchmark.timing import Failure, Timing, Variant
from reid_edge.benchmark.worker import FRAME_SIZE, WAKING_QUERIES, WARM_UP_TOLERANCE, WARM_UP_WINDOW
from reid_edge.bundle import Bundle, open_bundle
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.errors import EngineError, MissingExtraError, UsageError
from reid_edge.progress import Notify
from reid_edge.runtime import Extractor
from reid_edge.system.conditions import Condition, changes, read_conditions
from reid_edge.system.cpu import isa_limit
from reid_edge.system.device import describe_device
from reid_edge.system.energy import find_meter, missing_reason


def benchmark_bundles(paths: Sequence[Path], options: BenchmarkOptions, notify: Notify) -> BenchmarkResult:
    """Time bundles on this device.

    Everything that can be wrong with what is asked is found before anything long begins.

    Args:
        paths: Folders that ``reid-edge export`` made.
        options: What to measure.
        notify: Called with a text and a number of steps before long work; returns what to call with steps done.

    Raises:
        UsageError: No bundle, or one twice.
        BundleError: Not a bundle.
        EngineUnavailableError: A bundle holds nothing of what is asked for.
        DatasetError: ``root`` does not hold the dataset.
        EngineError: Nothing at all could be timed; with the reasons.
    """
    bundles = _opened(paths)
    variants = [options.variants(bundle) for bundle in bundles]
    splits = load_splits(options.root, partial=options.partial) if options.root else None
    device, before = describe_device(), read_conditions()
    roofline, roofline_notes = _roofline(options, bundles, notify)
    timings, failures = _timed([one for group in variants for one in group], options, len(bundles), notify)
    after = read_conditions()
    return BenchmarkResult(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=options.command,
        protocol=_protocol(options, len(bundles)),
        device=device,
        before=before,
        after=after,
        roofline=roofline,
        models=tuple(
            model_entry(bundle, options.artifacts(bundle), _accuracy(bundle, timings, splits, notify))
            for bundle in bundles
        ),
        runs=tuple(_run(timing, bundles, roofline) for timing in timings),
        not_run=tuple(_not_run(failure, bundles) for failure in failures),
        notes=(*_notes(before, after, timings), *roofline_notes),
    )


def check_request(paths: Sequence[Path], to_be_made: Mapping[Path, Sequence[str]], options: BenchmarkOptions) -> None:
    """Find what :func:`benchmark_bundles` would refuse, before bundles are made for it.

    Args:
        paths: Bundles that are there.
        to_be_made: Folders of bundles that are going to be made, and the forms of each, ``engine/precision``.
        options: What to measure.

    Raises:
        UsageError: No bundle, or one twice.
        BundleError: Not a bundle.
        EngineUnavailableError: A bundle will hold nothing of what is asked for.
        DatasetError: ``root`` does not hold the dataset.
    """
    _check_named([*paths, *to_be_made])
    for path in paths:
        options.artifacts(open_bundle(path))
    for path, names in to_be_made.items():
        options.chosen(path, names)
    if options.root:
        load_splits(options.root, partial=options.partial)


def _opened(paths: Sequence[Path]) -> list[Bundle]:
    _check_named(paths)
    return [open_bundle(path) for path in paths]


def _check_named(paths: Sequence[Path]) -> None:
    if not paths:
        raise UsageError("no bundle to benchmark: name one or more folders that 'reid-edge export' made.")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("a bundle is named twice; name each once.")


def _timed(
    variants: list[Variant], options: BenchmarkOptions, bundles: int, notify: Notify
) -> tuple[list[Timing], list[Failure]]:
    queries = options.queries()
    timings, failures = time_variants(
        variants,
        queries,
        rounds=options.rounds,
        seconds=options.seconds,
        budget_seconds=options.budget(bundles),
        on_step=notify(f"timing {len(variants)} model forms", step_count(len(variants), len(queries), options.rounds)),
        energy_meter=find_meter(),
    )
    if not timings:
        reasons = "\n".join(f"  {failure.variant.name}: {failure.reason}" for failure in failures)
        raise EngineError(f"nothing could be timed:\n{reasons}\nSee also: reid-edge doctor")
    return timings, failures


def _roofline(
    options: BenchmarkOptions, bundles: Sequence[Bundle], notify: Notify
) -> tuple[Roofline | None, tuple[str, ...]]:
    if not options.roofline:
        return None, ()
    on_step = notify("measuring this device's peaks", 1)
    artifacts = [artifact for bundle in bundles for artifact in options.artifacts(bundle)]
    tuned = [threads_of(artifact, threads) for artifact in artifacts for threads in options.threads]
    try:
        roofline = measure_roofline(tuple(dict.fromkeys((*options.threads, *tuned))))
    except (EngineError, MissingExtraError) as error:
        return None, (f"No roofline: {error}",)
    on_step(1)
    return roofline, ()


def _accuracy(
    bundle: Bundle,
    timings: Sequence[Timing],
    splits: dict[Split, list[LabelledImage]] | None,
    notify: Notify,
) -> dict[str, float]:
    """Of each form that could be timed, mAP and R1 in percent; random weights have none worth the time."""
    found: dict[str, float] = {}
    if splits is None or not is_trained(bundle):
        return found
    variants = [timing.variant for timing in timings if timing.variant.bundle == bundle.path]
    for engine, precision in dict.fromkeys((variant.engine, variant.precision) for variant in variants):
        extractor = Extractor(bundle, engine=engine, precision=precision, cache_dir=None)
        ranking = measure_accuracy(extractor, splits, notify)
        found[f"market1501/{engine}/{precision}/mAP"] = round(100 * ranking.mean_ap, 2)
        found[f"market1501/{engine}/{precision}/R1"] = round(100 * ranking.rank1, 2)
    return found


def _index(variant: Variant, bundles: Sequence[Bundle]) -> int:
    return next(index for index, bundle in enumerate(bundles) if bundle.path == variant.bundle)


def _run(timing: Timing, bundles: Sequence[Bundle], roofline: Roofline | None) -> Run:
    index = _index(timing.variant, bundles)
    artifact = bundles[index].artifact(timing.variant.engine, timing.variant.precision)
    return run_of(timing, index, artifact, roofline)


def _not_run(failure: Failure, bundles: Sequence[Bundle]) -> NotRun:
    variant = failure.variant
    threads = "" if variant.threads is None else f" with {variant.threads} threads"
    return NotRun(
        model=_index(variant, bundles),
        artifact=f"{variant.engine}/{variant.precision}{threads}",
        reason=failure.reason,
    )


def _notes(before: Condition, after: Condition, timings: Sequence[Timing]) -> tuple[str, ...]:
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


def _protocol(options: BenchmarkOptions, bundles: int) -> dict[str, str | int | float]:
    return {
        "rounds": options.rounds,
        "seconds_per_round": options.seconds,
        "budget_seconds": options.budget(bundles),
        "order": "each model form in a process of its own, stopped (SIGSTOP) while others are timed; in each round "
        "each query is timed on every form in turn, in shuffled order (seeded)",
        "warm_up": f"windows of {WARM_UP_WINDOW} queries until two medians differ by at most "
        f"{100 * WARM_UP_TOLERANCE:g} %, at most {WARM_UP_SECONDS:g} s; up to {WAKING_QUERIES} untimed queries after "
        "each sleep",
        "statistics": f"all samples; percentiles by nearest rank; {100 * CONFIDENCE:g} % interval of the median by "
        f"order statistics; noisy where that is wider than {100 * MOST_INTERVAL:g} % of the median, or medians of "
        f"rounds differ by over {100 * MOST_ROUND_SPREAD:g} %",
        "end_to_end": f"{FRAME_SIZE[1]}x{FRAME_SIZE[0]} frame and boxes of people, cut and resized, to features",
        "forms_at_once": workers_at_once(),
    }
