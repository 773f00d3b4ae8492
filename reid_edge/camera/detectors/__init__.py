"""Detectors of people: one file for each kind, with its settings; this file opens them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from reid_edge.camera.advised_scores import AdvisedScores
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
    "scores_of",
    "trouble_of",
]


DetectorSettings = MotionSettings | MotChallengeSettings | JsonLinesSettings | CallableSettings | ModelSettings
"""The table ``[detector]`` of a settings file; its ``kind`` says which."""


class Detector(Protocol):
    """Finds people in frames.

    A detector that can be alive and yet useless also has a method ``trouble()``: see :func:`trouble_of`.
    One for which other scores than the usual ones were measured also has ``scores``: see :func:`scores_of`.

    Attributes:
        description: Name of the detector, e.g. for a log.
    """

    description: str

    def __call__(self, frame: Frame) -> Detections:
        """Find the people in a frame; frames come in order.

        Raises:
            DetectorError: The detector failed and cannot go on.
        """
        ...

    def close(self) -> None:
        """Close files and sockets, end threads."""
        ...


def open_detector(settings: DetectorSettings | Callable[[Frame], Any]) -> Detector:
    """Make a detector ready: read its files, load its model, open its sockets.

    Args:
        settings: Settings of a detector, or a function (see :class:`CallableSettings`).

    Raises:
        DetectorError: The settings name something that does not exist or is of another kind.
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


def scores_of(detector: Detector) -> AdvisedScores:
    """Return the scores from which a detector's boxes are used, where the settings give none."""
    scores: AdvisedScores | None = getattr(detector, "scores", None)
    return scores or AdvisedScores()


def trouble_of(detector: Detector) -> str:
    """Return why a detector finds nobody though it works, e.g. because its process sends nothing; "" if it is well.

    May be called from any thread.
    """
    trouble: Callable[[], str] | None = getattr(detector, "trouble", None)
    return "" if trouble is None else trouble()
