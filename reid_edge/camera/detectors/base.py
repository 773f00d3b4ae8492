"""What every detector is: a frame in, boxes of people out."""

from __future__ import annotations

from typing import Protocol

from reid_edge.camera.frames import Detections, Frame


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
