"""Course of the input size over a run, and the pixels and augmentation of each of its stages."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import torch

from reid_edge.training.augment import Augmenter, source_size
from reid_edge.training.pixels import Images, PixelSource, open_pixels
from reid_edge.training.settings import TrainSettings
from reid_edge.types import PerChannel, Size

#: Opens images at a size.
OpenPixels = Callable[[Size], PixelSource]


def size_of_epoch(settings: TrainSettings, epoch: int) -> Size:
    """Return the input's height and width in an epoch, counted from 0."""
    schedule = settings.schedule
    if not schedule.sizes:
        return settings.model.size
    return schedule.sizes[bisect.bisect_right(schedule.size_milestones, epoch)]


def steps_at_size(settings: TrainSettings, step: int, steps_per_epoch: int) -> int:
    """Return the number of steps before this one that had the same input size as it."""
    milestones = settings.schedule.size_milestones
    passed = bisect.bisect_right(milestones, step // steps_per_epoch)
    return step - (milestones[passed - 1] * steps_per_epoch if passed else 0)


def pixel_opener(
    images: Images, settings: TrainSettings, device: torch.device, on_image: Callable[[int], object]
) -> OpenPixels:
    """Return the function that opens images for an input size, as the augmentation needs them.

    Args:
        images: Files, or N×h×w×3 uint8 BGR.
        settings: The run's settings.
        device: Device of the batches.
        on_image: Called with the number of images done since the last call, at the first opening only.
    """
    memory_bytes, told = int(settings.data.memory_gb * 1e9), [on_image]

    def opened(size: Size) -> PixelSource:
        advance = told.pop() if told else lambda _count: None
        return open_pixels(
            images, source_size(settings.augment, size), device, memory_bytes=memory_bytes, on_image=advance
        )

    return opened


class TrainingInputs:
    """Pixels of the training images and their augmentation, at the size of one epoch after another.

    Args:
        settings: The run's settings.
        open_at: Opens the training images at a size (:func:`pixel_opener`).
        device: Device of the batches.
        epoch: Epoch to begin with, from 0.

    Attributes:
        size: Height and width of the input.
        source: Pixels of the training images.

    Raises:
        DatasetError: Images cannot be read.
    """

    def __init__(self, settings: TrainSettings, open_at: OpenPixels, device: torch.device, epoch: int) -> None:
        self._settings, self._open, self._device = settings, open_at, device
        self.size = size_of_epoch(settings, epoch)
        self.source = open_at(self.size)

    def enter(self, epoch: int) -> bool:
        """Open the images at an epoch's size; return True if it differs from the one before."""
        size = size_of_epoch(self._settings, epoch)
        if size == self.size:
            return False
        self.size = size
        del self.source  # two sizes at once need not fit into memory
        self.source = self._open(size)
        return True

    def augmenter(self, mean: PerChannel, std: PerChannel) -> Augmenter:
        """Make the augmentation for the present size."""
        return Augmenter(self._settings.augment, self.size, mean, std, self._device)
