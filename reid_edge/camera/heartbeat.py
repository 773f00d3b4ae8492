"""Tells a thread that works from one that hangs."""

from __future__ import annotations

import time
from types import TracebackType


class Heartbeat:
    """Held while one item is worked on; a thread that waits for the next one is not late.

    Attributes:
        beats: Items worked on so far.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self.beats = 0

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._since = None
        self.beats += 1

    @property
    def busy_s(self) -> float:
        """For how long the present item has been worked on; 0 between two."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since
