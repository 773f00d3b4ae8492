"""Reasons to end a run before its last epoch: a signal, values that are not finite, features that have collapsed."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from reid_edge.errors import CollapseError
from reid_edge.wording import counted

#: Steps in a row under the limit before a run stops.
PATIENCE_STEPS = 200
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """A request to stop this process, made by a signal, or by the end of the time that it was given.

    Args:
        minutes: Minutes from now until the process is asked to stop; None: it has all the time.

    Attributes:
        number: Number of the signal; 0: there was none.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.number = 0
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes

    @property
    def made(self) -> bool:
        """True if the process is asked to stop."""
        return bool(self.number) or time.monotonic() >= self._end

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as requests inside the block; a second signal ends the process at once.

        Outside the main thread, which alone can handle signals, this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            raise SystemExit(128 + number)
        self.number = number


class CollapseWatch:
    """Stops a run whose features have collapsed and stay collapsed.

    Args:
        limit: Spread (:func:`reid_edge.training.losses.spread`) under which features count as collapsed; 0: never.
        patience_steps: Number of steps for which they must stay under it, since a spread may dip and recover.
    """

    def __init__(self, limit: float, patience_steps: int = PATIENCE_STEPS) -> None:
        self.limit = limit
        self.patience_steps = patience_steps
        self._low_since: int | None = None

    @property
    def low(self) -> bool:
        """True if the last spread was under the limit; a saved state should not be replaced then."""
        return self._low_since is not None

    def check(self, spread: float, step: int, *, last: bool = False) -> None:
        """Check the spread at a step, or its mean since the last check.

        Do not call it for a frozen network, which is in evaluation mode: random weights have a spread of about 0.01
        there, and of 0.6 in training mode.

        Raises:
            CollapseError: The spread has been under the limit for ``patience_steps`` steps, or is at the last step.
        """
        if spread >= self.limit:
            self._low_since = None
            return
        if self._low_since is None:
            self._low_since = step
        if last or step - self._low_since >= self.patience_steps:
            raise CollapseError(self._message(spread, step - self._low_since, step))

    def _message(self, spread: float, steps: int, step: int) -> str:
        return (
            f"the features have collapsed: their spread was under {self.limit:g} for {counted(steps, 'step')} and is "
            f"{spread:.2g} at step {step:,} (0: the same feature for every image). The last good checkpoint is kept. "
            "A triplet loss from random weights does this: start it later (--set loss.triplet_start=EPOCH), "
            "or on features of unit length (--set loss.triplet_normalised=true), or leave it out "
            "(--set loss.triplet=0); without one, lower the learning rate or warm it up (--set schedule.warmup=EPOCHS)."
        )
