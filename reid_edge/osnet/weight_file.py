"""Content of a file with weights that another program wrote, read without running anything in it."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import io
import json
import pickle
import re
import shlex
import types
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch.torch_version import TorchVersion

from reid_edge.errors import CheckpointError, CheckpointUnsafeError
from reid_edge.files import read_regular
from reid_edge.osnet.checkpoint import METADATA_KEY
from reid_edge.osnet.file_kinds import is_safetensors, why_no_checkpoint

#: More than any checkpoint of an OSNet has, with its optimiser and a classifier of all datasets.
_MAX_BYTES = 4 << 30
#: What torch says of a pickle that asks for something that is no weight; with the name, where it gives it.
_UNSAFE = re.compile(r"GLOBAL (?P<name>\S+)|Unsupported class|call reduce|create new object|only build")


def read_weight_file(path: Path) -> tuple[object, str]:
    """Read a PyTorch file, or safetensors of another program.

    Returns:
        What ``torch.load`` makes of it, or a dictionary of tensors; and the sha256 of the file.

    Raises:
        CheckpointError: No such file, or one of another kind, which the message names.
        CheckpointUnsafeError: The pickle would run code.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; expected a file: a reid-edge .safetensors, or torchreid's .pth.")
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}.")
    try:
        content = read_regular(path, max_bytes=_MAX_BYTES)  # once: what is hashed is what is loaded
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    return _parsed(content, path), hashlib.sha256(content).hexdigest()


def _parsed(content: bytes, path: Path) -> object:
    if is_safetensors(content):
        return _safetensors(content, path)
    if reason := why_no_checkpoint(content, str(path)):
        raise CheckpointError(f"{path} {reason}")
    try:
        with torch.serialization.safe_globals(_harmless_types()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on pickle protocols
            # Byte strings are only in pickles of Python 2, where they hold NumPy's numbers.
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True, encoding="latin1")
    except pickle.UnpicklingError as error:
        raise _refused(str(error), content, path) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, OSError, ValueError, KeyError, … on bad bytes
        raise _unreadable(path) from error


def _safetensors(content: bytes, path: Path) -> dict[str, torch.Tensor]:
    try:
        state = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is a truncated or damaged safetensors file: copy it again.") from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    if METADATA_KEY in header.get("__metadata__", {}):
        raise CheckpointError(
            f"{path} is a reid-edge checkpoint already: reid-edge export --checkpoint {shlex.quote(str(path))}"
        )
    return state


def _refused(reason: str, content: bytes, path: Path) -> CheckpointError:
    """Return the error for a pickle that torch refuses; torch's own text would explain how to run its code."""
    if (found := _UNSAFE.search(reason)) is None:
        if "Unsupported operand" in reason:
            return CheckpointError(
                f"{path} cannot be read: it is damaged, or was saved with another pickle protocol than torch's own. "
                "Copy it again, or save it with torch.save(model.state_dict(), 'weights.pth'), without pickle_protocol."
            )
        return _unreadable(path)
    named = f" ({found['name']})" if found["name"] else ""
    if b"torch.nn.modules" in content:
        return CheckpointUnsafeError(
            f"{path} holds a whole model{named}, and opening one runs the code of its classes. Nothing was run. "
            "Save its weights alone, in the Python program that has the model and its classes: "
            "torch.save(model.state_dict(), 'weights.pth')"
        )
    return CheckpointUnsafeError(
        f"{path} holds more than weights{named}, and would run code when loaded. Nothing was run. "
        "Save its weights alone, in the Python program that has the model: "
        "torch.save(model.state_dict(), 'weights.pth')"
    )


def _unreadable(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a readable PyTorch checkpoint: it is truncated or damaged. Download or copy it again."
    )


def _harmless_types() -> list[Any]:
    """List what trainers save beside weights, and what runs nothing: NumPy's numbers, options, paths, dates."""
    functions: dict[str, Any] = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(0).__reduce__()[0]}
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # of NumPy 1 and 2
    named = [(one, f"{module}.{name}") for name, one in functions.items() for module in modules]
    paths = {"PosixPath": PurePosixPath, "WindowsPath": PureWindowsPath}
    named += [(one, f"{module}.{name}") for name, one in paths.items() for module in ("pathlib", "pathlib._local")]
    numpys = [np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefdSUmM"}]
    plain = [argparse.Namespace, types.SimpleNamespace, frozenset, TorchVersion]
    dates = [datetime.date, datetime.time, datetime.datetime, datetime.timedelta, datetime.timezone]
    return [*named, *numpys, *plain, *dates]
