"""Read what ``reid-edge benchmark`` wrote."""

from __future__ import annotations

from pathlib import Path

import msgspec

from reid_edge.benchmark.records import FORMAT_VERSION, BenchmarkResult
from reid_edge.errors import InputError


def read_result(path: Path) -> BenchmarkResult:
    """Read one result.

    Raises:
        InputError: No such file, no JSON, no result, or of a later format version.
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
    if number > FORMAT_VERSION:
        raise InputError(
            f"{path} has result format {number}; this release reads up to {FORMAT_VERSION}. "
            "Upgrade reid-edge on this machine: pip install --upgrade reid-edge"
        )


def _check_indices(path: Path, result: BenchmarkResult) -> None:
    count = len(result.models)
    for number in (*(run.model for run in result.runs), *(one.model for one in result.not_run)):
        if not 0 <= number < count:
            raise InputError(
                f"{path} names model {number} but lists {count}; it has been edited or cut: run the benchmark again."
            )
