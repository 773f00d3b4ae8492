"""One file per kind of detector; this one opens them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from reid_edge.camera.detectors.function import CallableSettings, FunctionDetector, find_function
from reid_edge.camera.detectors.jsonlines import JsonLinesDetector, JsonLinesSettings
from reid_edge.camera.detectors.model import ModelDetector, ModelSettings
from reid_edge.camera.detectors.motchallenge import MotChallengeDetector, MotChallengeSettings
from reid_edge.camera.detectors.motion import MotionDetector, MotionSettings
from reid_edge.camera.frames import Detections, Frame

__all__ = [
    "CallableSettings",
    "Detector",
    "DetectorSettings",
    "JsonLinesSettings",
    "ModelSettings",
    "MotChallengeSettings",
    "MotionSettings",
    "open_detector",
]


DetectorSettings = MotionSettings | MotChallengeSettings | JsonLinesSettings | CallableSettings | ModelSettings
"""The section ``[detector]`` of a settings file, told apart by its ``kind``."""


class Detector(Protocol):
    """Finds people in frames.

    Attributes:
        description: What it is, e.g. for a log.
    """

    description: str

    def __call__(self, frame: Frame) -> Detections:
        """Boxes of people in a frame; frames come in order.

        Raises:
            DetectorError: It cannot go on.
        """
        ...

    def close(self) -> None:
        """Let go of files, sockets and threads."""
        ...


def open_detector(settings: DetectorSettings | Callable[[Frame], Any]) -> Detector:
    """Make a detector ready: files are read, models loaded, sockets opened.

    Args:
        settings: A section of a settings file, or a function (see :class:`CallableSettings`).

    Raises:
        DetectorError: What the settings describe is not there, or is something else.
        MissingExtraError: The engine's package is not installed.
    """
    match settings:
        case MotionSettings():
            return MotionDetector(settings)
        case MotChallengeSettings():
            return MotChallengeDetector(settings)
        case JsonLinesSettings():
            return JsonLinesDetector(settings)
        case ModelSettings():
            return ModelDetector(settings)
        case CallableSettings():
            return FunctionDetector(find_function(settings.function), settings.function)
        case function:
            return FunctionDetector(function, getattr(function, "__qualname__", type(function).__qualname__))
