"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) in their binary version; the Python version, a pickle, could run code.

https://www.cs.toronto.edu/~kriz/cifar.html gives the layout: labels, then 1,024 bytes each of red, green and blue,
row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from reid_edge.errors import DatasetError

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True, kw_only=True)
class Binary:
    """What one of the two is made of.

    Attributes:
        folder: That it unpacks to.
        files: Of each split.
        names: File with one name a line.
        labels: Bytes before an image's pixels; the last one is the label.
    """

    folder: str
    files: dict[Literal["train", "test"], tuple[str, ...]]
    names: str
    labels: int


CIFAR10 = Binary(
    folder="cifar-10-batches-bin",
    files={"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
    names="batches.meta.txt",
    labels=1,
)
CIFAR100 = Binary(
    folder="cifar-100-binary",
    files={"train": ("train.bin",), "test": ("test.bin",)},
    names="fine_label_names.txt",
    labels=2,
)


class Pixels(NamedTuple):
    """N×32×32×3 uint8 BGR, N int64, and the categories' names."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]


def read_binary(binary: Binary, folder: Path, split: Literal["train", "test"]) -> Pixels:
    """Read all files of a split.

    Raises:
        DatasetError: A file that is missing, cut short, or holds a label without a name.
    """
    names = _names(folder / binary.names)
    rows = np.concatenate([_rows(folder / name, binary.labels + _PIXELS) for name in binary.files[split]])
    labels = rows[:, binary.labels - 1].astype(np.int64)
    if labels.max() >= len(names):
        raise DatasetError(
            f"{folder}: label {labels.max()} has no name among the {len(names)} of {binary.names}. Unpack it again."
        )
    planes = rows[:, binary.labels :].reshape(-1, 3, _SIDE, _SIDE)
    return Pixels(np.ascontiguousarray(planes[:, ::-1].transpose(0, 2, 3, 1)), labels, names)


def _names(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"the names of the categories cannot be read from {file} ({error}).") from error
    return tuple(lines)


def _rows(file: Path, length: int) -> npt.NDArray[np.uint8]:
    try:
        content = np.fromfile(file, np.uint8)
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error}). Unpack the binary version of CIFAR.") from error
    if not len(content) or len(content) % length:
        raise DatasetError(f"{file} has {len(content):,} bytes, which is no multiple of {length:,}. Download it again.")
    return content.reshape(-1, length)
