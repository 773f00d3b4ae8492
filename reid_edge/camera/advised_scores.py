"""Scores from which the boxes of a detector are used, where the settings give none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdvisedScores:
    """Scores that suit a detector.

    Attributes:
        confidence: Lowest score of a box that is used.
        start: Lowest score of a box that starts a track.
    """

    confidence: float = 0.3
    start: float = 0.6
