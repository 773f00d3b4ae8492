"""Find and read the folders, image files and MATLAB files that a dataset unpacks to."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reid_edge.errors import DatasetError, MissingExtraError
from reid_edge.images import IMAGE_SUFFIXES


def locate(title: str, root: Path, nested: Sequence[str], holds: Sequence[str]) -> Path:
    """Find the folder that holds a dataset's own folders or files: ``root``, or one of its usual subfolders.

    Args:
        title: Name of the dataset, for messages.
        root: Folder that the user gave.
        nested: Subfolders of ``root`` in which the dataset may lie.
        holds: Names of files or folders, at least one of which is in the dataset's folder.

    Raises:
        DatasetError: ``root`` is not a folder, or holds nothing of this dataset.
    """
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder; give the folder that {title} unpacks to.")
    for folder in (root, *(root / name for name in nested)):
        if any((folder / name).exists() for name in holds):
            return folder
    raise DatasetError(
        f"{root} does not hold {title}: expected {' or '.join(holds)} in it, or in its {' or '.join(nested)}. "
        f"Give the folder that {title} unpacks to."
    )


def images_in(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """List the images directly in a folder in order of name, without hidden ones; suffixes match in any case.

    Raises:
        DatasetError: The folder does not exist, or holds no image.
    """
    wanted = frozenset(suffixes)
    if not folder.is_dir():
        raise DatasetError(f"expected the folder {folder}, which is not there. Unpack the dataset again.")
    # Other systems leave hidden files beside images (._0001.jpg).
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in wanted and path.name[0] != ".")
    if not images:
        raise DatasetError(f"{folder} holds no image ({', '.join(sorted(wanted))}). Unpack the dataset again.")
    return images


def require_files(paths: Sequence[Path], list_file: Path) -> None:
    """Check that all files exist that a list names.

    Raises:
        DatasetError: Some are missing; the first three are named.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        named = ", ".join(map(str, missing[:3]))
        raise DatasetError(
            f"{list_file} names {len(paths):,} images, of which {len(missing):,} are not there: {named}"
            f"{' …' if len(missing) > 3 else ''}. Unpack the dataset again."
        )


def read_mat(path: Path) -> dict[str, Any]:
    """Read all variables of a MATLAB file up to version 7.2 (later ones are HDF5).

    Returns:
        Arrays without axes of length 1, structs as objects with attributes, by name.

    Raises:
        DatasetError: The file does not exist or is not readable.
        MissingExtraError: scipy is not installed.
    """
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingExtraError("scipy", "train", f"reading {path.name}") from error
    try:
        variables: dict[str, Any] = loadmat(path, squeeze_me=True, struct_as_record=False)
    except (OSError, ValueError, TypeError, NotImplementedError, MatReadError, zlib.error) as error:
        raise DatasetError(f"{path} is not a readable MATLAB file ({error}). Download it again.") from error
    return variables


def variable(variables: dict[str, Any], name: str, path: Path) -> Any:
    """Return one variable of a MATLAB file.

    Raises:
        DatasetError: The file holds no variable of this name.
    """
    if name not in variables:
        known = ", ".join(sorted(key for key in variables if not key.startswith("__"))) or "nothing"
        raise DatasetError(f"{path} holds no variable {name!r}, but {known}. Is it another file of that name?")
    return variables[name]
