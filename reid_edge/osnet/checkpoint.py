"""Native checkpoints: safetensors weights with everything needed to use them in the file's metadata."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import Tensor

import reid_edge
from reid_edge.errors import CheckpointError, CheckpointMismatchError, OutputError
from reid_edge.osnet.config import BASE_SIZE, OSNetConfig, Variant
from reid_edge.osnet.network import OSNet

FORMAT_VERSION = 1
METADATA_KEY = "reid_edge"
#: ImageNet pixel statistics, RGB, in units of full scale: what torchreid's OSNet weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

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
    """

    width: float
    variant: Variant = field(default_factory=Variant)
    size: tuple[int, int] = BASE_SIZE
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    color_order: str = "RGB"
    dataset: str = "unknown"
    recipe: str = "unknown"
    metrics: dict[str, float] = field(default_factory=dict)
    tools: dict[str, str] = field(default_factory=dict)
    code_commit: str = "unknown"
    source: str = ""
    format_version: int = FORMAT_VERSION

    @property
    def config(self) -> OSNetConfig:
        """The network that the weights belong to, at its training size."""
        return OSNetConfig(width=self.width, size=self.size, variant=self.variant)


@dataclass(frozen=True)
class Checkpoint:
    """Weights, what they say of themselves, and the sha256 that names them.

    ``sha256`` is taken over the tensors (name, shape, float32 bytes, in name order), so the same weights have the
    same name whichever file they lie in.
    """

    info: CheckpointInfo
    state: dict[str, Tensor]

    @property
    def sha256(self) -> str:
        """Hash of the weights."""
        digest = hashlib.sha256()
        for name in sorted(self.state):
            tensor = self.state[name].detach().to(torch.float32).contiguous()
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

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
        CheckpointMismatchError: Lists everything missing, unexpected or mis-shaped.
    """
    missing = [f"missing     {name} {tuple(expected[name].shape)}" for name in expected if name not in state]
    unexpected = [f"unexpected  {name} {tuple(state[name].shape)}" for name in state if name not in expected]
    misshaped = [
        f"mis-shaped  {name}: expected {tuple(tensor.shape)}, got {tuple(state[name].shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems := missing + unexpected + misshaped:
        raise CheckpointMismatchError(
            f"{what}: {len(missing)} tensors missing, {len(unexpected)} unexpected, {len(misshaped)} mis-shaped "
            f"for this OSNet:\n  " + "\n  ".join(problems)
        )


def check_values(state: dict[str, Tensor], *, what: str) -> None:
    """Refuse tensors that hold no plain finite numbers.

    Raises:
        CheckpointMismatchError: Lists every tensor that is sparse, without data, complex, or holds NaN or infinity.
    """
    problems = [f"{name}: {problem}" for name, tensor in state.items() if (problem := _problem(tensor))]
    if problems:
        raise CheckpointMismatchError(f"{what}: {len(problems)} tensors cannot be used:\n  " + "\n  ".join(problems))


def _problem(tensor: Tensor) -> str:
    if tensor.layout != torch.strided or tensor.is_meta:
        return "sparse, or without data"
    if tensor.is_complex():
        return "complex"
    return "" if bool(torch.isfinite(tensor).all()) else "holds NaN or infinity"


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a native checkpoint.

    Raises:
        CheckpointError: No such file, truncated, not safetensors, or without reid-edge's metadata.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}.")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        state = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable safetensors file ({error}); it may be truncated: copy it again. "
            f"For a torchreid .pth or .pth.tar: reid-edge import {path}"
        ) from error
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path} is safetensors but carries no '{METADATA_KEY}' metadata; expected a file that reid-edge wrote."
        )
    try:
        info = msgspec.json.decode(metadata[METADATA_KEY], type=CheckpointInfo)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{path}: metadata not understood: {error}.") from error
    if info.format_version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {info.format_version}; this release reads up to {FORMAT_VERSION}. "
            "Upgrade reid-edge."
        )
    return Checkpoint(info, state)


def save_checkpoint(checkpoint: Checkpoint, path: Path, *, force: bool = False) -> None:
    """Write a native checkpoint, whole or not at all.

    Raises:
        OutputError: The name does not end in ``.safetensors``, the file exists and ``force`` is off, or it cannot be
            written.
        CheckpointMismatchError: The weights do not fit the width.
    """
    if path.suffix != ".safetensors":
        raise OutputError(f"a checkpoint's name must end in .safetensors, got {path}.")
    if path.exists() and not force:
        raise OutputError(f"{path} exists already; use --force to replace it.")
    checkpoint.network()
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    state = {name: tensor.contiguous() for name, tensor in checkpoint.state.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(state, partial, {METADATA_KEY: msgspec.json.encode(checkpoint.info).decode()})
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise OutputError(f"cannot write {path}: {error}.") from error
    finally:
        partial.unlink(missing_ok=True)


def tool_versions() -> dict[str, str]:
    """Versions of what makes a checkpoint."""
    return {"reid-edge": reid_edge.__version__, "python": platform.python_version(), "torch": str(torch.__version__)}
