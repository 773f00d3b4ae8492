"""One file per kind of detector; this one opens them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reid_edge.camera.detectors.base import Detector
from reid_edge.camera.detectors.function import FunctionDetector, find_function
from reid_edge.camera.detectors.jsonlines import JsonLinesDetector
from reid_edge.camera.detectors.model import ModelDetector
from reid_edge.camera.detectors.motchallenge import MotChallengeDetector
from reid_edge.camera.detectors.motion import MotionDetector
from reid_edge.camera.detectors.settings import (
    CallableSettings,
    DetectorSettings,
    JsonLinesSettings,
    ModelSettings,
    MotChallengeSettings,
    MotionSettings,
)
from reid_edge.camera.frames import Frame

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
