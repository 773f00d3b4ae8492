"""Import of checkpoints that torchreid (and its many copies) wrote."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from reid_edge.errors import CheckpointMismatchError, ConfigError
from reid_edge.osnet.architecture import BASE_CHANNELS, BASE_SIZE, NetworkVariant, OSNetConfig, width_of_channels
from reid_edge.osnet.checkpoint import (
    FEATURE_DIM,
    Checkpoint,
    CheckpointInfo,
    check_state,
    check_values,
    tool_versions,
)
from reid_edge.osnet.nested_weights import NestedWeights, find_weights
from reid_edge.osnet.network import OSNet
from reid_edge.osnet.weight_file import read_weight_file
from reid_edge.types import Size
from reid_edge.wording import counted

#: torchreid's name of a module → ours, applied in this order.  What only OSNet-AIN's file has comes first.
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^(conv[234]\.[01])\.conv2\.(\d)\.layers\.", r"\1.streams.\2."),
        (r"^pool([23])\.0\.", r"transition\1."),
        (r"^(conv[234]\.[01])\.conv1\.", r"\1.reduce."),
        (r"^(conv[234]\.[01])\.conv2a\.", r"\1.streams.0.0."),
        (r"^(conv[234]\.[01])\.conv2b\.", r"\1.streams.1."),
        (r"^(conv[234]\.[01])\.conv2c\.", r"\1.streams.2."),
        (r"^(conv[234]\.[01])\.conv2d\.", r"\1.streams.3."),
        (r"^(conv[234]\.[01])\.conv3\.", r"\1.restore."),
        (r"^(conv[234]\.[01])\.downsample\.", r"\1.project."),
        (r"^(.*streams\.\d\.\d)\.conv1\.", r"\1.pointwise."),
        (r"^(.*streams\.\d\.\d)\.conv2\.", r"\1.depthwise."),
        (r"^conv([23])\.2\.0\.", r"transition\1."),
        (r"^fc\.0\.", "fc."),
        (r"^fc\.1\.", "fc_norm."),
        (r"\.bn\.", ".norm."),
    )
)
#: The instance norm of a block: of OSNet-IBN's first stage, or inside the residual of any of OSNet-AIN's.
_IBN_NORM = (re.compile(r"^(conv2\.[01])\.IN\."), r"\1.norm.")
_AIN_NORM = (re.compile(r"^(conv[234]\.[01])\.IN\."), r"\1.restore.norm.")
#: Names that only torchreid's layout of OSNet-AIN has.
_AIN_LAYOUT = re.compile(r"^(conv[234]\.[01]\.conv2\.\d\.layers|pool[23]\.0)\.")
#: Layers that show the channels of the four stages.
_STAGE_WEIGHTS = ("conv1.conv.weight", "transition2.conv.weight", "transition3.conv.weight", "conv5.conv.weight")
_CLASSIFIER = "classifier."
#: Norms after the residual sums, by our names.
_OUTER_NORM = re.compile(r"^conv2\.\d+\.norm\.")


def import_torchreid(
    path: Path,
    *,
    width: float | None = None,
    size: Size = BASE_SIZE,
    dataset: str = "unknown",
    weights: str | None = None,
    say: Callable[[str], object] = lambda _line: None,
) -> Checkpoint:
    """Read a torchreid OSNet ``.pth`` or ``.pth.tar``; width comes from the shapes, the classifier is dropped.

    OSNet-IBN (``osnet_ibn_x1_0``) and OSNet-AIN (``osnet_ain_x*``) are known by their instance norms; ``info.variant``
    says which variant was found.

    Args:
        path: The file, a state dict, bare or anywhere in what a trainer saved, with or without a common prefix to its
            names, also as safetensors.
        width: Expected β; only checked.
        size: Input height and width that it was trained at (the file does not say).
        dataset: What it was trained on (the file does not say).
        weights: Where in the file the weights are, e.g. ``model_ema``; needed if it holds those of several networks.
        say: Called with a line that says where the weights were found, unless it is where torchreid puts them.

    Raises:
        CheckpointError: No such file, or unreadable.
        CheckpointUnsafeError: The pickle would run code.
        CheckpointMismatchError: Not an OSNet, several of them, another width than ``width``, features of another
            length than 512, or any tensor missing, unexpected or mis-shaped: each is listed.
    """
    loaded, sha256 = read_weight_file(path)
    nested = find_weights(loaded, name=str(path), wanted=weights)
    if nested.note:
        say(f"{path}: {nested.note}")
    state = _renamed(nested.state, path)
    found = _infer_width(state, path)
    if width is not None and found != width:
        raise CheckpointMismatchError(
            f"{path} holds weights of width {found}, but width {width} was asked for; use --width {found}."
        )
    variant = _variant(state)
    OSNetConfig(width=found, size=size, variant=variant)
    info = CheckpointInfo(
        width=found,
        variant=variant,
        size=size,
        dataset=dataset,
        tools=tool_versions(),
        source=f"{path.name} sha256:{sha256}{nested.place and ' ' + nested.place}",
    )
    with torch.device("meta"):
        expected = OSNet(info.config).state_dict()
    state = _with_batch_counts(state, expected)
    _check_feature(state, nested, path)
    check_state(state, expected, what=str(path))
    check_values(state, what=str(path))
    return Checkpoint(info, {name: _as_stored(tensor) for name, tensor in state.items()})


def _renamed(raw: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename tensors to ours and drop the classifier; two names for one tensor are an error."""
    norm = _AIN_NORM if any(_AIN_LAYOUT.match(name) for name in raw) else _IBN_NORM
    origins: dict[str, str] = {}
    for name in raw:
        ours = _rename(name, (norm, *_RENAMES))
        if ours in origins:
            raise CheckpointMismatchError(f"{path}: {origins[ours]} and {name} are both names for {ours}.")
        origins[ours] = name
    return {ours: raw[name] for ours, name in origins.items() if not ours.startswith(_CLASSIFIER)}


