"""Native checkpoints: safetensors weights with everything needed to use them in the file's metadata."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import Tensor

import reid_edge
from reid_edge.errors import CheckpointError, CheckpointMismatchError, OutputError
from reid_edge.files import check_output, write_whole
from reid_edge.foreign_text import one_line
from reid_edge.osnet.architecture import BASE_SIZE, NetworkVariant, OSNetConfig
from reid_edge.osnet.file_kinds import is_safetensors, why_no_checkpoint
from reid_edge.osnet.network import OSNet
from reid_edge.types import Size
from reid_edge.wording import counted

FORMAT_VERSION = 1
METADATA_KEY = "reid_edge"
HEAD_KEY = "reid_edge_head"
#: Number of problems of a checkpoint that are named.
_MOST_LISTED = 20
#: What the names of a head's tensors in the file begin with; no tensor of the network does.
HEAD_PREFIX = "head."
FEATURE_DIM = OSNetConfig.feature_dim
#: ImageNet pixel statistics, RGB, in units of full scale: what torchreid's OSNet weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Origin of batch-norm statistics that were replaced by those of a place (:mod:`reid_edge.osnet.adaptation`).

    Attributes:
        place: Name of the place.
        origin: Where the crops came from: folders or videos, and how many tracks.
        created: When, UTC, in ISO 8601.
        crops: Number of crops.
        checkpoint_sha256: Hash of the weights before.
    """

    place: str
    origin: str
    created: str
    crops: int = 0
    checkpoint_sha256: str = ""

    def __str__(self) -> str:
        return (
            f"to {self.place} with {self.crops:,} crops of {self.origin}, {self.created}, "
            f"from {self.checkpoint_sha256[:12]}…"
        )


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """Metadata of a checkpoint.

    Attributes:
        width: β.
        variant: How the network differs from the paper's primary model.
        size: Height and width of the input it was trained at, pixels.
        mean: Per-channel mean that the input is normalised with, RGB, full scale = 1.
        std: Per-channel standard deviation, likewise.
        color_order: Channel order of the network's input; always ``RGB``.
        dataset: What it was trained on.
        recipe: How it was trained.
        metrics: Figures of merit, e.g. ``{"market1501/mAP": 0.704}``.
        tools: Versions of what made the file.
        code_commit: Commit of the code that trained it, where known.
        source: Where the weights came from, for imported ones: file name and sha256.
        training: The resolved configuration of the training run, as JSON has it; empty for imported weights.
        adaptations: Places whose statistics the batch norms have taken on, the last one last; empty as trained.
    """

    width: float
    variant: NetworkVariant = field(default_factory=NetworkVariant)
    size: Size = BASE_SIZE
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    color_order: str = "RGB"
    dataset: str = "unknown"
    recipe: str = "unknown"
    metrics: dict[str, float] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    code_commit: str = "unknown"
    source: str = ""
    training: dict[str, Any] = field(default_factory=dict)
    adaptations: tuple[Adaptation, ...] = ()
    format_version: int = FORMAT_VERSION

    @property
    def config(self) -> OSNetConfig:
        """The network that the weights belong to, at its training size."""
        return OSNetConfig(width=self.width, size=self.size, variant=self.variant)


