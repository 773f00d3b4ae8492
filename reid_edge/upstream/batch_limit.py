"""The largest batch that may be sent: as set, and as learnt from refusals."""

from __future__ import annotations

import time

#: What a gallery takes over HTTP, and the broker of deploy/mosquitto.
MOST_BATCH_BYTES = 4 * 2**20
#: A refusal of a batch as small as this has another cause: no limit is learnt from it.
_SMALLEST = 2048
#: Seconds until twice as much is tried again, after the first refusal and at most: the cause may have been changed.
_AGAIN_S = 600.0
_LONGEST_AGAIN_S = 6 * 3600.0


class BatchLimit:
    """Bounds batches; a size that was refused is halved, and doubled again when that has been in force for a while.

    To be used by one thread; :attr:`bytes` may be read from any.

    Args:
        set_bytes: Largest batch by the settings.
    """

    def __init__(self, set_bytes: int) -> None:
        self._set_bytes = set_bytes
        self._learnt = (set_bytes, 0.0)
        self._again_s = _AGAIN_S

    @property
    def bytes(self) -> int:
        """Largest batch that may be sent now."""
        learnt, since_s = self._learnt
        if learnt < self._set_bytes:
            learnt <<= min(32, int((time.monotonic() - since_s) / self._again_s))
        return min(self._set_bytes, learnt)

    def refused(self, size: int) -> bool:
        """Note that a batch was refused for its size; return whether smaller ones are worth a try."""
        if size <= _SMALLEST:
            return False
        half = max(_SMALLEST, min(size, self.bytes) // 2)
        if self._learnt[0] < self._set_bytes:  # again
            self._again_s = min(_LONGEST_AGAIN_S, 2 * self._again_s)
        self._learnt = (half, time.monotonic())
        return True