def _rename(name: str, renames: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in renames:
        name = pattern.sub(replacement, name)
    return name


def _variant(state: dict[str, Tensor]) -> NetworkVariant:
    """Tell the variant by the norms that keep no statistics: after the sums of conv2, or inside residuals."""
    if any(map(_OUTER_NORM.match, state)):
        return NetworkVariant(instance_norm=True)
    return NetworkVariant(ain=not any(f"{name}.norm.running_mean" in state for name in ("conv1", "conv2.0.restore")))


def _infer_width(state: dict[str, Tensor], path: Path) -> float:
    if absent := [name for name in _STAGE_WEIGHTS if name not in state or state[name].ndim != 4]:
        raise CheckpointMismatchError(
            f"{path} is not an OSNet: no {', '.join(absent)} among its {counted(len(state), 'tensor')} "
            f"({', '.join(list(state)[:5])}, …)."
        )
    channels = tuple(state[name].shape[0] for name in _STAGE_WEIGHTS)
    assert len(channels) == len(BASE_CHANNELS)
    with contextlib.suppress(ConfigError):
        return width_of_channels(channels)
    raise CheckpointMismatchError(
        f"{path}: stage channels {channels} are not those of an OSNet; at width 1 they are {BASE_CHANNELS}."
    )


def _check_feature(state: dict[str, Tensor], nested: NestedWeights, path: Path) -> None:
    """Refuse networks whose feature is not the output of a layer of 512.

    Raises:
        CheckpointMismatchError: With the length that was found, or the reason why there is no such layer.
    """
    weight = state.get("fc.weight")
    if weight is None and not any(name.startswith("fc") for name in state):
        channels = state["conv5.conv.weight"].shape[0]
        kind = "; its heads are fast-reid's" if any(name.startswith("heads.") for name in nested.others) else ""
        raise CheckpointMismatchError(
            f"{path} has no fc layer{kind}: its feature is the {channels} pooled channels of conv5. reid-edge needs "
            f"OSNet's own feature, fc's {FEATURE_DIM} numbers. Train it on with that layer, or use torchreid's weights."
        )
    if weight is not None and weight.ndim == 2 and weight.shape[0] != FEATURE_DIM:
        raise CheckpointMismatchError(
            f"{path} gives features of {weight.shape[0]} numbers (feature_dim, fc.0.weight), which is not supported: "
            f"reid-edge's features have {FEATURE_DIM}. Train it with torchreid's default, feature_dim={FEATURE_DIM}."
        )


def _with_batch_counts(state: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add batch norm's batch counter, which files older than PyTorch 0.4.1 lack and evaluation never reads."""
    counters = [name for name in expected if name.endswith("num_batches_tracked")]
    if any(name in state for name in counters):
        return state
    return state | {name: torch.tensor(0) for name in counters}


def _as_stored(tensor: Tensor) -> Tensor:
    return tensor.float().clone() if tensor.is_floating_point() else tensor.clone()
