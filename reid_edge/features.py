"""Arithmetic on features, and files of features: ``.npy`` with a list of paths beside it, ``.csv`` or ``.parquet``."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from reid_edge.errors import MissingExtraError, OutputError, UsageError
from reid_edge.files import check_output

Real = TypeVar("Real", np.float32, np.float64)

#: Suffixes of the files that features are written to.
SUFFIXES = (".npy", ".csv", ".parquet")


def l2_normalised(features: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Scale the rows of an N×D array to unit length; a row of zeros stays zero."""
    lengths = np.sqrt(np.einsum("nd,nd->n", features, features))
    unit: npt.NDArray[Real] = features / np.maximum(lengths, 1e-12)[:, None]
    return unit


def row_cosines(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the cosine similarity of row i with row i of two N×D arrays: N float64."""
    units = [l2_normalised(rows.astype(np.float64)) for rows in (first, second)]
    cosines: npt.NDArray[np.float64] = np.einsum("nd,nd->n", *units)
    return cosines


def read_array(path: Path) -> npt.NDArray[np.generic]:
    """Read the array of a ``.npy`` file; Python objects in it are not loaded.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or of another kind.
    """
    with path.open("rb") as file:
        try:
            found: npt.NDArray[np.generic] = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, MemoryError) as error:  # the last: of a shape that nobody wrote
            raise ValueError("it is damaged, or no .npy file of numbers") from error
    return found


def check_feature_file(path: Path, *, force: bool) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Raises:
        UsageError: Another suffix than those of ``SUFFIXES``.
        OutputError: It exists and ``force`` is off, or its folder does not.
        MissingExtraError: ``.parquet`` without pyarrow.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"the output must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {path}.")
    for output in _outputs(path):
        check_output(output, force=force)
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("pyarrow", "parquet", "writing .parquet") from error


def write_features(
    path: Path, sources: Sequence[str], features: npt.NDArray[np.float32], model_hash: str
) -> list[Path]:
    """Write features, whole or not at all.

    * ``.npy``: N×D float32, and beside it ``NAME.sources.txt``, a line each.
    * ``.csv``: columns ``source`` and ``f0``, ``f1``, …, D numbers with 9 digits, which float32 needs.
    * ``.parquet``: columns ``source`` (string) and ``feature`` (list of D float32), with ``model_hash`` in the file's
      metadata.

    Args:
        path: The file.
        sources: N names, e.g. the path of the image that each row was computed from.
        features: N×D.
        model_hash: Hash of the model that computed them.

    Returns:
        The files written.

    Raises:
        OutputError: They cannot be written.
    """
    outputs = _outputs(path)
    partials = [output.with_name(f".{output.name}.{os.getpid()}.partial") for output in outputs]
    try:
        if path.suffix == ".parquet":
            _write_parquet(partials[0], sources, features, model_hash)
        elif path.suffix == ".csv":
            _write_csv(partials[0], sources, features)
        else:
            partials[0].write_text("".join(f"{source}\n" for source in sources), encoding="utf-8")
            with partials[1].open("wb") as file:
                np.save(file, features)
        for partial, output in zip(partials, outputs, strict=True):
            partial.replace(output)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    return outputs


def _outputs(path: Path) -> list[Path]:
    return [names_file(path), path] if path.suffix == ".npy" else [path]


def names_file(path: Path) -> Path:
    """Return the file with the names of the rows of a ``.npy`` file."""
    return path.with_suffix(".sources.txt")


def _write_csv(path: Path, sources: Sequence[str], features: npt.NDArray[np.float32]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["source", *(f"f{place}" for place in range(features.shape[1]))])
        for source, feature in zip(sources, features, strict=True):
            writer.writerow([source, *(f"{value:.9g}" for value in feature.tolist())])


def _write_parquet(path: Path, sources: Sequence[str], features: npt.NDArray[np.float32], model_hash: str) -> None:
    import pyarrow
    import pyarrow.parquet

    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(features.ravel()), features.shape[1])
    table = pyarrow.table({"source": pyarrow.array(sources), "feature": column})
    pyarrow.parquet.write_table(table.replace_schema_metadata({"model_hash": model_hash}), path)
