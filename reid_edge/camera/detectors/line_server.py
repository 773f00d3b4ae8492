"""Read lines from standard input, or from a sender that connects to a socket of this machine."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import selectors
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from reid_edge.errors import DetectorError

logger = logging.getLogger(__name__)

_CHUNK = 1 << 16
#: Longest time that :meth:`LineServer.close` waits for the thread.
_JOIN_S = 1.0


class LineSplitter:
    """Cuts a stream of bytes into lines, and yields None in place of one that is too long.

    Args:
        max_bytes: Length of the longest line, bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """Yield the lines that this chunk completes."""
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = bytes(self._rest) + end
            self._rest.clear()
            yield None if self._skipping or len(line) > self._max_bytes else line
            self._skipping = False
        self._skipping = self._skipping or len(self._rest) + len(rest) > self._max_bytes
        if self._skipping:
            self._rest.clear()
        else:
            self._rest += rest

    def finish(self) -> Iterator[bytes | None]:
        """Yield the last line, if it did not end in a line break."""
        if self._rest or self._skipping:
            yield None if self._skipping else bytes(self._rest)
        self._rest.clear()
        self._skipping = False


class LineServer:
    """A thread that reads lines, from one sender at a time.

    Args:
        listen: ``stdin``, ``unix:PATH``, or ``tcp:HOST:PORT`` on loopback.
        max_bytes: Length of the longest line, bytes.
        on_line: Called in the thread, with None for a line that was too long; while it blocks, the sender waits.
        on_idle: Called in the thread when a sender has disconnected.

    Attributes:
        address: Path, or host and port, that senders connect to; None for standard input.
        sending: Set while a sender is connected, or standard input is not at its end.

    Raises:
        DetectorError: The address cannot be listened on.
    """

    def __init__(
        self, listen: str, *, max_bytes: int, on_line: Callable[[bytes | None], None], on_idle: Callable[[], None]
    ) -> None:
        self._splitter = LineSplitter(max_bytes)
        self._on_line = on_line
        self._on_idle = on_idle
        self._wake, self._woken = socket.socketpair()
        self._closing = False
        self._listener = None if listen == "stdin" else _listener(listen)
        self.address = None if self._listener is None else self._listener.getsockname()
        self.sending = threading.Event()
        if self._listener is None:
            self.sending.set()
        self._thread = threading.Thread(target=self._serve, name="detections", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        if self._closing:
            return
        self._closing = True
        self._wake.send(b"x")
        self._thread.join(_JOIN_S)
        if self._listener is not None:
            self._listener.close()
            if isinstance(self.address, str):
                Path(self.address).unlink(missing_ok=True)
        if not self._thread.is_alive():
            self._wake.close()
            self._woken.close()

    def _serve(self) -> None:
        try:
            if self._listener is None:
                self._read(sys.stdin.fileno())
            while self._listener is not None and self._ready(self._listener.fileno()):
                with contextlib.suppress(ConnectionError), self._listener.accept()[0] as connection:
                    self.sending.set()
                    self._read(connection.fileno())
        except (OSError, ValueError) as error:  # ValueError: standard input is closed
            if not self._closing:
                logger.error("detections can no longer be received: %s", error)
        finally:
            self.sending.clear()
            self._on_idle()

    def _read(self, descriptor: int) -> None:
        """Read lines until this sender disconnects."""
        while self._ready(descriptor):
            try:
                chunk = os.read(descriptor, _CHUNK)
            except ConnectionError:
                chunk = b""
            for line in self._splitter.feed(chunk) if chunk else self._splitter.finish():
                self._on_line(line)
            if not chunk:
                break
        self.sending.clear()
        self._on_idle()

    def _ready(self, descriptor: int) -> bool:
        """Wait for bytes or a sender; return False when closing."""
        with selectors.PollSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(descriptor, selectors.EVENT_READ)
            selector.select()
        return not self._closing


def _listener(listen: str) -> socket.socket:
    kind, _, place = listen.partition(":")
    try:
        if kind == "unix" and place:
            return _unix_listener(Path(place).expanduser())
        if kind == "tcp":
            return _tcp_listener(place)
    except (OSError, ValueError) as error:
        raise DetectorError(f"cannot listen for detections on {listen}: {error}. Is another process there?") from error
    raise DetectorError(f"listen: expected stdin, unix:/path/of/socket or tcp:127.0.0.1:port, got '{listen}'.")


def _unix_listener(path: Path) -> socket.socket:
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
        path.unlink()  # left by a process that was killed
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _tcp_listener(place: str) -> socket.socket:
    host, _, port = place.rpartition(":")
    address = ipaddress.ip_address(host.strip("[]"))
    if not address.is_loopback:
        raise ValueError(f"{address} is not loopback, and senders are not authenticated")
    return socket.create_server(
        (str(address), int(port)), family=socket.AF_INET6 if address.version == 6 else socket.AF_INET
    )
