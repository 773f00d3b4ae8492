"""Readers of images with one category each: CIFAR-10 and CIFAR-100, ImageNet, and your own folders.

CIFAR (Krizhevsky, 2009) is read in its binary version; the Python version is a pickle, which could run code.
https://www.cs.toronto.edu/~kriz/cifar.html gives the layout: labels, then 1,024 bytes each of red, green and blue,
row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from reid_edge.datasets.layout import entry, folders_in, images_in, locate
from reid_edge.errors import DatasetError
from reid_edge.wording import counted

CategorySplit = Literal["train", "test"]
#: Names that :func:`load_categories` takes.
CATEGORY_DATASETS: tuple[str, ...] = ("cifar10", "cifar100", "imagenet", "folder")

#: name → images of each split, and number of categories.
_COUNTS: dict[str, tuple[dict[CategorySplit, int], int]] = {
    "cifar10": ({"train": 50_000, "test": 10_000}, 10),
    "cifar100": ({"train": 50_000, "test": 10_000}, 100),
    "imagenet": ({"train": 1_281_167, "test": 50_000}, 1_000),
}
_TEST_FOLDERS = ("test", "val")
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True, kw_only=True)
class Categories:
    """Images with a category each.

    Attributes:
        images: N files, or their pixels, N×H×W×3 uint8 BGR.
        labels: N int64, indices into ``names``.
        names: Names of the categories.
    """

    images: tuple[Path, ...] | npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CifarFiles:
    """Files of CIFAR-10 or CIFAR-100 in the binary version.

    Attributes:
        folder: Name of the folder that it unpacks to.
        files: Names of the files of each split.
        names: Name of the file that lists the categories, one a line.
        labels: Number of bytes before an image's pixels; the last one is the label.
    """

    folder: str
    files: dict[CategorySplit, tuple[str, ...]]
    names: str
    labels: int


CIFAR10 = CifarFiles(
    folder="cifar-10-batches-bin",
    files={"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)},
    names="batches.meta.txt",
    labels=1,
)
CIFAR100 = CifarFiles(
    folder="cifar-100-binary",
    files={"train": ("train.bin",), "test": ("test.bin",)},
    names="fine_label_names.txt",
    labels=2,
)


def load_categories(name: str, root: Path, split: CategorySplit, *, partial: bool = False) -> Categories:
    """Load one split, always in the same order.

    * ``cifar10``, ``cifar100``: the official binary version (``cifar-10-batches-bin``, ``cifar-100-binary``), whose
      pixels are read at once; of CIFAR-10 also a tree of image files as for ``folder``.
    * ``imagenet``, ``folder``: ``ROOT/train/<category>/*`` and ``ROOT/test/<category>/*`` or ``ROOT/val/…``.  Indices
      follow the names of the folders in ``train``.

    Args:
        name: One of :data:`CATEGORY_DATASETS`.
        root: Folder that the dataset unpacks to, or the one above.
        split: Split whose images are loaded.
        partial: Accept a subset: numbers of images and categories are not checked.

    Raises:
        DatasetError: The name is unknown, the folder or its layout is not the dataset's, the numbers differ from the
            published ones, or there is only one category.
    """
    if name not in _LOADERS:
        raise DatasetError(f"{name!r} is not a known dataset of categories; known: {', '.join(CATEGORY_DATASETS)}.")
    try:
        categories = _LOADERS[name](root, split)
    except OSError as error:  # a folder without permission, a disk that fails
        raise DatasetError(f"{root} cannot be read ({error}).") from error
    if unreadable := [name for name in categories.names if not name.isprintable()]:
        raise DatasetError(
            f"{root}: names of categories must be printable text, since checkpoints hold them; rename "
            f"{unreadable[0]!a}."
        )
    if len(categories.names) < 2:
        raise DatasetError(f"{root} has one category only ({categories.names[0]}); there is nothing to tell apart.")
    if not partial:
        _check_counts(name, root, split, categories)
    return categories


def _check_counts(name: str, root: Path, split: CategorySplit, categories: Categories) -> None:
    if name not in _COUNTS:
        return
    images, names = _COUNTS[name]
    if (len(categories.labels), len(categories.names)) != (images[split], names):
        raise DatasetError(
            f"{root} holds {counted(len(categories.labels), 'image')} of "
            f"{counted(len(categories.names), 'category', 'categories')}; {name}'s {split} "
            f"split has {images[split]:,} of {names:,}. Unpack it again, or use --partial for an intended subset."
        )


def _cifar10(root: Path, split: CategorySplit) -> Categories:
    folder = locate("CIFAR-10", root, (CIFAR10.folder, "cifar10"), (CIFAR10.files["test"][0], "train"))
    if (train := entry(folder, "train")) and train.is_dir():
        return _tree("CIFAR-10", folder, split)
    return _read_cifar(CIFAR10, folder, split)


def _cifar100(root: Path, split: CategorySplit) -> Categories:
    folder = locate("CIFAR-100", root, (CIFAR100.folder, "cifar100"), CIFAR100.files["test"])
    return _read_cifar(CIFAR100, folder, split)


def _imagenet(root: Path, split: CategorySplit) -> Categories:
    return _tree("ImageNet", locate("ImageNet", root, ("imagenet", "ILSVRC", "Data", "CLS-LOC"), ("train",)), split)


def _folder(root: Path, split: CategorySplit) -> Categories:
    return _tree("a folder of images", locate("a folder of images", root, ("folder",), ("train",)), split)


_LOADERS: dict[str, Callable[[Path, CategorySplit], Categories]] = {
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "imagenet": _imagenet,
    "folder": _folder,
}


def _tree(title: str, root: Path, split: CategorySplit) -> Categories:
    train = entry(root, "train") or root / "train"
    known = [path.name for path in _subfolders(train)]
    folder = train if split == "train" else _test_folder(title, root)
    folders = _subfolders(folder)
    if unknown := [path.name for path in folders if path.name not in known]:
        raise DatasetError(
            f"{folder} holds categories that {train} does not: {', '.join(unknown[:5])}. "
            f"Expected one folder for each of the {len(known):,} categories of the train split."
        )
    images: list[Path] = []
    labels: list[int] = []
    for path in folders:
        found = images_in(path, nested="The images of a category lie directly in its folder.")
        images += found
        labels += [known.index(path.name)] * len(found)
    return Categories(images=tuple(images), labels=np.array(labels, np.int64), names=tuple(known))


def _test_folder(title: str, root: Path) -> Path:
    for name in _TEST_FOLDERS:
        if (folder := entry(root, name)) and folder.is_dir():
            return folder
    raise DatasetError(f"{root} holds no test split of {title}: expected {root / 'test'} or {root / 'val'}.")


def _subfolders(folder: Path) -> list[Path]:
    folders = folders_in(folder)
    if not folders:
        raise DatasetError(
            f"{folder} holds no folders: expected one for each category, with its images in it. "
            "ImageNet's validation images must be sorted into such folders first."
        )
    return folders


def _read_cifar(cifar: CifarFiles, folder: Path, split: CategorySplit) -> Categories:
    """Read all files of a split into N×32×32×3 pixels.

    Raises:
        DatasetError: A file is missing or cut short, or holds a label without a name.
    """
    names = _cifar_names(folder / cifar.names)
    rows = np.concatenate([_cifar_rows(folder / name, cifar.labels + _PIXELS) for name in cifar.files[split]])
    labels = rows[:, cifar.labels - 1].astype(np.int64)
    if labels.max() >= len(names):
        raise DatasetError(
            f"{folder}: label {labels.max()} has no name among the {len(names)} of {cifar.names}. Unpack it again."
        )
    planes = rows[:, cifar.labels :].reshape(-1, 3, _SIDE, _SIDE)
    images = np.ascontiguousarray(planes[:, ::-1].transpose(0, 2, 3, 1))
    return Categories(images=images, labels=labels, names=names)


def _cifar_names(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"the names of the categories cannot be read from {file} ({error}).") from error
    return tuple(lines)


def _cifar_rows(file: Path, length: int) -> npt.NDArray[np.uint8]:
    try:
        content = np.fromfile(file, np.uint8)
    except OSError as error:
        raise DatasetError(f"{file} cannot be read ({error}). Unpack the binary version of CIFAR.") from error
    if not len(content) or len(content) % length:
        raise DatasetError(
            f"{file} has {len(content):,} bytes, which is not a multiple of {length:,}. Download it again."
        )
    return content.reshape(-1, length)
