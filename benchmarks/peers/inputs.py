"""The contenders' input, the same in every process: a frame, boxes, and the same crops as ready batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.crops import crop_boxes, normalised, resize_into
from reid_edge.types import Image

Features = npt.NDArray[np.float32]
Batch = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.int64]

FRAME_SIZE = (1080, 1920)
INPUT_SIZE = (256, 128)
#: ImageNet's, as torchreid trains with; RGB.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_COLUMNS, _ROWS = 16, 2
MAX_CROPS = _COLUMNS * _ROWS
_SEED = 7


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A frame and its people.

    Attributes:
        frame: 1080×1920×3 uint8, BGR.
        boxes: N×4 whole pixels, x1 y1 x2 y2, so that no two ways of rounding differ.
    """

    frame: Image
    boxes: Boxes


def make_scene(crops: int, photographs: Path | None) -> Scene:
    """A frame with so many people, none overlapping, 150 to 450 pixels high.

    Args:
        crops: 1 to 32.
        photographs: Folder of person crops that are pasted into the boxes; None: people are drawn.

    Raises:
        ValueError: More people than the frame has room for.
        FileNotFoundError: No picture in the folder.
    """
    if not 1 <= crops <= MAX_CROPS:
        raise ValueError(f"expected 1 to {MAX_CROPS} crops, got {crops}.")
    draw = np.random.default_rng(_SEED)
    frame = _texture(draw, FRAME_SIZE, cell=60)
    person = _photographed(photographs) if photographs else _drawn
    boxes = _boxes(draw)[:crops]
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        frame[y1:y2, x1:x2] = person(index, (int(y2 - y1), int(x2 - x1)))
    return Scene(frame=frame, boxes=boxes)


def as_pixels(scene: Scene) -> Image:
    """The crops, resized as reid-edge does: N×256×128×3 uint8 BGR."""
    crops, _skipped = crop_boxes(scene.frame, scene.boxes)
    pixels = np.empty((len(crops), *INPUT_SIZE, 3), np.uint8)
    for crop, out in zip(crops, pixels, strict=True):
        resize_into(crop, out)
    return pixels


def as_tensor(scene: Scene) -> npt.NDArray[np.float32]:
    """The same crops, normalised: N×3×256×128 float32 RGB."""
    return normalised(as_pixels(scene), MEAN, STD)


def as_channels_last(scene: Scene) -> npt.NDArray[np.float32]:
    """The same as N×256×128×3."""
    return np.ascontiguousarray(as_tensor(scene).transpose(0, 2, 3, 1))


def _boxes(draw: np.random.Generator) -> Boxes:
    height, width = FRAME_SIZE[0] // _ROWS, FRAME_SIZE[1] // _COLUMNS
    slots = [(row * height, column * width) for row in range(_ROWS) for column in range(_COLUMNS)]
    draw.shuffle(slots)
    boxes = []
    for top, left in slots:
        tall = int(draw.integers(150, 451))
        wide = min(int(tall * draw.uniform(0.36, 0.42)), width)
        y, x = top + int(draw.integers(0, height - tall + 1)), left + int(draw.integers(0, width - wide + 1))
        boxes.append((x, y, x + wide, y + tall))
    return np.array(boxes, dtype=np.int64)


def _texture(draw: np.random.Generator, size: tuple[int, int], cell: int) -> Image:
    """Smooth patches with a little grain, as a camera gives."""
    coarse = draw.uniform(60, 190, (size[0] // cell + 2, size[1] // cell + 2, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + draw.normal(0, 4, (*size, 3)), 0, 255).astype(np.uint8)


def _drawn(index: int, size: tuple[int, int]) -> Image:
    """Head, torso and legs in colours of their own before a patchy background."""
    draw = np.random.default_rng((_SEED, index))
    height, width = size
    image = _texture(draw, size, cell=24)
    parts = (((0.10, 0.09), (0.5, 0.16)), ((0.34, 0.18), (0.5, 0.34)), ((0.76, 0.24), (0.5, 0.26)))
    for (y, half_height), (x, half_width) in parts:
        colour = tuple(int(value) for value in draw.integers(20, 235, 3))
        centre, axes = (int(x * width), int(y * height)), (int(half_width * width), int(half_height * height))
        cv2.ellipse(image, centre, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)
    grain = draw.normal(0, 4, image.shape)
    return np.clip(cv2.GaussianBlur(image, (5, 5), 0) + grain, 0, 255).astype(np.uint8)


def _photographed(folder: Path) -> Callable[[int, tuple[int, int]], Image]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no .jpg or .png; name a folder of person crops.")

    def read(index: int, size: tuple[int, int]) -> Image:
        file = files[index * len(files) // MAX_CROPS]
        image = cv2.imread(str(file))
        if image is None:
            raise FileNotFoundError(f"{file} is no picture that OpenCV reads.")
        return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]

    return read
