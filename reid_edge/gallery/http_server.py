"""An HTTP server in a thread: uvicorn's, with a deadline for each stage of a connection.

uvicorn itself waits without end for a TLS handshake's other half, a request's head, a body or a reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import resource
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

from reid_edge.errors import GalleryError, MissingExtraError
from reid_edge.gallery.connection_limit import ConnectionLimit, Peer, address_of
from reid_edge.sparse_log import SparseLog
from reid_edge.upstream.tls import TlsFiles, endpoint, server_context

try:
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingExtraError(error.name or "uvicorn", "gallery", "the HTTP server") from error

LOG = logging.getLogger(__name__)

#: Key of the client certificate's common name in an ASGI scope's ``state``; missing in plain text.
CLIENT_NAME = "client_name"
#: Most connections, and descriptors that are left for other things.
_MOST_CONNECTIONS, _OTHER_FILES = 10_000, 96
#: Time for a TLS handshake, and for the head of a request once its first byte has come.
HANDSHAKE_S, HEAD_S = 10.0, 10.0
#: Time for a whole request, answer included: the application gives up on bodies and commits before.
REQUEST_S = 75.0
#: Time without a request, and for a client to read an answer's end and close.
_KEEPALIVE_S, LINGER_S = 75, 5.0
_GRACE_S = 5
#: Longest wait for the thread to end; a thread whose store hangs is left behind.
_CLOSE_S = 10
_PAUSE_S = 0.1
#: Schemes, with the default port of each.
_PORTS = {"https": 8443, "http": 8080}


class _SparseRecords(logging.Filter):
    """Removes the text for terminals that uvicorn adds to each record, and lines that a client could repeat."""

    def __init__(self) -> None:
        super().__init__()
        self._sparse = SparseLog(LOG)

    def filter(self, record: logging.LogRecord) -> bool:
        record.__dict__.pop("color_message", None)
        return record.levelno < logging.WARNING or self._sparse.admits(record.getMessage()) is not None


logging.getLogger("uvicorn.error").addFilter(_SparseRecords())


class HttpServer:
    """Serves an ASGI application until closed.

    Args:
        app: The application; ``scope["state"]`` holds the client's name.
        uri: ``https://ADDRESS[:8443]`` to listen on, or ``http://ADDRESS[:8080]`` on loopback with ``insecure``; port 0
            takes a free one.
        tls: Certificates; a client without one of the same authority is not served.  TLS 1.3.
        insecure: Plain text is allowed on loopback.

    Attributes:
        port: Port on which it listens.
        address: URI on which it listens, with the port.
        connections: Its connections, and their limit.

    Raises:
        SettingsError: An address or certificates that cannot be used.
        GalleryError: The address is not free.
    """

    def __init__(self, app: Any, uri: str, *, tls: TlsFiles | None = None, insecure: bool = False) -> None:
        where = endpoint(uri, _PORTS, tls, insecure=insecure)
        config = uvicorn.Config(
            app,
            http=_GuardedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEPALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
        config.load()
        if where.secure and tls is not None:
            config.ssl = server_context(tls)
        self.connections = ConnectionLimit(_most_connections())
        self._server = _Server(config, self.connections)
        # Listening before the thread runs, so that connections made from now on are served.
        self._socket = _listen(uri, where.host, where.port)
        self.port: int = self._socket.getsockname()[1]
        host = f"[{where.host}]" if ":" in where.host else where.host
        self.address = f"{'https' if where.secure else 'http'}://{host}:{self.port}"
        self._thread = threading.Thread(target=self._run, name="http server", daemon=True)
        self._thread.start()
        LOG.info("listening on %s", self.address)

    @property
    def running(self) -> bool:
        """True while requests are served."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Take no more requests; those that are being served get a few seconds to end."""
        self._server.should_exit = True
        self._thread.join(_CLOSE_S)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except Exception:  # the thread's last resort
            LOG.exception("the HTTP server ended after an unexpected error")


class _Server(uvicorn.Server):
    """Takes connections by its own loop, so that they are known from their first moment."""

    def __init__(self, config: uvicorn.Config, connections: ConnectionLimit) -> None:
        super().__init__(config)
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        listeners: Any = [
            _Listener(each, self._make_protocol, self.config.ssl, self._connections) for each in sockets or []
        ]
        self.servers = listeners
        self.started = True

    def _make_protocol(self, peer: Peer) -> _GuardedProtocol:
        state = self.lifespan.state
        return _GuardedProtocol(self.config, self.server_state, state, peer=peer, connections=self._connections)