@dataclass(frozen=True, kw_only=True, eq=False)
class Head:
    """The linear layer on top of the feature, kept where its outputs are of use by themselves.

    Attributes:
        names: What each output stands for, C of them.
        weight: C×512.
        bias: C.
        kind: ``category``: the highest output names the image; ``attributes``: each above 0 holds.

    Raises:
        CheckpointMismatchError: Shapes that do not go with the names, or numbers that are not finite.
    """

    names: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    kind: Literal["category", "attributes"]

    def __post_init__(self) -> None:
        count = len(self.names)
        shapes = tuple(self.weight.shape), tuple(self.bias.shape)
        if not count or shapes != ((count, FEATURE_DIM), (count,)):
            raise CheckpointMismatchError(
                f"a head of {count} names needs a weight of {(count, FEATURE_DIM)} and a bias of {(count,)}, at least "
                f"one name; got {shapes[0]} and {shapes[1]}."
            )
        check_values(self.tensors, what="head")

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by their names in a file."""
        return {f"{HEAD_PREFIX}weight": self.weight, f"{HEAD_PREFIX}bias": self.bias}


@dataclass(frozen=True)
class Checkpoint:
    """Weights, what they say of themselves, and the sha256 that names them.

    ``sha256`` is taken over the network's tensors (name, shape, float32 bytes, in name order), so the same weights
    have the same name whichever file they lie in.  The head is no part of it: it does not change the feature.
    """

    info: CheckpointInfo
    state: dict[str, Tensor]
    head: Head | None = None

    @property
    def sha256(self) -> str:
        """Hash of the weights."""
        digest = hashlib.sha256()
        for name in sorted(self.state):
            tensor = self.state[name].detach().cpu().to(torch.float32).contiguous()
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def at_size(self, size: Size) -> Checkpoint:
        """Return the same weights for another input size.

        Raises:
            ConfigError: A size too small for the network.
        """
        replace(self.info.config, size=size)
        return replace(self, info=replace(self.info, size=size))

    def network(self) -> OSNet:
        """The network with these weights, in evaluation mode, float32.

        Raises:
            CheckpointMismatchError: A tensor is missing, unexpected or of the wrong shape.
        """
        network = OSNet(self.info.config)
        check_state(self.state, network.state_dict(), what="checkpoint")
        check_values(self.state, what="checkpoint")
        network.load_state_dict(self.state)
        return network.float().eval()


def check_state(state: dict[str, Tensor], expected: dict[str, Tensor], *, what: str) -> None:
    """Compare names and shapes of two state dicts; nothing is left out, nothing is let in.

    Raises:
        CheckpointMismatchError: Counts what is missing, unexpected or mis-shaped, and names the first of it.
    """
    missing = [f"missing     {name} {tuple(expected[name].shape)}" for name in expected if name not in state]
    unexpected = [f"unexpected  {one_line(name)} {tuple(state[name].shape)}" for name in state if name not in expected]
    misshaped = [
        f"mis-shaped  {name}: expected {tuple(tensor.shape)}, got {tuple(state[name].shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems := missing + unexpected + misshaped:
        raise CheckpointMismatchError(
            f"{what}: {counted(len(missing), 'tensor')} missing, {len(unexpected)} unexpected, {len(misshaped)} "
            f"mis-shaped for this OSNet:\n  {_listed(problems)}"
        )


def check_values(state: dict[str, Tensor], *, what: str) -> None:
    """Refuse tensors that hold no plain finite numbers.

    Raises:
        CheckpointMismatchError: Counts the tensors that are sparse, without data, quantized, complex, or hold NaN or
            infinity, and names the first of them.
    """
    problems = [f"{one_line(name)}: {problem}" for name, tensor in state.items() if (problem := _problem(tensor))]
    if problems:
        raise CheckpointMismatchError(
            f"{what}: {counted(len(problems), 'tensor')} cannot be used:\n  {_listed(problems)}"
        )


def _listed(problems: Sequence[str]) -> str:
    """Return the first problems, a line each."""
    more = [f"… and {len(problems) - _MOST_LISTED:,} more"] if len(problems) > _MOST_LISTED else []
    return "\n  ".join([*problems[:_MOST_LISTED], *more])


def _problem(tensor: Tensor) -> str:
    if tensor.layout != torch.strided or tensor.is_meta:
        return "sparse, or without data"
    if tensor.is_quantized:
        return "quantized; import the weights from before that, and quantize with reid-edge export"
    if tensor.is_complex():
        return "complex"
    return "" if bool(torch.isfinite(tensor).all()) else "holds NaN or infinity"


def is_checkpoint(path: Path) -> bool:
    """Return True if a file has reid-edge's metadata; its weights are not looked at."""
    if not path.is_file():
        return False
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a native checkpoint.

    Raises:
        CheckpointError: No such file, truncated, not safetensors, or without reid-edge's metadata.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}.")
    try:
        # One opening, and copies: the library maps the file, and mapped weights change with it.
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} {_why_unreadable(path)}") from error
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path} is safetensors of another program, without reid-edge's metadata. For the weights of an OSNet: "
            f"reid-edge import {shlex.quote(str(path))}"
        )
    try:
        info = msgspec.json.decode(metadata[METADATA_KEY], type=CheckpointInfo)
        about = msgspec.json.decode(metadata[HEAD_KEY], type=_AboutHead) if HEAD_KEY in metadata else None
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{path}: metadata not understood: {error}.") from error
    if info.format_version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {info.format_version}; this release reads up to {FORMAT_VERSION}. "
            "Upgrade reid-edge."
        )
    return Checkpoint(info, state, None if about is None else _taken_head(state, about, path))


