"""An HTTP connection on which a whole request, answer included, keeps one deadline.  The only file that uses httpcore.

The time-outs of HTTP libraries are for one read or write each, so that an answer of a byte now and then has none.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reid_edge.errors import MissingExtraError, TransportError
from reid_edge.upstream.dialling import connected
from reid_edge.upstream.tls import Endpoint

try:
    import httpcore
except ImportError as error:
    raise MissingExtraError("httpcore", "camera", "HTTP") from error

_READ_BYTES = 65_536


@dataclass(frozen=True)
class Answer:
    """An answer's status code, its headers by their names in lower case, and its body.

    Attributes:
        complete: The body is whole; else it was longer than was to be read.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool


class HttpConnection:
    """One connection, opened by the first request and kept open for the next.

    It follows no redirect, unpacks nothing, and uses no proxy.  To be used by one thread.

    Args:
        where: The server's address.
        context: TLS; None connects in plain text.
        connect_s: Seconds to connect, TLS included.
        request_s: Seconds for a request from its beginning to the end of its answer, connecting included.
        keepalive_s: Seconds after which an idle connection is not used again.
    """

    def __init__(
        self,
        where: Endpoint,
        context: ssl.SSLContext | None,
        *,
        connect_s: float,
        request_s: float,
        keepalive_s: float,
    ) -> None:
        host = f"[{where.host}]" if ":" in where.host else where.host
        self._origin = f"http{'s' if context else ''}://{host}:{where.port}"
        self._request_s = request_s
        self._dialler = _Dialler(connect_s, f"the whole answer did not come within {request_s:g} s")
        self._pool = httpcore.ConnectionPool(
            ssl_context=context, max_connections=1, keepalive_expiry=keepalive_s, network_backend=self._dialler
        )

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, most_bytes: int) -> Answer:
        """Send a body and return the answer, of whose body at most ``most_bytes`` are read.

        Raises:
            TransportError: Nobody answers, not in time, or not in HTTP; its cause is an ssl.SSLError if TLS failed.
        """
        self._dialler.until = time.monotonic() + self._request_s
        try:
            with self._pool.stream("POST", self._origin + path, headers=list(headers.items()), content=body) as got:
                names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in got.headers}
                parts, complete = _first(got.iter_stream(), most_bytes)
                return Answer(got.status, names, parts, complete)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            self.close()
            raise TransportError(str(error) or type(error).__name__) from error.__cause__

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._pool.close()


def _first(chunks: Iterable[bytes], most: int) -> tuple[bytes, bool]:
    """Join chunks up to a number of bytes; also return whether that was all."""
    taken = bytearray()
    for chunk in chunks:
        taken += chunk[: most - len(taken) + 1]
        if len(taken) > most:
            return bytes(taken[:most]), False
    return bytes(taken), True


class _Dialler(httpcore.NetworkBackend):
    """Makes connections, all of whose operations end at ``until``, a time of the monotonic clock."""

    def __init__(self, connect_s: float, too_slow: str) -> None:
        self.until = 0.0
        self.too_slow = too_slow
        self._connect_s = connect_s
        self._connecting_until = 0.0

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        self._connecting_until = time.monotonic() + self._connect_s
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            return _Stream(connected(host, port, self.left_s(connecting=True)), self)

    def left_s(self, *, connecting: bool = False) -> float:
        """Return the seconds that are left; raises TimeoutError if none are."""
        until = min(self.until, self._connecting_until) if connecting else self.until
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"no connection within {self._connect_s:g} s")
        return left_s


class _Stream(httpcore.NetworkStream):
    """A socket that reads and writes until its dialler's deadline."""

    def __init__(self, connection: socket.socket, dialler: _Dialler) -> None:
        self._socket = connection
        self._dialler = dialler

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline counts
        with _as_httpcore(httpcore.ReadTimeout, httpcore.ReadError, self._dialler.too_slow):
            self._socket.settimeout(self._dialler.left_s())
            return self._socket.recv(min(max_bytes, _READ_BYTES))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        left = memoryview(buffer)
        with _as_httpcore(httpcore.WriteTimeout, httpcore.WriteError, self._dialler.too_slow):
            while left:
                self._socket.settimeout(self._dialler.left_s())
                left = left[self._socket.send(left) :]

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError), contextlib.ExitStack() as closing:
            closing.callback(self._socket.close)
            self._socket.settimeout(self._dialler.left_s(connecting=True))  # of the whole handshake
            encrypted = ssl_context.wrap_socket(self._socket, server_hostname=server_hostname)
            closing.pop_all()
            return _Stream(encrypted, self._dialler)

    def close(self) -> None:
        self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        # Of an idle connection: there is something to read only if the other end has closed it.
        return _is_readable(self._socket) if info == "is_readable" else None


def _is_readable(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        connection.recv(1, 0 if isinstance(connection, ssl.SSLSocket) else socket.MSG_PEEK)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def _as_httpcore(timed_out: type[Exception], failed: type[Exception], too_slow: str = "") -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timed_out(too_slow or str(error)) from error
    except OSError as error:
        raise failed(str(error)) from error
