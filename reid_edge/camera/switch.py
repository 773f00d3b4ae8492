"""The camera's off switch: a file."""

from __future__ import annotations

import time
from pathlib import Path


class OffSwitch:
    """Whether the camera is switched off: while a file exists.

    Args:
        path: The file; None: never off.
        every_s: The file is looked for at most so often.

    Attributes:
        trouble: Why it cannot be told whether the file exists, which counts as off; "" if it can.
    """

    def __init__(self, path: Path | None, *, every_s: float = 0.5) -> None:
        self._path = path
        self._every_s = every_s
        self._next = 0.0
        self._off = False
        self.trouble = ""

    def __call__(self) -> bool:
        """Whether no frame may be looked at now."""
        if self._path is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every_s
            self._look(self._path)
        return self._off

    def _look(self, path: Path) -> None:
        try:
            self._off, self.trouble = path.exists(), ""
        except OSError as error:
            self._off, self.trouble = True, f"the off switch {path} cannot be looked for: {error.strerror}"
