"""Preparation of frames for a detector's input, and the way back from its boxes to the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from reid_edge.camera.detectors.model.network import Network
from reid_edge.camera.detectors.model.settings import ModelSettings, Output
from reid_edge.camera.frames import Boxes
from reid_edge.errors import DetectorError
from reid_edge.types import Image, Size

#: Channels of a picture.
_CHANNELS = 3


@dataclass(frozen=True)
class Usual:
    """Conventions of detectors of one kind, used where the settings give no value."""

    color: Literal["BGR", "RGB"]
    resize: Literal["stretch", "letterbox"]
    scale: float


USUAL: dict[Output, Usual] = {
    "ssd": Usual(color="BGR", resize="stretch", scale=1.0),
    "boxes": Usual(color="BGR", resize="stretch", scale=1.0),
    "yolo": Usual(color="RGB", resize="letterbox", scale=1 / 255),
    "fastestdet": Usual(color="BGR", resize="stretch", scale=1 / 255),
}


@dataclass(frozen=True)
class InputForm:
    """Form of a detector's input.

    Attributes:
        size: Height and width, pixels.
        nhwc: Channels last.
    """

    size: Size
    nhwc: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of a batch of one."""
        height, width = self.size
        return (1, height, width, _CHANNELS) if self.nhwc else (1, _CHANNELS, height, width)


def input_form(settings: ModelSettings, network: Network) -> InputForm:
    """Decide the form of the input, by the settings or else by the file.

    Raises:
        DetectorError: Settings and file contradict each other, neither gives the size, or the file takes several
            pictures at once.
    """
    shape = network.input_shape
    nhwc = settings.layout == "NHWC" or (settings.layout is None and shape[3] == _CHANNELS != shape[1])
    batch, channels, height, width = (shape[index] for index in ((0, 3, 1, 2) if nhwc else range(4)))
    if channels not in (_CHANNELS, None):
        raise DetectorError(
            f"{settings.path} takes {shape}; as {'NHWC' if nhwc else 'NCHW'} that is not a colour picture. "
            "Correct 'layout', or use a detector for colour pictures."
        )
    if batch not in (1, None):
        raise DetectorError(
            f"{settings.path} takes {batch} pictures at once (a fixed batch, {shape}), and a camera gives one at a "
            "time. Export it again with a batch of 1, or with an open (dynamic) one."
        )
    said = network.says.size or (0, 0)
    wanted = settings.size or (height or said[0], width or said[1])
    if 0 in wanted:
        raise DetectorError(
            f"{settings.path} leaves the size of its input open. Give height and width of the pictures that it was "
            "trained for, e.g. --set 'detector.size=[640, 640]'."
        )
    if (height or wanted[0], width or wanted[1]) != wanted:
        raise DetectorError(
            f"{settings.path} takes {height}×{width}, size says {wanted[0]}×{wanted[1]}. Leave size out."
        )
    return InputForm(wanted, nhwc)


def preparation_of(settings: ModelSettings, form: InputForm, output: Output, dtype: np.dtype[Any]) -> Preparation:
    """Decide how frames are prepared: by the settings, else by the convention of the kind of output."""
    usual = USUAL[output]
    return Preparation(
        size=form.size,
        letterbox=(settings.resize or usual.resize) == "letterbox",
        rgb=(settings.color or usual.color) == "RGB",
        mean=settings.mean,
        scale=usual.scale if settings.scale is None else settings.scale,
        pad=settings.pad,
        nhwc=form.nhwc,
        dtype=dtype,
    )


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Preparation of frames for a detector.

    Attributes:
        size: Height and width, pixels.
        letterbox: Keep the aspect ratio, with bars at both sides; otherwise stretch.
        rgb: Swap the channels to RGB.
        mean: Subtracted from pixels 0–255, in the input's channel order.
        scale: Factor for the difference.
        pad: Value of the bars.
        nhwc: Channels last.
        dtype: Type of the input.
    """

    size: Size
    letterbox: bool
    rgb: bool
    mean: tuple[float, float, float]
    scale: float
    pad: int
    nhwc: bool
    dtype: np.dtype[Any]

    def __call__(self, image: Image) -> tuple[npt.NDArray[Any], Placement]:
        """Prepare a frame, H×W×3 uint8 BGR: the input, 1×3×H×W or 1×H×W×3, and the place of the frame in it."""
        resized, placement = self._letterboxed(image) if self.letterbox else self._stretched(image)
        if self.rgb:
            resized = np.asarray(cv2.cvtColor(resized, cv2.COLOR_BGR2RGB), np.uint8)
        return self._batch(resized), placement

    def _batch(self, pixels: Image) -> npt.NDArray[Any]:
        if self.nhwc:
            return self._values(pixels, np.asarray(self.mean, np.float32))[None]
        batch = np.empty((1, 3, *self.size), self.dtype)
        for channel, mean in enumerate(self.mean):
            batch[0, channel] = self._values(pixels[..., channel], mean)
        return batch

    def _values(self, pixels: Image, mean: float | npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        if self.dtype == np.uint8:
            return pixels
        values = pixels.astype(np.float32)
        if np.any(mean):
            values -= mean
        if self.scale != 1:
            values *= np.float32(self.scale)
        return values.astype(self.dtype, copy=False)

    def _stretched(self, image: Image) -> tuple[Image, Placement]:
        height, width = self.size
        scale = width / image.shape[1], height / image.shape[0]
        return _resized(image, width, height), Placement(scale, (0.0, 0.0))

    def _letterboxed(self, image: Image) -> tuple[Image, Placement]:
        height, width = self.size
        factor = min(height / image.shape[0], width / image.shape[1])
        inner_height, inner_width = max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor))
        top, left = (height - inner_height) // 2, (width - inner_width) // 2
        boxed = np.full((height, width, 3), self.pad, np.uint8)
        boxed[top : top + inner_height, left : left + inner_width] = _resized(image, inner_width, inner_height)
        scale = inner_width / image.shape[1], inner_height / image.shape[0]
        return boxed, Placement(scale, (float(left), float(top)))


@dataclass(frozen=True)
class Placement:
    """Place of a frame in the input: pixel × scale + offset, for x and y."""

    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float]

    def to_frame(self, boxes: Boxes) -> Boxes:
        """Convert boxes (N×4) from pixels of the input to pixels of the frame."""
        scale, offset = (np.array(pair * 2, np.float32) for pair in (self.scale_xy, self.offset_xy))
        return np.asarray((boxes - offset) / scale, np.float32)


def _resized(image: Image, width: int, height: int) -> Image:
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
