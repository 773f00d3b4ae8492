"""One file per kind of detector; this one opens them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reid_edge.camera.detectors.base import Detector
from reid_edge.camera.detectors.config import (
    CallableConfig,
    DetectorConfig,
    JsonLinesConfig,
    ModelConfig,
    MotChallengeConfig,
    MotionConfig,
)
from reid_edge.camera.detectors.function import FunctionDetector, find_function
from reid_edge.camera.detectors.jsonlines import JsonLinesDetector
from reid_edge.camera.detectors.model import ModelDetector
from reid_edge.camera.detectors.motchallenge import MotChallengeDetector
from reid_edge.camera.detectors.motion import MotionDetector
from reid_edge.camera.records import Frame

__all__ = [
    "CallableConfig",
    "Detector",
    "DetectorConfig",
    "JsonLinesConfig",
    "ModelConfig",
    "MotChallengeConfig",
    "MotionConfig",
    "open_detector",
]


def open_detector(config: DetectorConfig | Callable[[Frame], Any]) -> Detector:
    """Make a detector ready: files are read, models loaded, sockets opened.

    Args:
        config: A section of a settings file, or a function (see :class:`CallableConfig`).

    Raises:
        DetectorError: What the settings describe is not there, or is something else.
        MissingExtraError: The engine's package is not installed.
    """
    match config:
        case MotionConfig():
            return MotionDetector(config)
        case MotChallengeConfig():
            return MotChallengeDetector(config)
        case JsonLinesConfig():
            return JsonLinesDetector(config)
        case ModelConfig():
            return ModelDetector(config)
        case CallableConfig():
            return FunctionDetector(find_function(config.function), config.function)
        case function:
            return FunctionDetector(function, getattr(function, "__qualname__", type(function).__qualname__))
