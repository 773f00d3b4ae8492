"""Signals of a service, taken by a thread of their own: none interrupts what the program does, and none is lost.

A Python signal handler that raises is only as good as the code that it interrupts: a C extension that is being imported
makes an ``ImportError`` of it, and a callback or ``__del__`` swallows it.  So here no handler raises.  The interpreter
writes the number of a signal to a pipe (``signal.set_wakeup_fd``), also while the main thread is inside a library, and
a thread reads it there:

* the first SIGTERM or SIGINT asks the program to stop, which it does at the next point of its own choosing;
* a second one, half a second later or more, ends the process at once;
* a program that has not stopped by a deadline is ended, whatever hangs.

:meth:`StopSignals.leave_if_threads_are_left` ends a process whose threads cannot be joined, e.g. one that waits in
OpenCV for a camera.  If such a thread came back while the interpreter is being taken down, Python would end it in the
middle of C++ code, and C++ would abort the process ("terminate called without an active exception").
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

#: Time after the first signal until which the program must have ended, seconds.
DEADLINE_S = 20.0
#: A signal that comes again within this time is the same one, sent to a process group and passed on by a parent.
SAME_S = 0.5

_NAME = "signals"
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_log = logging.getLogger(__name__)
_held: StopSignals | None = None


class StopSignals:
    """What the signals have asked for.  Made by :func:`hold`; its methods may be called from any thread.

    Attributes:
        deadline_s: Time after the first signal until which the program must have ended, seconds.
    """

    def __init__(self) -> None:
        self.deadline_s = DEADLINE_S
        self._before = threading.enumerate()
        self._asked_s: float | None = None
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self._reload: Callable[[], None] | None = None

    @property
    def asked(self) -> bool:
        """True once a signal has asked the program to stop."""
        return self._asked_s is not None

    def check(self) -> None:
        """Raise ``SystemExit(0)`` if a signal has asked to stop; to be called between the steps of a start."""
        if self.asked:
            raise SystemExit(0)

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` when asked to stop; at once if that was asked already."""
        with self._lock:
            self._stop = stop
        if self.asked:
            stop()

    def on_reload(self, reload: Callable[[], None]) -> None:
        """Call ``reload`` at each SIGHUP from now on; those before are ignored."""
        with self._lock:
            self._reload = reload

    def take(self, number: int) -> None:
        """Act upon a signal."""
        with self._lock:
            stop, reload = self._stop, self._reload
        if number == signal.SIGHUP:
            if reload is not None:
                reload()
        elif self._asked_s is None:
            self._asked_s = time.monotonic()
            if stop is not None:
                stop()
        elif time.monotonic() - self._asked_s > SAME_S:
            os._exit(128 + number)

    def left_s(self) -> float | None:
        """Return the seconds until the deadline; None before a signal has come."""
        return None if self._asked_s is None else max(0.0, self._asked_s + self.deadline_s - time.monotonic())

    def late(self) -> NoReturn:
        """End the process, because it has not stopped by itself."""
        names = ", ".join(thread.name for thread in self._left()) or "the main thread"
        _log.error("not ended %.0f s after the signal, and now left as it is; still busy: %s", self.deadline_s, names)
        leave(0)

    def leave_if_threads_are_left(self, error: BaseException | None) -> None:
        """End the process now if a thread could not be joined; to be called last, when everything is closed.

        Args:
            error: What ended the program; None if it came to its end.
        """
        if not self._left():
            return
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        elif error is None:
            code = 0
        else:
            sys.excepthook(type(error), error, error.__traceback__)
            code = 1
        leave(code)

    def _left(self) -> list[threading.Thread]:
        """List the threads that were started since the signals are taken, and have not ended."""
        return [thread for thread in threading.enumerate() if thread not in self._before and thread.name != _NAME]


def hold() -> StopSignals:
    """Take SIGTERM, SIGINT and SIGHUP from now on, for the rest of the process; call it in the main thread."""
    global _held
    if _held is None:
        _held = StopSignals()
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (*_STOPPING, signal.SIGHUP):
            signal.signal(number, _nothing)
        threading.Thread(target=_watch, args=(_held, reading), name=_NAME, daemon=True).start()
    return _held


@contextlib.contextmanager
def held() -> Iterator[StopSignals]:
    """Take the signals in the block alone, or use what :func:`hold` has taken before."""
    global _held
    if _held is not None:
        yield _held
        return
    before = {number: signal.getsignal(number) for number in (*_STOPPING, signal.SIGHUP)}
    try:
        yield hold()
    finally:
        writing = signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)  # ends the thread
        _held = None


def leave(code: int) -> NoReturn:
    """End the process now, with what was printed and logged, but without the interpreter's end."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Let the interpreter write the number to the pipe."""


def _watch(signals: StopSignals, reading: int) -> None:
    try:
        while True:
            if not select.select([reading], [], [], signals.left_s())[0]:
                signals.late()
            numbers = os.read(reading, 64)
            if not numbers:
                return
            for number in numbers:
                if number in (*_STOPPING, signal.SIGHUP):
                    signals.take(number)
    finally:
        os.close(reading)
