"""Run a detector from a file: prepare its input, compute, decode its output."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import msgspec
import numpy as np
import numpy.typing as npt

from reid_edge.camera.detectors.model import heads
from reid_edge.camera.detectors.model.network import Network, Outputs, load_network
from reid_edge.camera.frames import Boxes, Detections, Frame
from reid_edge.errors import DetectorError
from reid_edge.types import Image, PerChannel, Size

Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Threads = Annotated[int, msgspec.Meta(ge=1, le=512)]
Head = Callable[[Outputs], Detections]


class ModelSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="model"
):
    """A detector's file, ONNX or OpenVINO IR.

    For a value of None the file decides (``size``), or the kind of ``output`` (docs/detectors.md).

    Attributes:
        path: ``….onnx``, or ``….xml`` with its ``….bin`` beside it.
        sha256: sha256 of the file, or of ``….xml`` and ``….bin`` one after the other; another file is refused. None
            takes any.
        output: Kind of the output: ``ssd`` (DetectionOutput), ``yolo`` or ``fastestdet``.
        form: Which YOLO: ``v5`` (with objectness), ``v8`` (without), ``end2end`` (after NMS); ``auto`` decides by
            the output's shape.
        person: Index of the class person.
        min_score: Lowest score of a box that goes to the filter.
        engine: ``openvino`` or ``onnxruntime``; ``auto`` takes OpenVINO for IR, else ONNX Runtime where installed.
        threads: CPU threads; None leaves the choice to the engine.
        device: OpenVINO's name of the device.
        size: Height and width of the input, pixels.
        layout: Order of the input's axes.
        color: Channel order of the input.
        resize: ``stretch``, or ``letterbox``: aspect ratio kept, bars at both sides.
        mean: Subtracted from pixels 0–255, in the input's channel order.
        scale: Factor for the difference.
        pad: Value of the bars, 0–255.
    """

    path: str
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    output: Literal["ssd", "yolo", "fastestdet"]
    form: Literal["auto", "v5", "v8", "end2end"] = "auto"
    person: Annotated[int, msgspec.Meta(ge=0)] | None = None
    min_score: Fraction = 0.1
    engine: Literal["auto", "openvino", "onnxruntime"] = "auto"
    threads: Threads | None = None
    device: str = "CPU"
    size: tuple[Count, Count] | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    color: Literal["BGR", "RGB"] | None = None
    resize: Literal["stretch", "letterbox"] | None = None
    mean: PerChannel = (0.0, 0.0, 0.0)
    scale: float | None = None
    pad: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114


@dataclass(frozen=True)
class Usual:
    """Conventions of detectors of one kind, used where the settings give no value."""

    person: int
    color: Literal["BGR", "RGB"]
    resize: Literal["stretch", "letterbox"]
    scale: float


USUAL = {
    "ssd": Usual(person=1, color="BGR", resize="stretch", scale=1.0),
    "yolo": Usual(person=0, color="RGB", resize="letterbox", scale=1 / 255),
    "fastestdet": Usual(person=0, color="BGR", resize="stretch", scale=1 / 255),
}


class ModelDetector:
    """Runs a detector's file on each frame.

    Args:
        settings: Which file, its input and its output.

    Raises:
        DetectorError: The file does not exist, or its input or output is not as described.
        MissingExtraError: The engine's package is not installed.
    """

    def __init__(self, settings: ModelSettings) -> None:
        path = Path(settings.path).expanduser()
        self._not_a_number_since_s: float | None = None
        self._network = load_network(path, settings.engine, settings.threads, settings.device, settings.sha256)
        self._prepare = preparation_of(settings, self._network)
        self._head = self._choose_head(settings)
        form = f" {self._head.keywords['form']}" if settings.output == "yolo" else ""
        self.description = f"{path.name} ({settings.output}{form}) on {self._network.description}"

    def __call__(self, frame: Frame) -> Detections:
        """See :class:`~reid_edge.camera.detectors.Detector`."""
        batch, placement = self._prepare(frame.image)
        outputs = self._network.run(batch)
        if not any(np.isnan(output).any() for output in outputs):
            self._not_a_number_since_s = None
        elif self._not_a_number_since_s is None:
            self._not_a_number_since_s = time.monotonic()
        found = self._head(outputs)
        return Detections(placement.to_frame(found.boxes), found.scores)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def trouble(self) -> str:
        """See :func:`~reid_edge.camera.detectors.trouble_of`."""
        since_s = self._not_a_number_since_s
        if since_s is None:
            return ""
        return f"outputs of {self.description} have not been numbers (NaN) for {time.monotonic() - since_s:.0f} s"

    def _choose_head(self, settings: ModelSettings) -> partial[Detections]:
        """Choose the decoder and try it on a black frame, so that a wrong description is an error at the start."""
        size = self._prepare.size
        batch, _placement = self._prepare(np.zeros((*size, 3), np.uint8))
        outputs = self._network.run(batch)
        person = USUAL[settings.output].person if settings.person is None else settings.person
        if settings.output == "yolo":
            form = heads.yolo_form(outputs[0].shape) if settings.form == "auto" else settings.form
            head = partial(heads.yolo, form=form, person=person, min_score=settings.min_score)
        else:
            decode = heads.ssd if settings.output == "ssd" else heads.fastestdet
            head = partial(decode, size=size, person=person, min_score=settings.min_score)
        head(outputs)
        return head


def preparation_of(settings: ModelSettings, network: Network) -> Preparation:
    """Decide how frames are prepared: by the settings, else by the file, else by convention.

    Raises:
        DetectorError: Settings and file contradict each other, or neither gives the size.
    """
    usual = USUAL[settings.output]
    return Preparation(
        size=_size(settings, network),
        letterbox=(settings.resize or usual.resize) == "letterbox",
        rgb=(settings.color or usual.color) == "RGB",
        mean=settings.mean,
        scale=usual.scale if settings.scale is None else settings.scale,
        pad=settings.pad,
        nhwc=settings.layout == "NHWC",
        dtype=network.input_dtype,
    )


def _size(settings: ModelSettings, network: Network) -> Size:
    shape = network.input_shape
    batch, channels, height, width = (
        shape[index] for index in ((0, 3, 1, 2) if settings.layout == "NHWC" else range(4))
    )
    if batch not in (1, None) or channels not in (3, None):
        raise DetectorError(
            f"{settings.path} takes {shape}; as {settings.layout} that is no single colour picture. Correct 'layout'."
        )
    wanted = settings.size or (height or 0, width or 0)
    if 0 in wanted:
        raise DetectorError(f"{settings.path} leaves the size of its input open: set size = [height, width].")
    if (height or wanted[0], width or wanted[1]) != wanted:
        raise DetectorError(
            f"{settings.path} takes {height}×{width}, size says {wanted[0]}×{wanted[1]}. Leave size out."
        )
    return wanted


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
