"""Random changes of training images, for a whole batch at once, on the device that trains.

The random numbers are an input: an augmented batch is a pure function, which can be repeated, resumed and captured in
a CUDA graph.  Nothing here waits for a value of the device.

Geometry is ours, since moves are whole pixels or one fixed enlargement and one sampling does them all; colour is
kornia's (``benchmarks/augmentation.py`` compares).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from reid_edge.errors import MissingExtraError
from reid_edge.training.patches import ERASE_COLUMNS, PATCH_COLUMNS, erase, paste, uniform_integers
from reid_edge.training.settings import AugmentSettings
from reid_edge.types import PerChannel, Size

#: Of random translation crop (torchreid's Random2DTranslation).
ENLARGEMENT = 9 / 8
#: Of the crop for ImageNet: side of the image by side of the crop.
CROP_SOURCE = 256 / 224


def normalise(pixels: Tensor, mean: PerChannel, std: PerChannel) -> Tensor:
    """Normalise pixels for the network; the same numbers as ``reid_edge.crops.normalised``.

    Args:
        pixels: N×3×H×W uint8, RGB.
        mean: RGB, full scale = 1.
        std: RGB, full scale = 1.

    Returns:
        N×3×H×W float32 on the same device, (pixel / 255 − mean) / std.
    """
    scale, shift = _scale_and_shift(mean, std, pixels.device)
    return pixels.float() * scale - shift


def _scale_and_shift(mean: PerChannel, std: PerChannel, device: torch.device) -> tuple[Tensor, Tensor]:
    scale = [1 / (255 * each) for each in std]
    shift = [middle / each for middle, each in zip(mean, std, strict=True)]
    planes = torch.tensor([scale, shift], dtype=torch.float32, device=device)[..., None, None]
    return planes[0], planes[1]


class Augmenter:
    """Random flip, crop, patch, colours and erasing of a batch, in this order, and the normalisation.

    Args:
        settings: Probabilities and sizes of the changes; a change that is 0 costs nothing.
        size: Height and width that the network takes.
        mean: RGB, full scale = 1.
        std: RGB, full scale = 1.
        device: Device of the batches.

    Attributes:
        columns: Number of uniform numbers that an image needs.
        needs_partner: True if random patch is on, which takes pixels of another training image.
        source_size: Height and width of the input pixels: ``size``, or larger if ``crop`` is on.

    Raises:
        MissingExtraError: Colours are to change, and kornia is not installed.
    """

    def __init__(
        self, settings: AugmentSettings, size: Size, mean: PerChannel, std: PerChannel, device: torch.device
    ) -> None:
        self._settings, self._size = settings, size
        self._scale, self._shift = _scale_and_shift(mean, std, device)
        self._parts = _columns(settings)
        self._jitter = _jitter(settings) if self._parts["colour"] else None
        self._moves = any(self._parts[each] for each in ("flip", "translate", "shift", "crop"))
        self.columns = sum(self._parts.values())
        self.needs_partner = settings.patch > 0
        self.source_size = source_size(settings, size)

    def __call__(self, pixels: Tensor, numbers: Tensor, partners: Tensor | None = None) -> Tensor:
        """Return the batch as the network takes it, N×3×H×W float32, RGB, normalised.

        Args:
            pixels: N×3×h×w uint8, RGB; h×w is ``source_size``.
            numbers: N×``columns`` float32, uniform on [0, 1), on the same device.
            partners: Another training image for each, like ``pixels``; needed if ``needs_partner``.

        Raises:
            ValueError: Partners are needed and not given.
        """
        if self.needs_partner and partners is None:
            raise ValueError("random patch needs partners: give the pixels of other images, like those of the batch.")
        drawn = dict(zip(self._parts, torch.split(numbers, list(self._parts.values()), 1), strict=True))
        images = self._moved(pixels, drawn) if self._moves else pixels.float()
        if partners is not None and self.needs_partner:
            images = paste(images, partners, drawn["patch"], self._settings.patch)
        if self._jitter is not None:
            images = self._jitter(images, drawn["colour"])
        images = images * self._scale - self._shift
        return erase(images, drawn["erase"], self._settings.erase) if self._settings.erase else images

    def _moved(self, pixels: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Flip, crop and shift in one sampling; N×3×H×W float32, 0 … 255."""
        y, y_seen = self._places(drawn, 0)
        x, x_seen = self._places(drawn, 1)
        height, width = pixels.shape[2:]
        # As grid_sample counts: −1 and 1 are the outer edges of the first and the last pixel.
        shape = len(pixels), *self._size
        across = ((2 * x + 1) / width - 1)[:, None, :].expand(shape)
        down = ((2 * y + 1) / height - 1)[:, :, None].expand(shape)
        grid = torch.stack([across, down], -1)
        # Without enlargement all places are whole pixels: nearest leaves them untouched, bilinear would round.
        mode = "bilinear" if self._settings.translate else "nearest"
        moved = functional.grid_sample(pixels.float(), grid, mode, "border", align_corners=False)
        return moved * (y_seen[:, None, :, None] & x_seen[:, None, None, :]) if self._settings.shift else moved

    def _places(self, drawn: dict[str, Tensor], axis: int) -> tuple[Tensor, Tensor]:
        """Return each output pixel's place in the source along rows (0) or columns (1), and True if it has one.

        Both are N×size.
        """
        settings, size = self._settings, self._size[axis]
        place = torch.arange(size, dtype=torch.float32, device=self._scale.device)
        place = place.expand(len(drawn["flip"]), size)
        if settings.shift:
            place = place + uniform_integers(drawn["shift"][:, axis, None], 2 * settings.shift) - settings.shift
        seen = (place >= 0) & (place <= size - 1)
        if settings.translate:
            enlarged = round(size * ENLARGEMENT)
            offset = uniform_integers(drawn["translate"][:, axis + 1, None], enlarged - size)
            crop = ((place + offset + 0.5) * (size / enlarged) - 0.5).clamp(0, size - 1)
            place = torch.where(drawn["translate"][:, :1] < settings.translate, crop, place)
        if settings.flip and axis == 1:
            place = torch.where(drawn["flip"] < settings.flip, size - 1 - place, place)
        if settings.crop:
            place = place + uniform_integers(drawn["crop"][:, axis, None], self.source_size[axis] - size)
        return place, seen


