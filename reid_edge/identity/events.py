"""Events of people: what becomes of tracklets as they come, and of people later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["new", "assigned", "unsure", "merged", "split"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What became of a tracklet, or of a person.

    Attributes:
        kind: ``new``: a person of its own, whom nobody resembles.  ``unsure``: the same, but others are near.
            ``assigned``: to a person who is known.  ``merged``: two people are one.  ``split``: a tracklet has left.
        person: Number of the person; after ``merged`` the one who stays, after ``split`` the new one.
        tracklet: The tracklet; of ``merged``, the one that was looked at.
        other: Of ``merged`` the person who is gone, of ``split`` the one who was left, of ``unsure`` the nearest.
        similarity: Relative similarity behind it; None: an operator's word, or nothing to compare with.
        reason: In words.
    """

    kind: Kind
    person: int
    tracklet: str
    other: int | None = None
    similarity: float | None = None
    reason: str
