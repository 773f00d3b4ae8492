"""Transports from a camera to a gallery: their protocol, and the one within a process.

``http`` and ``mqtt`` hold the other two.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from reid_edge.errors import GalleryError, TransportError
from reid_edge.upstream.batch_limit import MOST_BATCH_BYTES

#: Acknowledgements that a queue keeps, and their bytes; it is full only if nobody reads, or if a gallery sends far more
#: than it was asked.  Those that are lost come again.
MOST_ACKS = 10_000
MOST_ACK_BYTES = 16_000_000


class Transport(Protocol):
    """Carries batches to a gallery and acknowledgements back; it may lose, repeat and reorder both.

    One thread calls ``send``, another ``acks``; ``close`` may come from any, and ends a waiting ``acks``.
    """

    @property
    def name(self) -> str:
        """Address of the gallery for logs, without a password."""

    @property
    def losses(self) -> int:
        """Count of events that may have lost sent batches, e.g. a broken connection; as it grows, send them again."""

    @property
    def max_batch_bytes(self) -> int:
        """Largest batch that the other end takes, as far as is known now; it may change at any time."""

    @property
    def conflict(self) -> str:
        """Trouble that lasts though batches may go through, with what to do about it; empty if there is none."""

    def send(self, batch: bytes) -> None:
        """Hand a batch on; may block a little.

        Raises:
            BatchTooLargeError: It is larger than ``max_batch_bytes``, which may be less than before the call.
            TransportError: Not connected, or not accepted; the caller tries again later.
        """

    def acks(self, timeout_s: float) -> list[bytes]:
        """Return acknowledgements that have come, after waiting up to ``timeout_s`` for the first.

        Empty payloads mean nothing.
        """

    def close(self) -> None:
        """Release connections and threads; ``send`` then raises TransportError."""


class AckQueue:
    """Acknowledgements received and not read yet; the newest are dropped when there are too many.

    All methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._payloads: list[bytes] = []
        self._bytes = 0

    def put(self, payload: bytes) -> None:
        """Add an acknowledgement."""
        with self._changed:
            if len(self._payloads) < MOST_ACKS and self._bytes + len(payload) <= MOST_ACK_BYTES:
                self._payloads.append(payload)
                self._bytes += len(payload)
            self._changed.notify()

    def wake(self) -> None:
        """End a waiting :meth:`take`, with an empty payload."""
        self.put(b"")

    def take(self, timeout_s: float) -> list[bytes]:
        """Remove and return all acknowledgements, after waiting up to ``timeout_s`` for the first."""
        with self._changed:
            self._changed.wait_for(lambda: self._payloads, timeout_s)
            taken, self._payloads, self._bytes = self._payloads, [], 0
            return taken


class LocalTransport:
    """Hands each batch to a gallery in the same process, which answers once it has committed.

    Args:
        receive: Takes batches and returns an acknowledgement for each, e.g. ``Collector.receive`` of a gallery.
        trouble: Returns what is wrong with that gallery though it may take batches; empty if nothing is.
    """

    name = "local"
    losses = 0
    conflict = ""
    max_batch_bytes = MOST_BATCH_BYTES

    def __init__(
        self, receive: Callable[[Sequence[bytes]], list[bytes]], *, trouble: Callable[[], str] = lambda: ""
    ) -> None:
        self._receive = receive
        self.trouble = trouble
        self._acks = AckQueue()
        self._closed = threading.Event()

    def send(self, batch: bytes) -> None:
        """Store a batch.

        Raises:
            TransportError: Closed, or the gallery cannot store now.
        """
        if self._closed.is_set():
            raise TransportError("the transport is closed.")
        try:
            answers = self._receive([batch])
        except GalleryError as error:
            raise TransportError(f"the gallery in this process cannot store: {error}") from error
        for answer in answers:
            self._acks.put(answer)

    def acks(self, timeout_s: float) -> list[bytes]:
        """Return acknowledgements that have come, after waiting up to ``timeout_s`` for the first."""
        return self._acks.take(0.0 if self._closed.is_set() else timeout_s)

    def close(self) -> None:
        """Accept no more batches; ends a waiting ``acks``."""
        self._closed.set()
        self._acks.wake()
