"""Random rectangles of a batch, pasted from other images or erased.

Everything is arithmetic on tensors of the device: no loop over images, no wait for a value, so that a CUDA graph can
capture it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reid_edge.types import Size

#: Sizes tried until one fits the image; the reference tries 100.  Each fits 7 of 10 upright images, 1 of 2 square ones,
#: so that 1 of 24,000 or 1 of 190 stays as it is that should have had a patch; of erasing, none in practice.
TRIES = 8


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Distribution of the rectangles' area and aspect.

    Attributes:
        area: Smallest and largest area, as parts of the image's; uniform between.
        aspect: Smallest and largest height / width; uniform between.
    """

    area: tuple[float, float]
    aspect: tuple[float, float]


#: torchreid's RandomPatch, which the paper's footnote 5 names.
PATCH_SHAPES = Shapes(area=(0.01, 0.5), aspect=(0.1, 10.0))
#: Zhong et al., Random Erasing Data Augmentation (arXiv 1708.04896), with torchreid's values.
ERASE_SHAPES = Shapes(area=(0.02, 0.4), aspect=(0.3, 1 / 0.3))

#: Most that a patch is turned, degrees, each way; whole degrees.
MAX_TURN = 10
#: Uniform numbers per image: on or off, tries of area and aspect, place.
ERASE_COLUMNS = 1 + 2 * TRIES + 2
#: Likewise, and place in the partner, flip, turn on or off, angle.
PATCH_COLUMNS = ERASE_COLUMNS + 5


@dataclass(frozen=True, kw_only=True)
class Rectangles:
    """One rectangle per image, whole pixels; each field N×1×1.

    Attributes:
        top: First row.
        left: First column.
        height: Rows.
        width: Columns.
        drawn: False: this image has none.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    drawn: Tensor

    def inside(self, rows: int, columns: int) -> Tensor:
        """N×1×H×W bool: the pixels of each rectangle."""
        y = torch.arange(rows, device=self.top.device)[:, None] - self.top
        x = torch.arange(columns, device=self.top.device) - self.left
        inside = (y >= 0) & (y < self.height) & (x >= 0) & (x < self.width)
        return (inside & self.drawn)[:, None]


def uniform_integers(numbers: Tensor, most: Tensor | int) -> Tensor:
    """Return integers 0 … ``most``, equally likely, as float32, from numbers that are uniform on [0, 1)."""
    # Where a product of float32 rounds up to the next whole number, it would be one too many.
    return torch.floor(numbers * (most + 1)).clamp(max=most)


def draw_rectangles(numbers: Tensor, probability: float, shapes: Shapes, rows: int, columns: int) -> Rectangles:
    """Draw a rectangle for each image as torchreid does: the first size that is smaller than the image both ways.

    Args:
        numbers: N×``ERASE_COLUMNS`` float32, uniform on [0, 1).
        probability: Probability that an image has a rectangle.
        shapes: Distribution of area and aspect.
        rows: Height of the image.
        columns: Width of the image.
    """
    chosen, areas, aspects, place = torch.split(numbers, [1, TRIES, TRIES, 2], 1)
    area = (shapes.area[0] + areas * (shapes.area[1] - shapes.area[0])) * (rows * columns)
    aspect = shapes.aspect[0] + aspects * (shapes.aspect[1] - shapes.aspect[0])
    height, width = torch.round(torch.sqrt(area * aspect)), torch.round(torch.sqrt(area / aspect))
    fits = (height < rows) & (width < columns)
    # The largest is the first that fits: argmax alone may return any of several ones.
    first = (fits * torch.arange(TRIES, 0, -1, device=numbers.device)).argmax(1, keepdim=True)
    height, width = height.gather(1, first), width.gather(1, first)
    drawn = (chosen < probability) & fits.gather(1, first)
    top = uniform_integers(place[:, :1], (rows - height).clamp(min=0))
    left = uniform_integers(place[:, 1:], (columns - width).clamp(min=0))
    top, left, height, width, drawn = (each[..., None] for each in (top, left, height, width, drawn))
    return Rectangles(top=top, left=left, height=height, width=width, drawn=drawn)


def erase(images: Tensor, numbers: Tensor, probability: float) -> Tensor:
    """Set a random rectangle of each image to 0, the mean colour of normalised images.

    Args:
        images: N×C×H×W float.
        numbers: N×``ERASE_COLUMNS``.
        probability: Probability that an image is changed.
    """
    rows, columns = images.shape[2:]
    rectangles = draw_rectangles(numbers, probability, ERASE_SHAPES, rows, columns)
    return images.masked_fill(rectangles.inside(rows, columns), 0.0)


def paste(images: Tensor, partners: Tensor, numbers: Tensor, probability: float) -> Tensor:
    """Paste a random rectangle of its partner at another place of each image, to imitate occlusion.

    As torchreid's RandomPatch: every second patch is mirrored, every second one turned about its middle by up to ±10
    whole degrees, nearest pixel, black where the turned patch leaves the rectangle's corners open.  There, patches come
    from a pool of images seen before; here, from the partner, so that a step depends on nothing but its own input.

    Args:
        images: N×C×H×W float, in units of ``partners``.
        partners: N×C×h×w uint8, at least H×W.
        numbers: N×``PATCH_COLUMNS``.
        probability: Probability that an image is changed.
    """
    rows, columns = images.shape[2:]
    boxes, extra = torch.split(numbers, [ERASE_COLUMNS, PATCH_COLUMNS - ERASE_COLUMNS], 1)
    rectangles = draw_rectangles(boxes, probability, PATCH_SHAPES, rows, columns)
    patch = _patch_pixels(rectangles, partners, extra[..., None, None].unbind(1), (rows, columns))
    return torch.where(rectangles.inside(rows, columns), patch, images)


def _patch_pixels(rectangles: Rectangles, partners: Tensor, numbers: tuple[Tensor, ...], size: Size) -> Tensor:
    """Return N×C×H×W: the patch's pixels inside each rectangle, arbitrary values elsewhere."""
    from_top, from_left, mirrored, turned, angle = numbers
    height, width = partners.shape[2:]
    y, x, on_patch = _turned(rectangles, torch.where(turned < 0.5, angle, 0.5), size)
    x = torch.where(mirrored < 0.5, rectangles.width - 1 - x, x)
    y = y + uniform_integers(from_top, (height - rectangles.height).clamp(min=0))
    x = x + uniform_integers(from_left, (width - rectangles.width).clamp(min=0))
    place = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long().flatten(1)[:, None]
    taken = partners.flatten(2).gather(2, place.expand(-1, partners.shape[1], -1))
    return taken.view(*partners.shape[:2], *size) * on_patch[:, None]


def _turned(rectangles: Rectangles, angle: Tensor, size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Return the patch's row and column that each pixel of the image shows, N×H×W, and True where the patch has it."""
    radians = (uniform_integers(angle, 2 * MAX_TURN) - MAX_TURN) * (math.pi / 180)
    sine, cosine = torch.sin(radians), torch.cos(radians)
    # From the rectangle's middle to the pixel's middle.
    down = torch.arange(size[0], device=angle.device)[:, None] + 0.5 - rectangles.top - rectangles.height / 2
    right = torch.arange(size[1], device=angle.device) + 0.5 - rectangles.left - rectangles.width / 2
    y = torch.floor(down * cosine + right * sine + rectangles.height / 2)
    x = torch.floor(right * cosine - down * sine + rectangles.width / 2)
    return y, x, (y >= 0) & (y < rectangles.height) & (x >= 0) & (x < rectangles.width)
