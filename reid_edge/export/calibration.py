"""Crops to calibrate INT8 with, and others to judge it by: real ones, or made from the checkpoint alone.

Crops that are made need no photograph of anyone: inputs are optimised until the statistics that they cause at every
batch norm match the ones stored there in training (data-free quantization: Cai et al., ZeroQ, CVPR 2020, section 3.1).
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from reid_edge.assets import asset
from reid_edge.crops import resize_into
from reid_edge.errors import CalibrationError, FrameError, shortened
from reid_edge.files import write_whole
from reid_edge.images import left_out, list_images, read_images
from reid_edge.manifest import Calibration
from reid_edge.osnet.checkpoint import Checkpoint
from reid_edge.progress import Notify
from reid_edge.types import Image, Size
from reid_edge.wording import counted

_log = logging.getLogger(__name__)

DISTILLED_CALIBRATION = 32
DISTILLED_HELD_OUT = 32
SEED = 0
#: Real crops: this many calibrate at most, a fifth of all (at most 128) judge.
MAX_CALIBRATION = 300
MAX_HELD_OUT = 128
MIN_CROPS = 40

#: 50 steps at 0.1 calibrate as well as 110 at 0.05, in half the time (docs/quantization.md).
STEPS = 50
LEARNING_RATE = 0.1
#: Enough for golden crops, which only have to excite the network.
GOLDEN_STEPS = 25
#: Weight of the total variation, which keeps the inputs as smooth as photographs are.
SMOOTHNESS = 0.5
#: Inputs optimised together: their joint statistics are matched.
BATCH = 32

_NOTE = f"made from the checkpoint's batch-norm statistics: {STEPS} steps, seed {SEED}"


@dataclass(frozen=True)
class CalibrationSet:
    """Crops that calibrate, crops that judge, N×H×W×3 uint8 BGR each, and what the manifest says of them."""

    calibration: Image
    held_out: Image
    record: Calibration


def shipped_name(checkpoint: Checkpoint, size: Size) -> str:
    """Name the file, under ``calibration/``, of the set made from this very checkpoint at this size."""
    return _shipped_name(checkpoint.sha256, size)


def _shipped_name(checkpoint_sha256: str, size: Size) -> str:
    return f"{checkpoint_sha256[:12]}-{size[0]}x{size[1]}.npz"


def calibration_set(
    checkpoint: Checkpoint, crops: Path | None, notify: Notify, *, skip_bad: bool = False
) -> CalibrationSet:
    """Read a folder of real crops; without one, take the set that ships for the checkpoint, or make one from it.

    Args:
        checkpoint: At the size that is exported.
        crops: The folder, or None.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
        skip_bad: Leave out files of the folder that are no readable images.

    Raises:
        CalibrationError: No usable crops.
    """
    size = checkpoint.info.size
    if crops is not None:
        return folder_set(crops, size, skip_bad=skip_bad)
    return shipped_set(checkpoint, size) or distilled_set(checkpoint, size, notify)


def shipped_set(checkpoint: Checkpoint, size: Size) -> CalibrationSet | None:
    """Read the set that ships for this very checkpoint at this size, if there is one."""
    return shipped_set_of(checkpoint.sha256, size)


def shipped_set_of(checkpoint_sha256: str, size: Size) -> CalibrationSet | None:
    """Read the set that ships for the checkpoint of a sha256 at this size, if there is one."""
    path = asset("calibration", _shipped_name(checkpoint_sha256, size))
    return None if path is None else saved_set(path)


def saved_set(path: Path) -> CalibrationSet:
    """Read a distilled set from a file.

    Raises:
        CalibrationError: The file is damaged.
    """
    try:
        with np.load(path) as stored:
            return _set(stored["calibration"], stored["held_out"], "distilled", _NOTE)
    except Exception as error:  # NumPy's, zipfile's and zlib's have no common base
        raise CalibrationError(
            f"{path} holds no calibration crops ({shortened(error)}); make it again, or reinstall."
        ) from error


def save_set(made: CalibrationSet, path: Path) -> None:
    """Write a distilled set, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    content = io.BytesIO()
    np.savez_compressed(content, calibration=made.calibration, held_out=made.held_out)
    write_whole(path, content.getvalue())


def distilled_set(checkpoint: Checkpoint, size: Size, notify: Notify) -> CalibrationSet:
    """Make a set from a checkpoint: minutes on a small CPU.

    Args:
        checkpoint: The crops will have its statistics.
        size: Height and width.
        notify: Called with a text and a number of steps before long work; returns what to call after each step.
    """
    count = DISTILLED_CALIBRATION + DISTILLED_HELD_OUT
    on_step = notify("distilling calibration crops from the checkpoint", distill_steps(count))
    crops = distill(checkpoint, count, size=size, seed=SEED, on_step=on_step)
    return _set(crops[:DISTILLED_CALIBRATION], crops[DISTILLED_CALIBRATION:], "distilled", _NOTE)


