"""Acknowledgements between the thread that hears them and the one that reads them."""

from __future__ import annotations

import contextlib
import queue

#: Full only if nobody reads: an acknowledgement that is lost is earned again.
MOST = 10_000


class Inbox:
    """What has been heard and not been read yet; the newest goes if there is too much."""

    def __init__(self) -> None:
        self._heard: queue.Queue[bytes] = queue.Queue(MOST)

    def put(self, payload: bytes) -> None:
        """Add one."""
        with contextlib.suppress(queue.Full):
            self._heard.put_nowait(payload)

    def wake(self) -> None:
        """End a waiting :meth:`take`, with an empty payload."""
        self.put(b"")

    def take(self, timeout_s: float) -> list[bytes]:
        """All that has been heard; waits for the first at most so long."""
        taken: list[bytes] = []
        with contextlib.suppress(queue.Empty):
            taken.append(self._heard.get(timeout=timeout_s) if timeout_s > 0 else self._heard.get_nowait())
            while True:
                taken.append(self._heard.get_nowait())
        return taken
