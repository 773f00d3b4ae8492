"""Crops to calibrate INT8 with, and others to judge it by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reid_edge.assets import asset
from reid_edge.bundle import Calibration
from reid_edge.crops import Image, resize_into
from reid_edge.errors import CalibrationError, FrameError
from reid_edge.export.distill import STEPS, distill, distill_steps
from reid_edge.images import list_images, read_image
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.progress import Notify

DISTILLED_CALIBRATION = 32
DISTILLED_HELD_OUT = 32
SEED = 0
#: Real crops: this many calibrate at most, a fifth of all (at most 128) judge.
MAX_CALIBRATION = 300
MAX_HELD_OUT = 128
MIN_CROPS = 40

_NOTE = f"made from the checkpoint's batch-norm statistics: {STEPS} steps, seed {SEED}"


@dataclass(frozen=True)
class CalibrationSet:
    """Crops that calibrate, crops that judge, N×H×W×3 uint8 BGR each, and what the manifest says of them."""

    calibration: Image
    held_out: Image
    record: Calibration


def shipped_name(checkpoint: Checkpoint, size: tuple[int, int]) -> str:
    """File name, under ``calibration/``, of the set made from this very checkpoint at this size."""
    return f"{checkpoint.sha256[:12]}-{size[0]}x{size[1]}.npz"


def calibration_set(checkpoint: Checkpoint, crops: Path | None, notify: Notify) -> CalibrationSet:
    """From a folder of real crops; without one, the set that ships for the checkpoint, or one made from it now.

    Args:
        checkpoint: At the size that is exported.
        crops: The folder, or None.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.

    Raises:
        CalibrationError: No usable crops.
    """
    size = checkpoint.info.size
    if crops is not None:
        return folder_set(crops, size)
    return shipped_set(checkpoint, size) or distilled_set(checkpoint, size, notify)


def shipped_set(checkpoint: Checkpoint, size: tuple[int, int]) -> CalibrationSet | None:
    """The set that ships for this very checkpoint at this size, if there is one."""
    path = asset("calibration", shipped_name(checkpoint, size))
    return None if path is None else saved_set(path)


def saved_set(path: Path) -> CalibrationSet:
    """A distilled set in a file."""
    with np.load(path) as stored:
        return _set(stored["calibration"], stored["held_out"], "distilled", _NOTE)


def save_set(made: CalibrationSet, path: Path) -> None:
    """Keep a distilled set, whole or not at all."""
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, calibration=made.calibration, held_out=made.held_out)
    partial.replace(path)


def distilled_set(checkpoint: Checkpoint, size: tuple[int, int], notify: Notify) -> CalibrationSet:
    """A set made from a checkpoint now: minutes on a small CPU.

    Args:
        checkpoint: Whose statistics the crops must have.
        size: Height and width.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
    """
    count = DISTILLED_CALIBRATION + DISTILLED_HELD_OUT
    on_step = notify("distilling calibration crops from the checkpoint", distill_steps(count))
    crops = distill(checkpoint, count, size=size, seed=SEED, on_step=on_step)
    return _set(crops[:DISTILLED_CALIBRATION], crops[DISTILLED_CALIBRATION:], "distilled", _NOTE)


def folder_set(folder: Path, size: tuple[int, int]) -> CalibrationSet:
    """Real crops from a folder and those below it: every fifth, by a fixed shuffle, judges; the others calibrate.

    Raises:
        CalibrationError: No such folder, fewer than 40 images, or a file that is not a readable image.
    """
    if not folder.is_dir():
        raise CalibrationError(f"no folder of calibration crops at {folder}.")
    try:
        paths = list_images([folder])
    except FrameError as error:
        raise CalibrationError(f"{error} Or use --calibration default, which needs none.") from error
    if len(paths) < MIN_CROPS:
        raise CalibrationError(
            f"{folder} holds {len(paths)} images; at least {MIN_CROPS} person crops are needed. "
            "Or use --calibration default, which needs none."
        )
    order = np.random.default_rng(SEED).permutation(len(paths))
    held_out = order[: min(MAX_HELD_OUT, len(paths) // 5)]
    calibration = order[len(held_out) : len(held_out) + MAX_CALIBRATION]
    return _set(
        _read([paths[i] for i in calibration], size),
        _read([paths[i] for i in held_out], size),
        "crops",
        f"{len(paths)} images in folder '{folder.name}', shuffle seed {SEED}",
    )


def _read(paths: list[Path], size: tuple[int, int]) -> Image:
    crops = np.empty((len(paths), *size, 3), np.uint8)
    for path, out in zip(paths, crops, strict=True):
        try:
            resize_into(read_image(path), out)
        except FrameError as error:
            raise CalibrationError(f"{error} Remove it from the calibration folder, or replace it.") from error
    return crops


def _set(calibration: Image, held_out: Image, source: str, note: str) -> CalibrationSet:
    digest = hashlib.sha256(calibration.tobytes() + held_out.tobytes()).hexdigest()
    record = Calibration(
        source="distilled" if source == "distilled" else "crops",
        calibration_crops=len(calibration),
        held_out_crops=len(held_out),
        sha256=digest,
        note=note,
    )
    return CalibrationSet(calibration, held_out, record)
