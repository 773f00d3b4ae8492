"""Peers that do not keep to the rules: they stall, trickle, never end, or send what unpacks to a gigabyte.

What a peer does is a function of its :class:`Conversation`; it may listen (:class:`HostileServer`) or connect
(:class:`HostileClients`), in the clear or by TLS:

    with HostileServer(after_request(trickle(OK + b"x" * 5000, every_s=8))) as server:
        HttpTransport(server.url, insecure=True).send(batch)          # must give up

    with HostileClients(server.port, say_nothing, count=300) as clients:
        ...                                                            # others must be served meanwhile
        assert clients.all_ended(within_s=30)                          # and these turned away
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable
from typing import TypeAlias

#: Head of an answer whose body a test may leave unfinished.
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 5000\r\n\r\n"
OK_CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
POST_CHUNKED = b"POST /v1/batches HTTP/1.1\r\nhost: gallery\r\ntransfer-encoding: chunked\r\n\r\n"
#: One chunk of a chunked body.
CHUNK = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"

#: Time within which a conversation notices that the test is over, seconds.
_POLL_S = 0.05


def post_head(content_length: int) -> bytes:
    """Return the head of an upload of that many bytes."""
    return b"POST /v1/batches HTTP/1.1\r\nhost: gallery\r\ncontent-length: %d\r\n\r\n" % content_length


def gzip_bomb(unpacked_mb: int) -> bytes:
    """Return an answer of a few hundred kilobytes at most that unpacks to that many megabytes of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join([packer.compress(bytes(1 << 20)) for _ in range(unpacked_mb)]) + packer.flush()
    return b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body) + body


