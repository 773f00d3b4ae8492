"""Find the checkpoint that a command names: a file, or one that ships."""

from __future__ import annotations

from pathlib import Path

from reid_edge.assets import assets
from reid_edge.errors import CheckpointError, CheckpointMismatchError
from reid_edge.osnet.checkpoint import Checkpoint, load_checkpoint
from reid_edge.osnet.torchreid import import_torchreid


def find_checkpoint(path: Path | None, width: float | None) -> Checkpoint:
    """Load the checkpoint at a path (native, or torchreid's), or without one the shipped one of a width.

    Args:
        path: ``.safetensors`` that reid-edge wrote, or torchreid's ``.pth`` or ``.pth.tar``.
        width: Expected β; needed when there is no path.

    Raises:
        CheckpointError: Unreadable, or none ships at this width.
        CheckpointMismatchError: The weights have another width.
    """
    if path is None:
        return _shipped(width)
    if path.suffix != ".safetensors":
        return import_torchreid(path, width=width)
    checkpoint = load_checkpoint(path)
    if width is not None and checkpoint.info.width != width:
        raise CheckpointMismatchError(
            f"{path} holds weights of width {checkpoint.info.width}, but width {width} was asked for; "
            f"use --width {checkpoint.info.width}, or leave it out."
        )
    return checkpoint


def _shipped(width: float | None) -> Checkpoint:
    shipped = {checkpoint.info.width: checkpoint for checkpoint in shipped_checkpoints()}
    if width in shipped:
        return shipped[width]
    raise CheckpointError(
        f"no checkpoint of width {width} ships with reid-edge (it ships: {', '.join(map(str, sorted(shipped)))}). "
        "Give one with --checkpoint: a file that reid-edge wrote, or an OSNet .pth from torchreid's model zoo."
    )


def shipped_checkpoints() -> list[Checkpoint]:
    """Load every checkpoint that ships."""
    return [load_checkpoint(path) for path in assets("models", "*.safetensors")]