def _why_unreadable(path: Path) -> str:
    """Say what a file is that is no readable safetensors, and the next step."""
    content = path.read_bytes()
    if is_safetensors(content):
        return "is safetensors, but truncated or damaged: copy it again."
    reason = why_no_checkpoint(content, str(path))
    return reason or f"is a PyTorch file; for the weights of an OSNet: reid-edge import {shlex.quote(str(path))}"


@dataclass(frozen=True, kw_only=True)
class _AboutHead:
    """Metadata of a head."""

    names: tuple[str, ...]
    kind: Literal["category", "attributes"]


def _taken_head(state: dict[str, Tensor], about: _AboutHead, path: Path) -> Head:
    """Move a head's tensors out of what was read."""
    try:
        weight, bias = state.pop(f"{HEAD_PREFIX}weight"), state.pop(f"{HEAD_PREFIX}bias")
    except KeyError as error:
        raise CheckpointError(
            f"{path} has the metadata of a head, but no tensor {error}; the file is damaged: copy it again."
        ) from error
    return Head(names=about.names, weight=weight, bias=bias, kind=about.kind)


def save_checkpoint(checkpoint: Checkpoint, path: Path, *, force: bool = False, half: bool = False) -> None:
    """Write a native checkpoint, whole or not at all.

    Args:
        checkpoint: What is written.
        path: Where; ends in ``.safetensors``.
        force: Replace what is there.
        half: Write weights as float16, half as large, but variances as float32, since small ones would become 0.  They
            are rounded, so what is loaded again is another model with another sha256.

    Raises:
        OutputError: The name does not end in ``.safetensors``, the file exists and ``force`` is off, it cannot be
            written, or a weight is too large for float16.
        CheckpointMismatchError: The weights do not fit the width.
    """
    if path.suffix != ".safetensors":
        raise OutputError(f"a checkpoint's name must end in .safetensors, got {path}.")
    check_output(path, force=force, parents=True)
    checkpoint.network()
    write_whole(path, safetensors.torch.save(_stored(checkpoint, half=half), _metadata(checkpoint)))


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    metadata = {METADATA_KEY: msgspec.json.encode(checkpoint.info).decode()}
    if checkpoint.head is not None:
        about = _AboutHead(names=checkpoint.head.names, kind=checkpoint.head.kind)
        metadata[HEAD_KEY] = msgspec.json.encode(about).decode()
    return metadata


def _stored(checkpoint: Checkpoint, *, half: bool) -> dict[str, Tensor]:
    """All tensors as they go into the file."""
    state = checkpoint.state | ({} if checkpoint.head is None else checkpoint.head.tensors)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    if not half:
        return state
    halved = {
        name: tensor.half() if tensor.is_floating_point() and not name.endswith(".running_var") else tensor
        for name, tensor in state.items()
    }
    if too_large := [name for name, tensor in halved.items() if not bool(torch.isfinite(tensor).all())]:
        raise OutputError(
            f"float16 holds numbers up to {torch.finfo(torch.float16).max:.0f}, and these tensors have larger ones: "
            f"{', '.join(too_large)}. Save this checkpoint in full precision."
        )
    return halved


def tool_versions() -> dict[str, str]:
    """Versions of what makes a checkpoint."""
    return {"reid-edge": reid_edge.__version__, "python": platform.python_version(), "torch": str(torch.__version__)}
