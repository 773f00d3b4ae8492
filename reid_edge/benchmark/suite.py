"""A benchmark of bundles on this device, from the request to the result."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

from reid_edge.benchmark.accuracy import measure_accuracy
from reid_edge.benchmark.assembly import (
    is_trained,
    model_entry,
    not_run_of,
    notes_of,
    protocol_of,
    run_of,
    threads_of,
)
from reid_edge.benchmark.embedder import load_splits
from reid_edge.benchmark.options import BenchmarkOptions
from reid_edge.benchmark.readable import readable_splits
from reid_edge.benchmark.result import BenchmarkResult, Roofline, Run
from reid_edge.benchmark.roofline import measure_roofline
from reid_edge.benchmark.scheduler import step_count, time_variants
from reid_edge.benchmark.timing import Failure, Timing, Variant
from reid_edge.bundle import Bundle, open_bundle
from reid_edge.datasets.labelled_images import LabelledImage, Split
from reid_edge.errors import EngineError, MissingExtraError, UsageError
from reid_edge.images import left_out
from reid_edge.progress import Notify
from reid_edge.runtime import Extractor
from reid_edge.system.conditions import read_conditions
from reid_edge.system.device import describe_device
from reid_edge.system.energy import find_meter
from reid_edge.wording import counted


def benchmark_bundles(paths: Sequence[Path], options: BenchmarkOptions, notify: Notify) -> BenchmarkResult:
    """Time bundles on this device.

    Everything that can be wrong with the request is found before anything long begins.

    Args:
        paths: Folders that ``reid-edge export`` made.
        options: What to measure, and how thoroughly.
        notify: Called before each long stage.

    Raises:
        UsageError: There is no bundle, or one is named twice.
        BundleError: A path is not a bundle.
        EngineUnavailableError: A bundle holds none of the variants asked for.
        DatasetError: ``root`` does not hold the dataset.
        FrameError: An image of it cannot be read, and none is to be left out.
        EngineError: Nothing could be timed; with the reasons.
    """
    bundles = _opened(paths, options)
    variants = [options.variants(bundle) for bundle in bundles]
    splits, unreadable = _splits(options, notify)
    device, before = describe_device(), read_conditions()
    roofline, roofline_notes = _roofline(options, bundles, notify)
    timings, failures = _timed([one for group in variants for one in group], options, len(bundles), notify)
    after = read_conditions()
    return BenchmarkResult(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        command=options.command,
        protocol=protocol_of(options, len(bundles)),
        device=device,
        before=before,
        after=after,
        roofline=roofline,
        models=tuple(
            model_entry(bundle, options.artifacts(bundle), _accuracy(bundle, timings, splits, notify))
            for bundle in bundles
        ),
        runs=tuple(_run(timing, bundles, roofline) for timing in timings),
        not_run=tuple(not_run_of(failure, _index(failure.variant, bundles)) for failure in failures),
        notes=(*notes_of(before, after, timings), *roofline_notes, *unreadable),
    )


def check_request(
    paths: Sequence[Path], to_be_made: Mapping[Path, Sequence[str]], options: BenchmarkOptions, notify: Notify
) -> None:
    """Refuse a request that :func:`benchmark_bundles` would refuse, before bundles are made for it.

    Args:
        paths: Bundles that exist.
        to_be_made: Folders of bundles that are going to be made, and the variants of each, ``engine/precision``.
        options: What to measure, and how thoroughly.
        notify: Called before each long stage.

    Raises:
        UsageError: There is no bundle, or one is named twice.
        BundleError: A path is not a bundle.
        EngineUnavailableError: A bundle will hold none of the variants asked for.
        DatasetError: ``root`` does not hold the dataset.
        FrameError: An image of it cannot be read, and none is to be left out.
    """
    _check_named([*paths, *to_be_made])
    for path in paths:
        options.artifacts(open_bundle(path, trusted_keys=options.trusted_keys))
    for path, names in to_be_made.items():
        options.chosen(path, names)
    _splits(options, notify)


def _splits(
    options: BenchmarkOptions, notify: Notify
) -> tuple[dict[Split, list[LabelledImage]] | None, tuple[str, ...]]:
    """Return query and gallery of ``root``, and a note on the images that are left out."""
    if not options.root:
        return None, ()
    splits = load_splits(options.root, partial=options.partial)
    readable, unreadable = readable_splits(splits, notify, skip_bad=options.skip_bad)
    total = sum(map(len, splits.values()))
    return readable, (left_out(unreadable, total),) if unreadable else ()


def _opened(paths: Sequence[Path], options: BenchmarkOptions) -> list[Bundle]:
    _check_named(paths)
    return [open_bundle(path, trusted_keys=options.trusted_keys) for path in paths]


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
        on_step=notify(
            f"timing {counted(len(variants), 'variant')}", step_count(len(variants), len(queries), options.rounds)
        ),
        energy_meter=find_meter(),
        with_layers=True,
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
    """Return mAP and R1, percent, of each variant that was timed; random weights are not worth evaluating."""
    found: dict[str, float] = {}
    if splits is None or not is_trained(bundle):
        return found
    variants = [timing.variant for timing in timings if timing.variant.bundle == bundle.path]
    kinds = dict.fromkeys((variant.engine, variant.precision, variant.device) for variant in variants)
    for engine, precision, device in kinds:
        extractor = Extractor(bundle, engine=engine, precision=precision, device=device, cache_dir=None)
        ranking = measure_accuracy(extractor, splits, notify)
        found[f"market1501/{engine}/{precision}/mAP"] = round(100 * ranking.mean_ap, 2)
        found[f"market1501/{engine}/{precision}/R1"] = round(100 * ranking.rank1, 2)
    return found


def _index(variant: Variant, bundles: Sequence[Bundle]) -> int:
    return next(index for index, bundle in enumerate(bundles) if bundle.path == variant.bundle)


def _run(timing: Timing, bundles: Sequence[Bundle], roofline: Roofline | None) -> Run:
    index = _index(timing.variant, bundles)
    artifact = bundles[index].artifact(timing.variant.engine, timing.variant.precision)
    plan = bundles[index].read(artifact.files[0]) if artifact.engine == "native" else b""
    return run_of(timing, index, artifact, roofline, plan=plan)
