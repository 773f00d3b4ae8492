"""Reasons to end a run before its last epoch: a signal, values that are not finite, features that have collapsed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from reid_edge.errors import CollapseError

#: Steps in a row under the limit before a run stops.
PATIENCE_STEPS = 200
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether, and by which signal, this process was asked to stop.

    Attributes:
        number: Of the signal; 0: not asked.
    """

    def __init__(self) -> None:
        self.number = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as requests; the second one ends the process at once.

        In another thread than the main one, which gets no signals, this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._heard) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            raise SystemExit(128 + number)
        self.number = number


class CollapseWatch:
    """Stops a run whose features have collapsed and stay so.

    Args:
        limit: The spread under which features count as collapsed; 0: never.
        patience_steps: For how many steps they must stay under it: a spread may dip and come back.
    """

    def __init__(self, limit: float, patience_steps: int = PATIENCE_STEPS) -> None:
        self.limit = limit
        self.patience_steps = patience_steps
        self._low_since: int | None = None

    @property
    def low(self) -> bool:
        """Whether the spread last seen was under the limit: a state to be kept is not to be replaced now."""
        return self._low_since is not None

    def see(self, spread: float, step: int, *, last: bool = False) -> None:
        """Take note of the spread at a step, or of its mean since the last one that was seen.

        Not of a network that is frozen, in evaluation mode: random weights have a spread of about 0.01 there, which
        training mode turns into 0.6.

        Raises:
            CollapseError: It has been under the limit for the patience's number of steps, or is so at the last one.
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
            f"the features have collapsed: their spread was under {self.limit:g} for {steps:,} steps and is "
            f"{spread:.2g} at step {step:,} (0: the same feature for every image). The last good checkpoint is kept. "
            "A triplet loss from random weights does this: start it later (--set loss.triplet_start=EPOCH), "
            "or on features of unit length (--set loss.triplet_normalised=true), or leave it out "
            "(--set loss.triplet=0); without one, lower the learning rate or warm it up (--set schedule.warmup=EPOCHS)."
        )
