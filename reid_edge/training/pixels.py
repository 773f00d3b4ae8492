"""Pixels of training images: all of them in memory on the device, or decoded batch by batch where they do not fit."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reid_edge.crops import resize_into
from reid_edge.errors import DatasetError, FrameError
from reid_edge.images import read_image
from reid_edge.system.limits import usable_cpus
from reid_edge.types import PerChannel, Size
from reid_edge.wording import counted

#: Number of images that a task of the thread pool has decoded, and messages on those that cannot be read.
_Done: TypeAlias = "tuple[int, list[str]]"
Images: TypeAlias = "Sequence[Path] | npt.NDArray[np.uint8]"

#: Images that one task of the thread pool decodes, and images in a block of the statistics.
_CHUNK = 64
#: Batches that are decoded ahead.
_AHEAD = 4
#: Unreadable files that an error names.
_NAMED = 20
#: Part of a GPU's free memory that images may take: the rest is the network's.
_GPU_SHARE = 0.5


class PixelSource(Protocol):
    """Images, resized by the camera's rule (``reid_edge.crops.resize_into``)."""

    @property
    def size(self) -> Size:
        """Height and width."""

    def __len__(self) -> int:
        """Images."""

    def batch(self, indices: Tensor) -> Tensor:
        """Return images by number: N×3×H×W uint8, RGB, on the device.

        Args:
            indices: N int64, on the CPU.

        Raises:
            DatasetError: Files that cannot be decoded (only those read batch by batch).
        """

    def prefetch(self, batches: Iterable[Tensor]) -> None:
        """Announce the next batches, in order, and start to decode; replaces the previous announcement."""


def open_pixels(
    images: Images,
    size: Size,
    device: torch.device,
    *,
    memory_bytes: int,
    on_image: Callable[[int], object] = lambda _count: None,
) -> PixelSource:
    """Open images for training or evaluation.

    Args:
        images: Files, or N×h×w×3 uint8 BGR.
        size: Height and width that they are resized to.
        device: Device of the batches.
        memory_bytes: Up to this size all images are decoded now and held on the device (in the computer's memory if
            they would take more than half of a GPU's free memory); above it files are checked now and decoded later.
        on_image: Called with the number of images done since the last call.

    Raises:
        DatasetError: There is no image, the array is of another kind, or files cannot be read; each one is listed.
    """
    if isinstance(images, np.ndarray) and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3):
        raise DatasetError(f"expected N×H×W×3 uint8 BGR images, got shape {images.shape} {images.dtype}.")
    if not len(images):
        raise DatasetError("no images: expected at least one.")
    if len(images) * 3 * size[0] * size[1] <= memory_bytes:
        return MemoryPixels(_decode_all(images, size, on_image), device)
    if not isinstance(images, np.ndarray):
        _check_files(images, on_image)
    return StreamedPixels(images, size, device)


class MemoryPixels:
    """All images as one tensor.

    Args:
        pixels: N×3×H×W uint8, RGB.
        device: Device of the batches.
    """

    def __init__(self, pixels: Tensor, device: torch.device) -> None:
        self._device = device
        self._pixels = pixels.to(device) if _has_room(device, pixels.numel()) else pixels

    @property
    def size(self) -> Size:
        """Height and width."""
        return self._pixels.shape[2], self._pixels.shape[3]

    def __len__(self) -> int:
        return len(self._pixels)

    def batch(self, indices: Tensor) -> Tensor:
        """See ``PixelSource``."""
        # Not blocking: the host goes on while the device still does the step before.
        chosen = indices.to(self._pixels.device, non_blocking=True)
        return self._pixels.index_select(0, chosen).to(self._device, non_blocking=True)

    def prefetch(self, batches: Iterable[Tensor]) -> None:
        """Do nothing: all images are in memory."""