class Conversation:
    """One connection, as the hostile side has it.

    Attributes:
        sent: Bytes sent.
        received: The last 16 MiB received.
        lasted_s: Seconds from the connection to its end; None while it lasts.
        failure: Error that ended it, e.g. a reset; None if the other side closed in order or nothing ended it.
    """

    def __init__(self, connection: socket.socket, closing: threading.Event) -> None:
        self._connection = connection
        self._closing = closing
        self._began = time.monotonic()
        self.sent = 0
        self.received = b""
        self.lasted_s: float | None = None
        self.failure: OSError | None = None
        connection.settimeout(_POLL_S)

    def send(self, data: bytes) -> None:
        """Send all of it, however slowly the other side reads.

        Raises:
            ConnectionError: The conversation has ended.
        """
        view = memoryview(data)
        while view:
            self._check()
            try:
                count = self._connection.send(view)
            except TimeoutError:
                continue
            self.sent += count
            view = view[count:]

    def listen(self, seconds: float) -> None:
        """Read whatever comes for that long.

        Raises:
            ConnectionError: The conversation has ended.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._check()
            self._connection.settimeout(min(_POLL_S, max(0.001, until - time.monotonic())))
            try:
                data = self._connection.recv(1 << 16)
            except TimeoutError:
                continue
            finally:
                self._connection.settimeout(_POLL_S)
            if not data:
                raise ConnectionAbortedError("closed by the other side")
            self.received = (self.received + data)[-(1 << 24) :]

    def half_close(self) -> None:
        """Send no more; a TLS connection cannot be half closed, so its socket is."""
        socket.socket.shutdown(self._connection, socket.SHUT_WR)

    def _check(self) -> None:
        if self._closing.is_set():
            raise ConnectionAbortedError("the test is over")

    def run(self, talk: Talk, tls: ssl.SSLContext | None = None) -> None:
        """Talk until one side ends it, as a server by TLS if a context is given."""
        try:
            if tls:
                self._connection.settimeout(5)
                self._connection = tls.wrap_socket(self._connection, server_side=True)
                self._connection.settimeout(_POLL_S)
            talk(self)
            while True:
                self.listen(1.0)
        except ConnectionAbortedError:
            pass
        except OSError as error:
            self.failure = error
        finally:
            self.lasted_s = None if self._closing.is_set() else time.monotonic() - self._began
            with contextlib.suppress(OSError):
                self._connection.close()


#: What a hostile peer does; when it returns, the peer says nothing more and holds the connection.
Talk: TypeAlias = Callable[[Conversation], None]


def say_nothing(_: Conversation) -> None:
    """Connect, and that is all."""


def say(data: bytes) -> Talk:
    """Send this at once: half a request, an upload without its end, a bomb."""
    return lambda peer: peer.send(data)


def trickle(data: bytes, *, every_s: float) -> Talk:
    """Send a byte, wait, send the next."""

    def talk(peer: Conversation) -> None:
        for byte in data:
            peer.send(bytes((byte,)))
            peer.listen(every_s)

    return talk


def half_close(data: bytes) -> Talk:
    """Send this, then close the own direction and wait for an answer."""

    def talk(peer: Conversation) -> None:
        peer.send(data)
        peer.half_close()

    return talk


def endless(head: bytes, piece: bytes = CHUNK) -> Talk:
    """Send the head, and then the same piece for ever."""

    def talk(peer: Conversation) -> None:
        peer.send(head)
        while True:
            peer.send(piece)

    return talk


def noise(seed: int, count: int = 10_000) -> Talk:
    """Send random bytes."""
    return lambda peer: peer.send(random.Random(seed).randbytes(count))


def after_request(talk: Talk) -> Talk:
    """Read one whole HTTP request before talking, as a server does."""

    def wait_and_talk(peer: Conversation) -> None:
        while not _is_whole(peer.received):
            peer.listen(0.01)
        talk(peer)

    return wait_and_talk


def _is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


class _Peers:
    """Conversations, each in a thread of its own, that end with the ``with`` block."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self.conversations: list[Conversation] = []

    def all_ended(self, *, within_s: float) -> bool:
        """Return whether the other side ends every conversation within that time."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if all(talk.lasted_s is not None for talk in list(self.conversations)):
                return True
            time.sleep(0.02)
        return False

    def _begin(self, connection: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        conversation = Conversation(connection, self._closing)
        self.conversations.append(conversation)
        thread = threading.Thread(target=conversation.run, args=(self._talk, tls), daemon=True)
        self._threads.append(thread)
        thread.start()

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(10)


class HostileServer(_Peers):
    """Server on a free port of loopback; ``talk`` decides what each that connects gets.

    Args:
        talk: What it does.
        tls: Its certificate; None for plain text.
    """

    def __init__(self, talk: Talk, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(talk)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://{'localhost' if tls else '127.0.0.1'}:{self.port}"

    def __enter__(self) -> HostileServer:
        thread = threading.Thread(target=self._accept, daemon=True)
        self._threads.append(thread)
        thread.start()
        return self

    def _accept(self) -> None:
        self._listener.settimeout(0.05)
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._begin(connection, self._tls)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._listener.close()


class HostileClients(_Peers):
    """Many clients of one server.

    Args:
        port: Port of the server on loopback.
        talk: What each does.
        count: Number of clients.
        tls: Context to connect with, with or without a client's certificate; None for plain text (also to a port that
            expects TLS).
    """

    def __init__(self, port: int, talk: Talk, *, count: int = 1, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(talk)
        self._port, self._count, self._tls = port, count, tls
        #: Clients that could not even connect.
        self.turned_away: list[OSError] = []

    def __enter__(self) -> HostileClients:
        for _ in range(self._count):
            try:
                connection = socket.create_connection(("127.0.0.1", self._port), 5)
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_hostname="localhost")
            except OSError as error:
                self.turned_away.append(error)
            else:
                self._begin(connection)
        return self


def nobodys_tls(ca: str) -> ssl.SSLContext:
    """Return a context that trusts ``ca`` and has no certificate to show."""
    return ssl.create_default_context(cafile=ca)
