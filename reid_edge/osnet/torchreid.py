"""Import of checkpoints that torchreid (and its many copies) wrote."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reid_edge.errors import (
    CheckpointError,
    CheckpointMismatchError,
    CheckpointUnsafeError,
    ConfigError,
)
from reid_edge.files import read_regular
from reid_edge.osnet.architecture import BASE_CHANNELS, BASE_SIZE, NetworkVariant, OSNetConfig, width_of_channels
from reid_edge.osnet.checkpoint import Checkpoint, CheckpointInfo, check_state, check_values, tool_versions
from reid_edge.osnet.network import OSNet
from reid_edge.types import Size

#: torchreid's name of a module → ours, applied in this order.
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^(conv[234]\.[01])\.conv1\.", r"\1.reduce."),
        (r"^(conv[234]\.[01])\.conv2a\.", r"\1.streams.0.0."),
        (r"^(conv[234]\.[01])\.conv2b\.", r"\1.streams.1."),
        (r"^(conv[234]\.[01])\.conv2c\.", r"\1.streams.2."),
        (r"^(conv[234]\.[01])\.conv2d\.", r"\1.streams.3."),
        (r"^(conv[234]\.[01])\.conv3\.", r"\1.restore."),
        (r"^(conv[234]\.[01])\.downsample\.", r"\1.project."),
        (r"^(.*streams\.\d\.\d)\.conv1\.", r"\1.pointwise."),
        (r"^(.*streams\.\d\.\d)\.conv2\.", r"\1.depthwise."),
        (r"^(conv2\.[01])\.IN\.", r"\1.norm."),
        (r"^conv([23])\.2\.0\.", r"transition\1."),
        (r"^fc\.0\.", "fc."),
        (r"^fc\.1\.", "fc_norm."),
        (r"\.bn\.", ".norm."),
    )
)
#: Layers that show the channels of the four stages.
_STAGE_WEIGHTS = ("conv1.conv.weight", "transition2.conv.weight", "transition3.conv.weight", "conv5.conv.weight")
#: More than any checkpoint of an OSNet has, with its optimiser and a classifier of all datasets.
_MAX_BYTES = 4 << 30
_CLASSIFIER = "classifier."
_INSTANCE_NORM = re.compile(r"^conv2\.\d+\.norm\.")


def import_torchreid(
    path: Path, *, width: float | None = None, size: Size = BASE_SIZE, dataset: str = "unknown"
) -> Checkpoint:
    """Read a torchreid OSNet ``.pth`` or ``.pth.tar``; width comes from the shapes, the classifier is dropped.

    OSNet-IBN (``osnet_ibn_x1_0``) is known by its instance norms; ``info.variant`` says which variant was found.

    Args:
        path: The file, a bare state dict or one wrapped under ``state_dict``, with or without ``module.`` prefixes.
        width: Expected β; only checked.
        size: Input height and width that it was trained at (the file does not say).
        dataset: What it was trained on (the file does not say).

    Raises:
        CheckpointError: No such file, or unreadable.
        CheckpointUnsafeError: The pickle would run code.
        CheckpointMismatchError: Not an OSNet, another width than ``width``, or any tensor missing, unexpected or
            mis-shaped: each is listed.
    """
    content = _content(path)
    state = _renamed(_unwrap(_parsed(content, path), path), path)
    found = _infer_width(state, path)
    if width is not None and found != width:
        raise CheckpointMismatchError(
            f"{path} holds weights of width {found}, but width {width} was asked for; use --width {found}."
        )
    variant = NetworkVariant(instance_norm=any(_INSTANCE_NORM.match(name) for name in state))
    OSNetConfig(width=found, size=size, variant=variant)
    source = f"{path.name} sha256:{hashlib.sha256(content).hexdigest()}"
    info = CheckpointInfo(
        width=found, variant=variant, size=size, dataset=dataset, tools=tool_versions(), source=source
    )
    with torch.device("meta"):
        expected = OSNet(info.config).state_dict()
    state = _with_batch_counts(state, expected)
    check_state(state, expected, what=str(path))
    check_values(state, what=str(path))
    return Checkpoint(info, {name: _as_stored(tensor) for name, tensor in state.items()})


def _content(path: Path) -> bytes:
    """Read the file once: what is hashed is what is loaded."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}.")
    try:
        return read_regular(path, max_bytes=_MAX_BYTES)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error


def _parsed(content: bytes, path: Path) -> object:
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "Unsupported class" in str(error) or "GLOBAL" in str(error):
            first_line = next((line for line in str(error).splitlines() if "GLOBAL" in line), str(error))
            raise CheckpointUnsafeError(
                f"{path} holds more than weights and would run code when loaded ({first_line.strip()}). "
                "Nothing was run. Save its state_dict alone where you trust it: torch.save(model.state_dict(), ...)"
            ) from error
        raise _unreadable(path, error) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, OSError, ValueError, KeyError, … on bad bytes
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f"{path} is not a readable PyTorch checkpoint ({reason}); it may be truncated: download or copy it again."
    )


def _numpy_scalars() -> list[Any]:
    """List the types that torchreid's trainer saves beside weights: numpy numbers such as the rank-1 score."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("float32", "float64", "int64")]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *kinds]


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointMismatchError(f"{path}: expected a state dict of tensors, got {type(loaded).__name__}.")
    if strange := [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]:
        raise CheckpointMismatchError(f"{path}: entries that are not tensors: {', '.join(strange[:10])}.")
    return {str(name): tensor for name, tensor in loaded.items()}


def _renamed(raw: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename tensors to ours and drop the classifier; two names for one tensor are an error."""
    origins: dict[str, str] = {}
    for name in raw:
        ours = _rename(name.removeprefix("module."))
        if ours in origins:
            raise CheckpointMismatchError(f"{path}: {origins[ours]} and {name} are both names for {ours}.")
        origins[ours] = name
    return {ours: raw[name] for ours, name in origins.items() if not ours.startswith(_CLASSIFIER)}


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _infer_width(state: dict[str, Tensor], path: Path) -> float:
    if absent := [name for name in _STAGE_WEIGHTS if name not in state or state[name].ndim != 4]:
        raise CheckpointMismatchError(
            f"{path} is not an OSNet: no {', '.join(absent)} among its {len(state)} tensors "
            f"({', '.join(list(state)[:5])}, …)."
        )
    channels = tuple(state[name].shape[0] for name in _STAGE_WEIGHTS)
    assert len(channels) == len(BASE_CHANNELS)
    with contextlib.suppress(ConfigError):
        return width_of_channels(channels)
    raise CheckpointMismatchError(
        f"{path}: stage channels {channels} are no OSNet width; at width 1 they are {BASE_CHANNELS}."
    )


def _with_batch_counts(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add batch norm's batch counter, which files older than PyTorch 0.4.1 lack and evaluation never reads."""
    counters = [name for name in expected if name.endswith("num_batches_tracked")]
    if any(name in state for name in counters):
        return state
    return state | {name: torch.tensor(0) for name in counters}


def _as_stored(tensor: Tensor) -> Tensor:
    return tensor.float().clone() if tensor.is_floating_point() else tensor.clone()
