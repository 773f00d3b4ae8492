"""A detector from a file: its input prepared, run, its output decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from reid_edge.camera.detectors.model import heads
from reid_edge.camera.detectors.model.network import Network, Outputs, load_network
from reid_edge.camera.detectors.model.preparation import Preparation
from reid_edge.camera.detectors.settings import ModelSettings
from reid_edge.camera.frames import Detections, Frame
from reid_edge.errors import DetectorError

Head = Callable[[Outputs], Detections]


@dataclass(frozen=True)
class Usual:
    """How detectors of a kind are trained, unless the settings say otherwise."""

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
        settings: Which file, what it takes and what it gives.

    Raises:
        DetectorError: No such file, or it does not take or give what is described.
        MissingExtraError: The engine's package is not installed.
    """

    def __init__(self, settings: ModelSettings) -> None:
        path = Path(settings.path).expanduser()
        self._network = load_network(path, settings.engine, settings.threads, settings.device)
        self._prepare = preparation_of(settings, self._network)
        self._head = self._choose_head(settings)
        form = f" {self._head.keywords['form']}" if settings.output == "yolo" else ""
        self.description = f"{path.name} ({settings.output}{form}) on {self._network.description}"

    def __call__(self, frame: Frame) -> Detections:
        """See :class:`~reid_edge.camera.detectors.base.Detector`."""
        batch, placement = self._prepare(frame.image)
        found = self._head(self._network.run(batch))
        return Detections(placement.to_frame(found.boxes), found.scores)

    def close(self) -> None:
        """Nothing is held but memory."""

    def _choose_head(self, settings: ModelSettings) -> partial[Detections]:
        """The decoder, tried on a black frame so that a wrong description is told at the start."""
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
    """How the settings, the file, and custom, in this order, say that frames are prepared.

    Raises:
        DetectorError: Settings and file contradict each other, or neither tells the size.
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


def _size(settings: ModelSettings, network: Network) -> tuple[int, int]:
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