class StreamedPixels:
    """Images decoded when needed, by all cores; those announced by ``prefetch`` a few batches ahead.

    Args:
        images: As of ``open_pixels``.
        size: Height and width.
        device: Device of the batches.
    """

    def __init__(self, images: Images, size: Size, device: torch.device) -> None:
        self._images, self._size, self._device = images, size, device
        self._pool = ThreadPoolExecutor(usable_cpus(), "pixels")
        self._announced: Iterator[Tensor] = iter(())
        self._started: deque[_Batch] = deque()

    @property
    def size(self) -> Size:
        """Height and width."""
        return self._size

    def __len__(self) -> int:
        return len(self._images)

    def prefetch(self, batches: Iterable[Tensor]) -> None:
        """See ``PixelSource``."""
        for batch in self._started:
            batch.cancel()
        self._started.clear()
        self._announced = iter(batches)
        self._decode_ahead()

    def batch(self, indices: Tensor) -> Tensor:
        """See ``PixelSource``.  A batch that was not announced as the next one is decoded now."""
        if self._started and torch.equal(self._started[0].indices, indices):
            batch = self._started.popleft()
            self._decode_ahead()
        else:
            batch = self._start(indices)
        return batch.pixels().to(self._device, non_blocking=True)

    def _decode_ahead(self) -> None:
        while len(self._started) < _AHEAD and (indices := next(self._announced, None)) is not None:
            self._started.append(self._start(indices))

    def _start(self, indices: Tensor) -> _Batch:
        images = [self._images[index] for index in indices.tolist()]
        # Pinned memory is copied to a GPU while the host goes on.
        out = torch.empty((len(images), 3, *self._size), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        parts = _submit(self._pool, images, out, -(-len(images) // usable_cpus()))
        return _Batch(indices, out, parts)


class _Batch:
    """A batch that threads are decoding."""

    def __init__(self, indices: Tensor, out: Tensor, parts: list[Future[_Done]]) -> None:
        self.indices, self._out, self._parts = indices, out, parts

    def cancel(self) -> None:
        for part in self._parts:
            part.cancel()

    def pixels(self) -> Tensor:
        _refuse([problem for part in self._parts for problem in part.result()[1]])
        return self._out


def pixel_statistics(source: PixelSource, *, most: int = 20_000) -> tuple[PerChannel, PerChannel]:
    """Mean and standard deviation over all pixels, RGB, full scale = 1.

    Args:
        source: Images.
        most: Of more images than this, as many, evenly spaced, stand for all.
    """
    count = min(len(source), most)
    chosen = torch.arange(count) * len(source) // count
    sums = torch.zeros(2, 3, dtype=torch.float64)
    blocks = torch.split(chosen, _CHUNK)
    source.prefetch(blocks)
    for block in blocks:
        pixels = source.batch(block).double() / 255
        sums += torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))]).cpu()
    mean, square = sums / (count * source.size[0] * source.size[1])
    return _triple(mean), _triple((square - mean.square()).clamp(min=0).sqrt())


def _triple(values: Tensor) -> PerChannel:
    red, green, blue = values.tolist()
    return red, green, blue


def _decode_all(images: Images, size: Size, on_image: Callable[[int], object]) -> Tensor:
    out = torch.empty((len(images), 3, *size), dtype=torch.uint8)
    problems: list[str] = []
    with _workers() as pool:
        for part in _submit(pool, images, out, _CHUNK):
            count, unreadable = part.result()
            problems += unreadable
            on_image(count)
    _refuse(problems)
    return out


def _submit(pool: ThreadPoolExecutor, images: Images, out: Tensor, share: int) -> list[Future[_Done]]:
    starts = range(0, len(images), share)
    return [pool.submit(_decode, images[start : start + share], out[start : start + share].numpy()) for start in starts]


def _decode(images: Images, out: npt.NDArray[np.uint8]) -> _Done:
    """Write images into ``out``, N×3×H×W RGB."""
    resized = np.empty((*out.shape[2:], 3), np.uint8)
    problems = []
    for image, planes in zip(images, out, strict=True):
        try:
            resize_into(read_image(image) if isinstance(image, Path) else image, resized)
        except FrameError as error:
            problems.append(str(error))
            continue
        for channel in range(3):
            cv2.extractChannel(resized, 2 - channel, dst=planes[channel])
    return len(images), problems


def _check_files(paths: Sequence[Path], on_image: Callable[[int], object]) -> None:
    """Check the first bytes of every file: decoding millions before training starts would take too long."""
    problems = []
    with _workers() as pool:
        for path, known in zip(paths, pool.map(_has_known_start, paths), strict=True):
            if not known:
                problems.append(f"{path} is not a readable image.")
            on_image(1)
    _refuse(problems)


def _has_known_start(path: Path) -> bool:
    return path.is_file() and cv2.haveImageReader(str(path))


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """A thread for each usable CPU; leaving early (Ctrl-C) drops what has not begun."""
    pool = ThreadPoolExecutor(usable_cpus(), "pixels")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        rest = f"\n… and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise DatasetError(
            f"{counted(len(problems), 'image file')} cannot be used; copy again, or use --skip-bad:\n"
            + "\n".join(problems[:_NAMED])
            + rest
        )


def _has_room(device: torch.device, size: int) -> bool:
    return device.type != "cuda" or size <= _GPU_SHARE * torch.cuda.mem_get_info(device)[0]
