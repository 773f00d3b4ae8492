"""Writing a result: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from reid_edge.benchmark.records import BenchmarkResult
from reid_edge.errors import OutputError
from reid_edge.files import write_whole


def check_result_path(path: Path, *, force: bool) -> None:
    """Say before the work that there is nowhere to write its result.

    Raises:
        OutputError: A file is there and ``force`` is not given, or the folder cannot be written, or the file
            system does not take such a name.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"--out {path} cannot be written: {error.strerror}; use another --out.") from error
    if path.is_dir():
        raise OutputError(f"--out {path} is a folder; name a file in it, e.g. {path / 'result.json'}.")
    if path.exists() and not force:
        raise OutputError(f"{path} exists already; use --force to replace it, or another --out.")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{folder} is not a folder; make it first, or use another --out.")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{folder} cannot be written; use another --out.")


def write_result(path: Path, result: BenchmarkResult) -> None:
    """Write a result as JSON.

    Raises:
        OutputError: It cannot be written.
    """
    write_whole(path, msgspec.json.encode(result) + b"\n")
