"""To a gallery in the same process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from reid_edge.errors import GalleryError, TransportError
from reid_edge.upstream.transports.inbox import Inbox


class LocalTransport:
    """Hands each batch to a collector, which answers once it has committed.

    Args:
        receive: Takes batches and returns an acknowledgement for each, e.g. ``Collector.receive`` of a gallery.
    """

    name = "local"

    def __init__(self, receive: Callable[[Sequence[bytes]], list[bytes]]) -> None:
        self._receive = receive
        self._inbox = Inbox()
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
            self._inbox.put(answer)

    def acks(self, timeout_s: float) -> list[bytes]:
        """Acknowledgements that have come, waiting up to ``timeout_s`` for the first."""
        return self._inbox.take(0.0 if self._closed.is_set() else timeout_s)

    def close(self) -> None:
        """Accept no more; wakes a waiting ``acks``."""
        self._closed.set()
        self._inbox.wake()