def folder_set(folder: Path, size: Size, *, skip_bad: bool = False) -> CalibrationSet:
    """Read real crops from a folder and those below it: every fifth, by a fixed shuffle, judges; the others calibrate.

    Args:
        folder: The folder.
        size: Height and width that the crops are resized to.
        skip_bad: Leave out files that are no readable images; the set's note and a log line say how many.

    Raises:
        CalibrationError: No such folder, fewer than 40 images, or a file that is no readable image.
    """
    if not folder.is_dir():
        raise CalibrationError(f"no folder of calibration crops at {folder}.")
    try:
        paths = list_images([folder])
    except FrameError as error:
        raise CalibrationError(f"{error} Or use --calibration default, which needs none.") from error
    if len(paths) < MIN_CROPS:
        raise CalibrationError(
            f"{folder} holds {counted(len(paths), 'image')}; at least {MIN_CROPS} person crops are needed. "
            "Or use --calibration default, which needs none."
        )
    unreadable: list[Path] = []
    order = np.random.default_rng(SEED).permutation(len(paths))
    images = _readable([paths[place] for place in order], unreadable, skip_bad=skip_bad)
    held_out = _resized(images, min(MAX_HELD_OUT, len(paths) // 5), size)
    calibration = _resized(images, min(MAX_CALIBRATION, len(paths) - len(held_out)), size)
    if len(held_out) + len(calibration) < MIN_CROPS:
        raise CalibrationError(
            f"{left_out(unreadable, len(paths))}. At least {MIN_CROPS} person crops are needed. "
            "Copy them again, or use --calibration default, which needs none."
        )
    note = f"{len(paths)} images in folder '{folder.name}', shuffle seed {SEED}"
    if unreadable:
        _log.warning("calibration: %s", left_out(unreadable, len(paths)))
        note += f"; {len(unreadable)} unreadable ones left out"
    return _set(calibration, held_out, "crops", note)


def _readable(paths: list[Path], unreadable: list[Path], *, skip_bad: bool) -> Iterator[Image]:
    """Yield images in order; with ``skip_bad`` append the paths of those that cannot be read to ``unreadable``."""
    try:
        for path, image in read_images(paths, skip_bad=skip_bad):
            if image is None:
                unreadable.append(path)
            else:
                yield image
    except FrameError as error:
        raise CalibrationError(f"{error} It is in the calibration folder: remove or replace it.") from error


def _resized(images: Iterator[Image], count: int, size: Size) -> Image:
    """Resize the next images: as many as there are, at most ``count``."""
    crops = np.empty((count, *size, 3), np.uint8)
    taken = 0
    for image in itertools.islice(images, count):
        resize_into(image, crops[taken])
        taken += 1
    return crops[:taken]


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


def distill(
    checkpoint: Checkpoint,
    count: int,
    *,
    size: Size,
    seed: int = 0,
    steps: int = STEPS,
    on_step: Callable[[], object] = lambda: None,
) -> npt.NDArray[np.uint8]:
    """Make inputs that excite the network as its training data did.

    Args:
        checkpoint: Weights with their batch-norm statistics.
        count: How many; made in batches of at most 32.
        size: Height and width, pixels.
        seed: Other seeds give other inputs.
        steps: Optimisation steps for each batch.
        on_step: Called after each step: ``steps`` × the number of batches times.

    Returns:
        count×H×W×3 uint8, BGR.
    """
    network = checkpoint.network().requires_grad_(False)
    mean = torch.tensor(checkpoint.info.mean).view(1, 3, 1, 1)
    std = torch.tensor(checkpoint.info.std).view(1, 3, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for batch in _batches(count):
        inputs = _optimise(
            network, _smooth_noise(batch, size, generator), -mean / std, (1 - mean) / std, steps, on_step
        )
        batches.append(((inputs * std + mean) * 255).round().clamp(0, 255).to(torch.uint8))
    rgb = torch.cat(batches).permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(rgb[..., ::-1])


def distill_steps(count: int) -> int:
    """Count the optimisation steps that :func:`distill` takes for ``count`` inputs by default."""
    return STEPS * len(_batches(count))


def _batches(count: int) -> list[int]:
    whole, rest = divmod(count, BATCH)
    return [BATCH] * whole + ([rest] if rest else [])


def _smooth_noise(count: int, size: Size, generator: torch.Generator) -> Tensor:
    """Make noise of several scales, the coarse ones strongest."""
    noise = torch.zeros(count, 3, *size)
    for divisor in (32, 16, 8, 4):
        coarse = torch.randn(count, 3, *(max(2, side // divisor) for side in size), generator=generator)
        noise += nn.functional.interpolate(coarse, size, mode="bicubic") * divisor / 32
    return noise


def _optimise(
    network: nn.Module, start: Tensor, low: Tensor, high: Tensor, steps: int, on_step: Callable[[], object]
) -> Tensor:
    inputs = start.clamp(low, high).requires_grad_()
    optimizer = torch.optim.Adam([inputs], lr=LEARNING_RATE)
    losses: list[Tensor] = []

    def compare(layer: nn.Module, received: tuple[Tensor, ...]) -> None:
        losses.append(_statistics_distance(layer, received[0]))

    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    handles = [layer.register_forward_pre_hook(compare) for layer in norms]
    try:
        for _ in range(steps):
            losses.clear()
            network(inputs)
            loss = torch.stack(losses).sum() + SMOOTHNESS * _total_variation(inputs)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                inputs.clamp_(low, high)
            on_step()
    finally:
        for handle in handles:
            handle.remove()
    return inputs.detach()


def _statistics_distance(layer: nn.Module, x: Tensor) -> Tensor:
    stored_mean, stored_variance = layer.running_mean, layer.running_var
    assert isinstance(stored_mean, Tensor) and isinstance(stored_variance, Tensor)
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    epsilon = 1e-5
    mean_error = (mean - stored_mean) ** 2 / (stored_variance + epsilon)
    spread_error = (torch.sqrt((variance + epsilon) / (stored_variance + epsilon)) - 1) ** 2
    return mean_error.mean() + spread_error.mean()


def _total_variation(images: Tensor) -> Tensor:
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()