def source_size(settings: AugmentSettings, size: Size) -> Size:
    """Return height and width of the pixels that an input of ``size`` is made from."""
    ratio = CROP_SOURCE if settings.crop else 1.0
    return round(size[0] * ratio), round(size[1] * ratio)


def centre(pixels: Tensor, size: Size) -> Tensor:
    """Return the middle of N×3×h×w pixels, N×3×H×W, as a view."""
    top, left = ((has - wanted) // 2 for has, wanted in zip(pixels.shape[2:], size, strict=True))
    return pixels[:, :, top : top + size[0], left : left + size[1]]


def _columns(settings: AugmentSettings) -> dict[str, int]:
    """Count the uniform numbers of an image for each change; 0 for those that are off."""
    colours = (settings.brightness, settings.contrast, settings.saturation, settings.hue)
    return {
        "flip": 1 if settings.flip else 0,
        "translate": 3 if settings.translate else 0,
        "shift": 2 if settings.shift else 0,
        "crop": 2 if settings.crop else 0,
        "patch": PATCH_COLUMNS if settings.patch else 0,
        "colour": 4 if any(colours) else 0,
        "erase": ERASE_COLUMNS if settings.erase else 0,
    }


def _jitter(settings: AugmentSettings) -> Callable[[Tensor, Tensor], Tensor]:
    """Make colour jitter as torchvision defines it, in the order of its arguments (torchvision's order is random).

    The function takes N×3×H×W of 0 … 255 and N×4 numbers, and returns N×3×H×W of 0 … 255.
    """
    try:
        from kornia import enhance
    except ImportError as error:
        raise MissingExtraError("kornia", "train", "colour jitter") from error
    factors = {
        enhance.adjust_brightness_accumulative: settings.brightness,
        enhance.adjust_contrast_with_mean_subtraction: settings.contrast,
        enhance.adjust_saturation_with_gray_subtraction: settings.saturation,
    }

    def jitter(images: Tensor, numbers: Tensor) -> Tensor:
        images = images / 255
        spread = 2 * numbers - 1
        for column, (change, limit) in enumerate(factors.items()):
            if limit:
                images = change(images, (1 + spread[:, column] * limit).clamp(min=0))
        if settings.hue:
            images = enhance.adjust_hue(images, spread[:, 3] * (2 * math.pi * settings.hue))
        return images * 255

    return jitter
