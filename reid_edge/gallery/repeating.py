"""Work that a thread of its own repeats while a block runs."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

#: Longest wait for the thread to end; one whose store hangs, or is held up by another process, ends with this process.
STOP_S = 2.0


@contextlib.contextmanager
def repeating(work: Callable[[], None], *, doing: str, every_s: float) -> Iterator[None]:
    """Call ``work`` at intervals, from a thread of its own, until the block ends; errors are logged.

    Args:
        work: What to do.
        doing: Names it, for the log and the thread: ``probing the store``.
        every_s: Seconds before the first call, and between two.
    """
    stopped = threading.Event()

    def repeat() -> None:
        while not stopped.wait(every_s):
            try:
                work()
            except Exception:  # the thread's last resort
                log.exception("unexpected error while %s", doing)

    thread = threading.Thread(target=repeat, name=doing, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(STOP_S)
