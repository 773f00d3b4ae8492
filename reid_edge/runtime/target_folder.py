"""The folder that ``export --for`` writes for other software: its record, and the crops that check a device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.errors import UPGRADE, BundleCorruptError, BundleVersionError, UsageError, shortened
from reid_edge.files import read_regular, write_whole
from reid_edge.golden_file import parse_golden
from reid_edge.manifest import Count, FeatureSpec, FileEntry, Pixels, Sha256

#: Name of the record in the folder.
RECORD = "target.json"
#: Name of the crops and features in the folder, where the device's features can be checked.
CHECK = "check.npz"
FORMAT_VERSION = 1
_MAX_RECORD_BYTES = 1 << 20

TargetName = Literal["deepstream", "triton", "openvino-model-server", "hailo", "rknn", "qnn", "ncnn", "litert"]


@dataclass(frozen=True, kw_only=True)
class TargetRecord:
    """Record of the files that were made of a bundle for other software.

    Attributes:
        format_version: Format of this record.
        target: The software.
        model_hash: Of the bundle: features of it, and of this folder, may be compared.
        size: Height and width of the input, pixels.
        features: Dimensions, and the norm that has to be applied to what the model gives.
        made_by: Release of reid-edge.
        manifest_sha256: Of the bundle's manifest.
        files: Every file of the folder but this record.
        golden: Number of golden crops among those that check the device, the first ones; 0: the folder has none.
    """

    format_version: Annotated[int, msgspec.Meta(ge=1)] = FORMAT_VERSION
    target: TargetName
    model_hash: Sha256
    size: tuple[Pixels, Pixels]
    features: FeatureSpec
    made_by: str
    manifest_sha256: str
    files: tuple[FileEntry, ...] = field(default_factory=tuple)
    golden: Count = 0


def write_record(folder: Path, record: TargetRecord) -> None:
    """Write the record of a folder, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_whole(folder / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


def read_record(folder: Path) -> TargetRecord | None:
    """Read the record of a folder; None where it has none, e.g. because it is a bundle.

    Raises:
        BundleVersionError: A later release wrote it.
        BundleCorruptError: It is no record.
    """
    path = folder / RECORD
    try:
        text = read_regular(path, max_bytes=_MAX_RECORD_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BundleCorruptError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        record = msgspec.json.decode(text, type=TargetRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleCorruptError(
            f"{path}: {shortened(error)}; make the folder again: reid-edge export --for."
        ) from error
    if record.format_version > FORMAT_VERSION:
        raise BundleVersionError(
            f"{path} has format {record.format_version}; this release reads {FORMAT_VERSION}. {UPGRADE}"
        )
    return record


def read_check(folder: Path, record: TargetRecord) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """Read the crops that a device is checked with, and the checkpoint's features of them.

    Returns:
        Crops N×H×W×3 uint8 BGR, golden ones first, and features N×D float32.

    Raises:
        UsageError: The folder is of software whose features are compared with the bundle itself.
        BundleCorruptError: The file is missing or has changed, or holds something else.
    """
    path = folder / CHECK
    if record.golden == 0:
        raise UsageError(
            f"{folder} has no crops that judge {record.target}: features are of the bundle's golden crops there. Give "
            "the bundle instead of this folder: reid-edge verify BUNDLE --features FILE"
        )
    entry = next((file for file in record.files if file.path == CHECK), None)
    if entry is None:
        raise BundleCorruptError(f"{folder / RECORD} lists no {CHECK}; make the folder again: reid-edge export --for.")
    try:
        content = read_regular(path, max_bytes=entry.size_bytes)
    except OSError as error:
        raise BundleCorruptError(
            f"{path} is missing or unreadable ({error.strerror}); copy the folder again."
        ) from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleCorruptError(f"{path} is not the file that was made: its sha256 is another; copy the folder again.")
    return parse_golden(content, size=record.size, dim=record.features.dim, name=str(path))
