"""Reading MATLAB files up to version 7.2 (``scipy.io``); later ones are HDF5."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from reid_edge.errors import DatasetError, MissingExtraError


def read_mat(path: Path) -> dict[str, Any]:
    """Read all variables: arrays without axes of length 1, structs as objects with attributes.

    Raises:
        DatasetError: No such file, or not readable.
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
    """One of the variables.

    Raises:
        DatasetError: It is not there.
    """
    if name not in variables:
        known = ", ".join(sorted(key for key in variables if not key.startswith("__"))) or "nothing"
        raise DatasetError(f"{path} holds no variable {name!r}, but {known}. Is it another file of that name?")
    return variables[name]
