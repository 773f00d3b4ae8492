"""Progress of long work, reported to a caller who may show it."""

from __future__ import annotations

from collections.abc import Callable

#: Takes the text of a stage and its number of steps; returns a function to call after each step, or with a number after
#: that many.
Notify = Callable[[str, int], Callable[..., object]]


def silent(_text: str, _steps: int) -> Callable[..., object]:
    """Show no progress."""
    return lambda _count=1: None
