"""Ways from a camera to a gallery, one file each."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """Carries batches there and acknowledgements back; it may lose, repeat and reorder both.

    It may have an attribute ``losses``: a number that grows when what was sent may have been lost, e.g. with a
    connection, and that it pays to send again now.

    One thread calls ``send``, another ``acks``; ``close`` may come from any, and ends a waiting ``acks``.
    """

    @property
    def name(self) -> str:
        """Where to, e.g. for a log; no password in it."""

    def send(self, batch: bytes) -> None:
        """Hand a batch on; may block a little.

        Raises:
            TransportError: Not connected, or not accepted; the caller tries again later.
        """

    def acks(self, timeout_s: float) -> list[bytes]:
        """Acknowledgements that have come, waiting up to ``timeout_s`` for the first; empty ones mean nothing."""

    def close(self) -> None:
        """Let go of connections and threads; ``send`` then raises TransportError."""
