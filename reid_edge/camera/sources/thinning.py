"""Which frames of a source to take at all."""

from __future__ import annotations

#: A frame due at 100.000 ms and stamped 99.999 is on time.
_EARLY_US = 1000


class Thinning:
    """Takes every n-th frame, and no more than so many per second.

    The rate is held on average: frames are due on a grid of times, and the first one at or after each is taken.

    Args:
        stride: Take frames 0, n, 2n, …
        max_fps: Of those, at most this many per second of capture time; None takes all.
    """

    def __init__(self, stride: int, max_fps: float | None) -> None:
        self._stride = stride
        self._period_us = 0 if max_fps is None else round(1e6 / max_fps)
        self._due_us: int | None = None

    def takes(self, index: int, captured_us: int) -> bool:
        """Whether to take this frame; to be asked about each frame once, in order."""
        if index % self._stride:
            return False
        if not self._period_us:
            return True
        due_us = captured_us if self._due_us is None else self._due_us
        if captured_us < due_us - _EARLY_US:
            return False
        missed = max(0, captured_us - due_us) // self._period_us
        self._due_us = due_us + (missed + 1) * self._period_us
        return True
