"""Read and write the file of a benchmark's result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from reid_edge.benchmark.result import FORMAT_VERSION, BenchmarkResult, ModelEntry, Run
from reid_edge.errors import UPGRADE, InputError
from reid_edge.files import write_whole

#: Range of figures that are divided by or drawn on a logarithmic axis: no true one is outside, and inside it nothing
#: that the report computes overflows.
LEAST, MOST = 1e-12, 1e18
_POSITIVE_TIMES = ("min", "p50", "p90", "p95", "p99", "ci_low", "ci_high")
_NOT_NEGATIVE = ("crops_per_second", "fraction_of_peak", "size_bytes", "load_ms", "first_ms", "peak_rss_mb")

#: Its field, its value, and the range that it must be in; None where the device does not report it.
_Figure = tuple[str, float | None, float, float]


def write_result(path: Path, result: BenchmarkResult) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_whole(path, msgspec.json.encode(result) + b"\n")


def read_result(path: Path) -> BenchmarkResult:
    """Read one result.

    Raises:
        InputError: There is no such file, it is no result, its format version is later than this release's, or a
            figure in it is impossible.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path} ({error.strerror}); give a file that 'reid-edge benchmark --out' wrote."
        ) from error
    _check_version(path, text)
    try:
        result = msgspec.json.decode(text, type=BenchmarkResult)
    except (msgspec.DecodeError, ValueError) as error:  # ValueError: also bytes that are not UTF-8
        raise InputError(f"{path} is not a benchmark's result: {error}; run the benchmark again.") from error
    _check_indices(path, result)
    _check_figures(path, result)
    return result


def _check_version(path: Path, text: bytes) -> None:
    try:
        version = msgspec.json.decode(text, type=dict[str, msgspec.Raw])["format_version"]
        number = msgspec.json.decode(version, type=int)
    except KeyError as error:
        raise InputError(
            f"{path} is JSON, but not a benchmark's result: it has no format_version; "
            "give a file that 'reid-edge benchmark --out' wrote."
        ) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise InputError(
            f"{path} is not a benchmark's result ({error}); give a file that 'reid-edge benchmark --out' wrote."
        ) from error
    if number < 1:
        raise InputError(
            f"{path} has format_version {number}, expected 1 to {FORMAT_VERSION}; it has been edited: "
            "run the benchmark again."
        )
    if number > FORMAT_VERSION:
        raise InputError(f"{path} has result format {number}; this release reads up to {FORMAT_VERSION}. {UPGRADE}")


def _check_indices(path: Path, result: BenchmarkResult) -> None:
    count = len(result.models)
    for number in (*(run.model for run in result.runs), *(one.model for one in result.not_run)):
        if not 0 <= number < count:
            raise InputError(
                f"{path} names model {number} but lists {count}; it has been edited or cut: run the benchmark again."
            )


def _check_figures(path: Path, result: BenchmarkResult) -> None:
    """Refuse what a report would divide by zero, or could not draw on a logarithmic axis."""
    for field, value, least, most in _figures(result):
        if value is not None and not least <= value <= most:
            raise InputError(
                f"{path}: {field} is {value!s:.30}, expected {least:g} to {most:g}; "
                "it has been edited or cut: run the benchmark again."
            )
    for position, model in enumerate(result.models):
        for key in model.accuracy:
            if "/" not in key:
                raise InputError(
                    f"{path}: models[{position}].accuracy has the key '{key}', expected dataset/metric, "
                    "e.g. market1501/mAP; it has been edited: run the benchmark again."
                )


def _figures(result: BenchmarkResult) -> Iterator[_Figure]:
    for position, model in enumerate(result.models):
        yield from _of_model(f"models[{position}]", model)
    for position, run in enumerate(result.runs):
        yield from _of_run(f"runs[{position}]", run)
    if result.roofline:
        yield "roofline.bandwidth_gbs", result.roofline.bandwidth_gbs, LEAST, MOST
        for position, peak in enumerate(result.roofline.peaks):
            yield f"roofline.peaks[{position}].gflops", peak.gflops, LEAST, MOST
    yield "device.memory_bytes", result.device.memory_bytes, 0, MOST
    for level, size in result.device.caches.items():
        yield f"device.caches[{level}]", size, 0, MOST


def _of_model(at: str, model: ModelEntry) -> Iterator[_Figure]:
    yield f"{at}.mult_adds", model.mult_adds, 1, MOST
    yield f"{at}.parameters", model.parameters, 0, MOST
    yield f"{at}.width", model.width, LEAST, MOST
    for variant, mult_adds in model.form_mult_adds.items():
        yield f"{at}.form_mult_adds[{variant}]", mult_adds, 1, MOST
    for axis, pixels in enumerate(model.size):
        yield f"{at}.size[{axis}]", pixels, 1, MOST
    for key, percent in model.accuracy.items():
        yield f"{at}.accuracy[{key}]", percent, 0, 100


def _of_run(at: str, run: Run) -> Iterator[_Figure]:
    yield f"{at}.crops", run.crops, 1, MOST
    yield f"{at}.gflops", run.gflops, LEAST, MOST
    for name in _POSITIVE_TIMES:
        yield f"{at}.summary.{name}", getattr(run.summary, name), LEAST, MOST
    for name in _NOT_NEGATIVE:
        yield f"{at}.{name}", getattr(run, name), 0, MOST
    for position, bound in enumerate(run.bound):
        yield f"{at}.bound[{position}].ms", bound.ms, 0, MOST
    for position, layer in enumerate(run.layers):
        yield f"{at}.layers[{position}].ms", layer.ms, 0, MOST
    if run.energy:
        yield f"{at}.energy.joules_per_crop", run.energy.joules_per_crop, 0, MOST
