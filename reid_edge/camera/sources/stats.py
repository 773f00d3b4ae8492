"""What a source tells about itself, for metrics and health."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class SourceStats:
    """Counts since the start.  Written by the capturing thread, read by any.

    Attributes:
        frames: Captured and handed over.
        dropped: Of these, overwritten by a newer one before anybody took them (live sources).
        unreadable: Images or frames that could not be decoded.
        reconnects: Attempts to open a live source again.
        connected: Whether frames are coming, as far as known; a file is always connected.
        error: What went wrong last with a live source that is not connected, without passwords.
    """

    frames: int = 0
    dropped: int = 0
    unreadable: int = 0
    reconnects: int = 0
    connected: bool = False
    error: str | None = None
    _last: float = field(default_factory=time.monotonic)

    def saw_frame(self) -> None:
        """A frame was captured just now."""
        self.frames += 1
        self._last = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the last frame, or since the start before the first."""
        return time.monotonic() - self._last