class _Listener:
    """Accepts connections on one socket; stands in for :class:`asyncio.Server` in uvicorn."""

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[Peer], _GuardedProtocol],
        tls: ssl.SSLContext | None,
        connections: ConnectionLimit,
    ) -> None:
        listener.setblocking(False)
        self._socket, self._make_protocol, self._tls, self._connections = listener, make_protocol, tls, connections
        self._admitting: set[asyncio.Task[None]] = set()
        self._task = asyncio.get_running_loop().create_task(self._accept())

    def is_serving(self) -> bool:
        """Return True while connections are accepted."""
        return not self._task.done()

    def close(self) -> None:
        """Accept no more, and end the handshakes."""
        self._task.cancel()
        for task in self._admitting:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until no more are accepted."""
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._socket)
            except OSError:  # no descriptor is free, or the peer has gone already
                self._connections.drop_oldest()
                await asyncio.sleep(_PAUSE_S)
                continue
            peer = Peer(address_of(address), connection.close)
            task = loop.create_task(self._admit(connection, peer))
            peer.drop = task.cancel
            self._admitting.add(task)
            task.add_done_callback(functools.partial(self._admitted, connection))
            self._connections.add(peer)

    def _admitted(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._admitting.discard(task)
        if task.cancelled():  # dropped for another, perhaps before it had begun
            connection.close()

    async def _admit(self, connection: socket.socket, peer: Peer) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make_protocol(peer),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_S if self._tls else None,
            )
        except OSError:  # no handshake, or none in time
            self._connections.remove(peer)


class _GuardedProtocol(H11Protocol):
    """Ends a connection that takes too long for what it is doing, and tells the application the client's name.

    uvicorn has no ASGI TLS extension: the name is in the state that each request gets a copy of.
    """

    def __init__(self, *arguments: Any, peer: Peer, connections: ConnectionLimit) -> None:
        super().__init__(*arguments)
        self._peer, self._connections = peer, connections
        self._timer: asyncio.TimerHandle | None = None
        self._serving: Any = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._peer.drop = transport.abort
        self._wait(HEAD_S)
        connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if connection is not None:
            name = _common_name(connection.getpeercert() or {})
            self.app_state = {**self.app_state, CLIENT_NAME: name}
            self._connections.identify(self._peer, name)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # after a reset uvicorn's timer would hold all of this for a minute
        self._connections.remove(self._peer)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._peer.idle and self._serving is not None:  # the first byte of another request
            self._peer.idle = False
            self._wait(HEAD_S)
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None and self.cycle is not self._serving:
            self._serving, self._peer.idle = self.cycle, False
            self._wait(REQUEST_S)
            if self._peer.name is None:  # plain text: a whole head has come
                self._connections.identify(self._peer, "")
        elif self.transport.is_closing():
            self._wait(LINGER_S)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless the answer to the request of which it is a part has begun."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the application still answers is dropped
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # it has begun, or may have no body
            self.transport.abort()

    def on_response_complete(self) -> None:
        answered = self.cycle
        super().on_response_complete()
        if self.cycle is not answered:  # a pipelined request is served already
            return
        # What still comes of an answered request's body is dropped unread, but not for long.
        whole = self.conn.their_state in (h11.IDLE, h11.DONE) and not self.transport.is_closing()
        self._peer.idle = True
        self._wait(_KEEPALIVE_S + LINGER_S if whole else LINGER_S)

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.transport.abort)


def _common_name(certificate: Any) -> str:
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else ""


def _most_connections() -> int:
    """Return how many connections the limit of open files allows, after raising it as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
            soft = more
    files = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    return max(0, files - _OTHER_FILES)


def check_listening(uri: str, *, tls: TlsFiles | None = None, insecure: bool = False) -> None:
    """Raise what :class:`HttpServer` would raise for the same address and certificates."""
    where = endpoint(uri, _PORTS, tls, insecure=insecure)
    if where.secure and tls is not None:
        server_context(tls)
    _listen(uri, where.host, where.port).close()


def _listen(uri: str, host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise GalleryError(f"cannot listen on {uri}: {error.strerror or error}. Choose another address.") from error
    # Connections inherit it.  asyncio sets it only on sockets made otherwise, and without it every answer, which is two
    # writes, waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener
