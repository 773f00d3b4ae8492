"""A Python function as a detector."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np

from reid_edge.camera.frames import Detections, Frame, no_detections
from reid_edge.errors import DetectorError


class CallableSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="callable"
):
    """A Python function that takes a Frame and returns N×5 x1 y1 x2 y2 score in pixels, or N×4, or Detections.

    Attributes:
        function: ``package.module:function``; Python must be able to import the module.
    """

    function: Annotated[str, msgspec.Meta(pattern=r"^[\w.]+:[\w.]+$")]


class FunctionDetector:
    """Calls a function with each frame.

    Args:
        function: Takes a :class:`Frame`; returns N×5 (x1 y1 x2 y2 score, pixels), N×4 (scores are 1), or Detections.
        name: Name of the function for messages.
    """

    def __init__(self, function: Callable[[Frame], Any], name: str) -> None:
        if not callable(function):
            raise DetectorError(f"detector: expected settings or a function, got {type(function).__name__}.")
        self._function = function
        self._name = name
        self.description = f"function {name}"

    def __call__(self, frame: Frame) -> Detections:
        """See :class:`~reid_edge.camera.detectors.Detector`."""
        try:
            found = self._function(frame)
        except Exception as error:
            raise DetectorError(
                f"{self._name} failed on frame {frame.index}: {type(error).__name__}: {error}"
            ) from error
        return _checked(found, self._name) if isinstance(found, Detections) else _detections(found, self._name)

    def close(self) -> None:
        """Call the function's own ``close``, if it has one."""
        if callable(close := getattr(self._function, "close", None)):
            close()


def find_function(path: str) -> Callable[[Frame], Any]:
    """Import ``package.module:function``.

    Raises:
        DetectorError: The module cannot be imported, or has no such function.
    """
    module_name, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs the module, which may raise anything
        raise DetectorError(
            f"detector function '{path}': {type(error).__name__}: {error}. Expected package.module:function, in a "
            "module that this Python can import; for one in the current folder set PYTHONPATH=."
        ) from error
    if not callable(found):
        raise DetectorError(f"detector function '{path}' is a {type(found).__name__}, not a function.")
    return found  # type: ignore[no-any-return]


def _checked(found: Detections, name: str) -> Detections:
    boxes, scores = np.asarray(found.boxes, np.float32), np.asarray(found.scores, np.float32)
    if boxes.shape != (len(scores), 4) or scores.ndim != 1:
        raise DetectorError(f"{name} gave boxes of shape {boxes.shape} and scores {scores.shape}; expected N×4 and N.")
    return Detections(boxes, scores)


def _detections(found: object, name: str) -> Detections:
    try:
        rows = np.asarray(found, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DetectorError(f"{name} gave {type(found).__name__}; expected N×5 numbers x1 y1 x2 y2 score.") from error
    if rows.size == 0:
        return no_detections()
    if rows.ndim != 2 or rows.shape[1] not in (4, 5):
        raise DetectorError(f"{name} gave an array of shape {rows.shape}; expected N×5 (x1 y1 x2 y2 score) or N×4.")
    scores = rows[:, 4].copy() if rows.shape[1] == 5 else np.ones(len(rows), np.float32)
    return Detections(rows[:, :4].copy(), scores)
