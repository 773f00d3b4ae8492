"""Features that come back from a device which reid-edge does not run on: read, and judged as every engine's are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid_edge.bundle import open_bundle
from reid_edge.errors import InputError, UsageError
from reid_edge.features import read_array, row_cosines
from reid_edge.manifest import Precision
from reid_edge.runtime.agreement import COSINE_LIMITS, INT8_TOLERANCE
from reid_edge.runtime.target_folder import CHECK, read_check, read_record
from reid_edge.runtime.verdict import judge
from reid_edge.types import Features

#: Folders that ``qnn-net-run`` and ``snpe-net-run`` write, one for each line of the list of inputs.
_RESULT = re.compile(r"Result_(\d+)")


@dataclass(frozen=True)
class DeviceVerdict:
    """Whether a device computes the checkpoint's features, with the figures, and the limits that were broken."""

    detail: str
    reasons: tuple[str, ...]


def verify_features(
    folder: Path, features: Path, precision: Precision, *, trusted_keys: tuple[str | Path, ...] = ()
) -> DeviceVerdict:
    """Judge features that a device computed from the crops of a folder.

    Floats must be as close to the checkpoint's features as every engine's.  INT8 gets the verdict of an export: what it
    does to the ranking of crops that did not calibrate it.

    Args:
        folder: What ``export --for`` wrote, where rows are of the crops in ``check.npz``; or a bundle, where they are
            of its golden crops.
        features: ``.npy``, N×D numbers; or the folder that ``qnn-net-run`` wrote.
        precision: What the device computes in: ``fp32``, ``fp16`` or ``int8``.
        trusted_keys: Keys, one of which must have signed a bundle.

    Raises:
        UsageError: INT8 features of a bundle that has no INT8 file to compare with.
        InputError: The file does not hold the features of these crops.
        BundleError: The folder is neither.
    """
    record = read_record(folder)
    if record is None:
        return _of_bundle(folder, features, precision, trusted_keys)
    _crops, expected = read_check(folder, record)
    got = _read_features(features, expected.shape, f"{folder / CHECK}")
    cosine = _lowest_cosine(got, expected) if precision != "int8" else _lowest_cosine(got, expected, record.golden)
    if precision != "int8":
        return _of_floats(cosine, COSINE_LIMITS[precision])
    held_out = f"{len(expected) - record.golden} crops"
    verdict = judge(expected[record.golden :], got[record.golden :], golden_cosine=cosine, crops=held_out)
    detail = (
        f"golden cosine ≥ {cosine:.4f}; of {held_out} that did not calibrate: cosine {verdict.cosine_mean:.4f}, "
        f"ranking {verdict.ranking:.4f}, neighbours {verdict.neighbours:.4f}, variance {verdict.variance:.3f}"
    )
    return DeviceVerdict(detail, verdict.reasons)


def _of_bundle(
    folder: Path, features: Path, precision: Precision, trusted_keys: tuple[str | Path, ...]
) -> DeviceVerdict:
    """Judge features of a bundle's golden crops."""
    bundle = open_bundle(folder, trusted_keys=trusted_keys)
    _crops, expected = bundle.golden()
    limit = COSINE_LIMITS.get(precision)
    if limit is None:
        exported = [
            one.parity.cosine_min for one in bundle.manifest.artifacts if one.precision == "int8" and one.parity
        ]
        if not exported:
            raise UsageError(
                f"{folder} has no INT8 file to compare with. Verify with the folder that 'reid-edge export --for' "
                "wrote, which has crops to judge INT8 by."
            )
        limit = min(exported) - INT8_TOLERANCE
    got = _read_features(features, expected.shape, f"the golden crops of {folder}")
    return _of_floats(_lowest_cosine(got, expected), limit)


def _of_floats(cosine: float, limit: float) -> DeviceVerdict:
    detail = f"cosine ≥ {cosine:.6f}, limit {limit:.5f}"
    return DeviceVerdict(detail, () if cosine >= limit else (f"lowest cosine {cosine:.6f} is under {limit:.5f}",))


def _lowest_cosine(got: Features, expected: Features, rows: int | None = None) -> float:
    return float(np.nan_to_num(row_cosines(got[:rows], expected[:rows]).min(), nan=-1.0))


def _read_features(path: Path, shape: tuple[int, ...], of: str) -> Features:
    """Read features of as many crops and dimensions as there must be.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """
    try:
        found = _raw_results(path) if path.is_dir() else read_array(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as features: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise InputError(f"{path} holds no numbers; expected an .npy file of {shape[0]}×{shape[1]} numbers.")
    squeezed = found.reshape(len(found), -1) if found.ndim > 1 else found
    if squeezed.shape != shape:
        raise InputError(
            f"{path} holds an array of {found.shape}; expected {shape[0]}×{shape[1]}: one row for each crop of {of}, "
            "in their order."
        )
    return squeezed.astype(np.float32)


def _raw_results(folder: Path) -> Features:
    """Read ``Result_0/….raw``, ``Result_1/….raw`` …: float32, one file in each."""
    results = {int(match[1]): path for path in folder.iterdir() if (match := _RESULT.fullmatch(path.name))}
    if sorted(results) != list(range(len(results))) or not results:
        raise ValueError(f"it has no folders Result_0, Result_1 …, or some are missing ({len(results)} found)")
    rows = []
    for number in sorted(results):
        files = sorted(results[number].glob("*.raw"))
        if len(files) != 1:
            raise ValueError(f"{results[number]} has {len(files)} .raw files instead of one")
        rows.append(np.fromfile(files[0], "<f4"))
    return np.stack(rows)
