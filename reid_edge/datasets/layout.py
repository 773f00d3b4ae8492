"""Find and read the folders, image files and MATLAB files that a dataset unpacks to."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reid_edge.errors import DatasetError, MissingExtraError
from reid_edge.images import IMAGE_SUFFIXES, is_image, is_left_behind
from reid_edge.wording import counted

#: Folders that are searched below the one that the user gave: archives are unpacked into folders of their own name.
_DEPTH = 3


def locate(title: str, root: Path, names: Sequence[str], holds: Sequence[str]) -> Path:
    """Find the folder that holds a dataset's own folders or files: ``root``, or one below it.

    Folders of the dataset's usual names are searched, and a folder that is the only one, down to the third level.

    Args:
        title: Name of the dataset, for messages.
        root: Folder that the user gave.
        names: Usual names of the folders in which the dataset lies; case and ``-_.`` do not matter.
        holds: Names of files or folders, at least one of which is in the dataset's folder.

    Raises:
        DatasetError: ``root`` does not exist, is not a folder, or holds nothing of this dataset.
    """
    if not root.is_dir():
        fault = "is not a folder. Unpack it first, then give" if root.exists() else "does not exist. Give"
        raise DatasetError(f"{root} {fault} the folder that {title} unpacks to (--root).")
    for folder in _candidates(root, names, _DEPTH):
        if entry(folder, *holds):
            return folder
    above = root.resolve().parent
    advice = f"the folder above, {above}" if entry(above, *holds) else f"the folder that {title} unpacks to"
    raise DatasetError(
        f"{root} does not hold {title}: expected {' or '.join(holds)} in it, or in its {' or '.join(names)}. "
        f"Give {advice} (--root)."
    )


def _candidates(folder: Path, names: Sequence[str], depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        folders = folders_in(folder)
        named = [path for name in names for path in folders if _plain(path.name) == _plain(name)]
        for path in dict.fromkeys(named or (folders if len(folders) == 1 else [])):
            yield from _candidates(path, names, depth - 1)


def _plain(name: str) -> str:
    return re.sub(r"[-_. ]", "", name.lower())


def folder_named(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first folder in ``root`` with one of the names; case and ``-_.`` do not matter.  None: none is."""
    folders = folders_in(root) if root.is_dir() else []
    return next((path for name in names for path in folders if _plain(path.name) == _plain(name)), None)


def entry(folder: Path, *names: str) -> Path | None:
    """Return the first file or folder that is there, by names as given or else in any case; None: none is."""
    for name in names:
        if (folder / name).exists():
            return folder / name
    found = {path.name.lower(): path for path in folder.iterdir()}
    return next((found[name.lower()] for name in names if name.lower() in found), None)


def folders_in(folder: Path) -> list[Path]:
    """List the folders directly in a folder in order of name, without those that other systems leave there."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_left_behind(path.name))


def images_in(folder: Path, *, nested: str = "") -> list[Path]:
    """List the images directly in a folder in order of name, without hidden ones; suffixes match in any case.

    Args:
        folder: The folder.
        nested: What to do if it holds folders and no image, for the message; "" if each may be a person.

    Raises:
        DatasetError: The folder does not exist, or holds no image.
    """
    if not folder.is_dir():
        raise DatasetError(f"expected the folder {folder}, which does not exist. Unpack the dataset again.")
    images = sorted(path for path in folder.iterdir() if is_image(path))
    if not images:
        raise DatasetError(
            f"{folder} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}). {_instead_of_images(folder, nested)}"
        )
    return images


def _instead_of_images(folder: Path, nested: str) -> str:
    folders = len(folders_in(folder))
    if folders and nested:
        return nested
    if folders < 2:
        return "Unpack the dataset again."
    return f"It holds {folders:,} folders: if each is a person, use --dataset folder."


def require_files(paths: Sequence[Path], list_file: Path) -> None:
    """Check that all files exist that a list names.

    Raises:
        DatasetError: Some are missing; the first three are named.
    """
    missing = [path for path in paths if not path.is_file()]
    if missing:
        named = ", ".join(map(str, missing[:3]))
        raise DatasetError(
            f"{list_file} names {counted(len(paths), 'image')}, {len(missing):,} of them missing: {named}"
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
