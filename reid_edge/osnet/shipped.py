"""Find the checkpoint that a command names: a file, or one that ships."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reid_edge.assets import assets
from reid_edge.errors import CheckpointError, CheckpointMismatchError
from reid_edge.osnet.checkpoint import Checkpoint, is_checkpoint, load_checkpoint
from reid_edge.osnet.torchreid import import_torchreid

#: Shipped checkpoints that rank best on cameras that no training has seen.
_NEW_SITE = "osnet_x*_new_site.safetensors"


def find_checkpoint(
    path: Path | None,
    width: float | None,
    say: Callable[[str], object] = lambda _line: None,
    *,
    new_site: bool = False,
) -> Checkpoint:
    """Load the checkpoint at a path (native, or torchreid's), or without one the shipped one of a width.

    Args:
        path: File that reid-edge wrote, or one that :func:`~reid_edge.osnet.torchreid.import_torchreid` reads.
        width: Expected β; needed when there is no path.
        say: Called with a line that says where in the file weights were found, unless it is the usual place.
        new_site: Of the shipped ones, take the one that is best on cameras that no training has seen.

    Raises:
        CheckpointError: Unreadable, or none ships at this width.
        CheckpointMismatchError: The weights have another width.
    """
    if path is None:
        return _shipped(width, new_site=new_site)
    if not is_checkpoint(path):
        return import_torchreid(path, width=width, say=say)
    checkpoint = load_checkpoint(path)
    if width is not None and checkpoint.info.width != width:
        raise CheckpointMismatchError(
            f"{path} holds weights of width {checkpoint.info.width}, but width {width} was asked for; "
            f"use --width {checkpoint.info.width}, or leave it out."
        )
    return checkpoint


def _shipped(width: float | None, *, new_site: bool) -> Checkpoint:
    found = map(load_checkpoint, assets("models", _NEW_SITE)) if new_site else usual_checkpoints()
    shipped = {checkpoint.info.width: checkpoint for checkpoint in found}
    if width in shipped:
        return shipped[width]
    raise CheckpointError(
        f"no checkpoint of width {width} ships{' for new sites' if new_site else ' with reid-edge'} "
        f"(it ships: {', '.join(map(str, sorted(shipped)))}). "
        "Give one with --checkpoint: a file that reid-edge wrote, or an OSNet .pth from torchreid's model zoo."
    )


def usual_checkpoints() -> list[Checkpoint]:
    """Load the shipped checkpoint of each width that is taken where nobody says what for."""
    others = assets("models", _NEW_SITE)
    return [load_checkpoint(path) for path in assets("models", "*.safetensors") if path not in others]


def shipped_checkpoints() -> list[Checkpoint]:
    """Load every checkpoint that ships."""
    return [load_checkpoint(path) for path in assets("models", "*.safetensors")]
