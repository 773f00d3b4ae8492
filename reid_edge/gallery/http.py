"""The gallery by HTTP: ``POST /v1/batches`` for cameras, ``GET /healthz`` and ``/metrics`` for operators.

uvicorn serves in a thread, with TLS 1.3 and client certificates, whose common name the application learns.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from reid_edge.errors import GalleryError, MissingExtraError, StoreError
from reid_edge.gallery.collector import Collector
from reid_edge.upstream.http import BATCHES_PATH, CONTENT_TYPE
from reid_edge.upstream.tls import TlsFiles, endpoint, server_context

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingExtraError(error.name or "starlette", "gallery", "the HTTP server") from error

LOG = logging.getLogger(__name__)

#: As large as the broker takes (deploy/mosquitto/mosquitto.conf).
MOST_BATCH_BYTES = 4 * 2**20
_MOST_GROUP_BYTES = 16 * 2**20
_MOST_WAITING_BYTES = 128 * 2**20
_UPLOAD_S = 30.0
_RETRY_AFTER_S = 5
#: Key of the client certificate's common name in an ASGI scope's ``state``; missing in plain text.
CLIENT_NAME = "client_name"
_MOST_CONNECTIONS = 10_000
_KEEPALIVE_S = 75
_GRACE_S = 5
#: Longest wait for the thread to end; a thread whose store hangs is left behind.
_CLOSE_S = 10


def gallery_app(
    collector: Collector,
    *,
    metrics: Callable[[], tuple[bytes, str]],
    healthy: Callable[[], str] = lambda: "",
    max_batch_bytes: int = MOST_BATCH_BYTES,
) -> Starlette:
    """Make the application that a camera posts batches to.

    ``POST /v1/batches`` answers 200 with the acknowledgement once the batch is committed; 400 if the body is not a
    batch, 413 if it is too large, 408 if it arrives too slowly, 503 with ``Retry-After`` while the store fails or too
    many batches are waiting.

    Args:
        collector: Where batches go.
        metrics: Returns the body and content type of ``/metrics``.
        healthy: Returns the reason why the gallery does not work, or an empty text.
        max_batch_bytes: The largest batch.
    """
    commits = _GroupCommit(collector)

    async def batches(request: Request) -> Response:
        try:
            payload = await asyncio.wait_for(_body(request, max_batch_bytes), _UPLOAD_S)
        except asyncio.TimeoutError:
            return PlainTextResponse(f"The batch did not arrive within {_UPLOAD_S:g} s.\n", 408)
        except ClientDisconnect:
            return Response(status_code=400)
        if payload is None:
            return PlainTextResponse(f"A batch has at most {max_batch_bytes} bytes: send fewer rows.\n", 413)
        return await _answer(commits, payload, getattr(request.state, CLIENT_NAME, None))

    return Starlette(routes=[Route(BATCHES_PATH, batches, methods=["POST"]), *_operations(metrics, healthy)])


def operations_app(*, metrics: Callable[[], tuple[bytes, str]], healthy: Callable[[], str] = lambda: "") -> Starlette:
    """Make an application of ``/healthz`` and ``/metrics`` alone, for a port of loopback."""
    return Starlette(routes=_operations(metrics, healthy))


def _operations(metrics: Callable[[], tuple[bytes, str]], healthy: Callable[[], str]) -> list[Route]:
    def health(_request: Request) -> Response:
        reason = healthy()
        return PlainTextResponse(f"{reason or 'ok'}\n", 503 if reason else 200)

    def figures(_request: Request) -> Response:
        body, content_type = metrics()
        return Response(body, headers={"content-type": content_type})

    return [Route("/healthz", health), Route("/metrics", figures)]


async def _answer(commits: _GroupCommit, payload: bytes, sender: str | None) -> Response:
    try:
        ack = await commits.store(payload, sender)
    except (StoreError, _BusyError) as error:
        return PlainTextResponse(f"{error}\n", 503, {"retry-after": str(_RETRY_AFTER_S)})
    if not ack:
        return PlainTextResponse("The body is not a batch that this release reads (docs/wire.md).\n", 400)
    return Response(ack, media_type=CONTENT_TYPE)


async def _body(request: Request, most: int) -> bytes | None:
    """Return the request's body, or None if it is larger than ``most``."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)


class _BusyError(Exception):
    """More batches are waiting than memory should hold."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    payload: bytes
    sender: str | None
    ack: asyncio.Future[bytes]


class _GroupCommit:
    """Commits in a thread; batches that arrive during one commit are stored together by the next."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    async def store(self, payload: bytes, sender: str | None) -> bytes:
        """Store a batch with the others that are waiting; return its acknowledgement after the commit."""
        if self._bytes + len(payload) > _MOST_WAITING_BYTES:
            raise _BusyError("Too many batches are waiting to be stored.")
        waiting = _Waiting(payload, sender, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._bytes += len(payload)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return await waiting.ack

    async def _run(self) -> None:
        while self._waiting:
            group = self._next_group()
            self._bytes -= sum(len(each.payload) for each in group)
            await self._commit(group)
        self._task = None

    def _next_group(self) -> list[_Waiting]:
        """Take all that is waiting, up to a limit of bytes."""
        count = size = 0
        while count < len(self._waiting) and size < _MOST_GROUP_BYTES:
            size += len(self._waiting[count].payload)
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _commit(self, group: list[_Waiting]) -> None:
        payloads, senders = [each.payload for each in group], [each.sender for each in group]
        try:
            acks = await asyncio.to_thread(self._collector.receive, payloads, senders=senders)
        except Exception as error:  # every request must be answered
            if not isinstance(error, StoreError):
                LOG.exception("cannot store a group of %d batches: unexpected error", len(group))
            for each in group:
                if not each.ack.done():
                    each.ack.set_exception(error)
            return
        for each, ack in zip(group, acks, strict=True):
            if not each.ack.done():
                each.ack.set_result(ack)


def _without_colours(record: logging.LogRecord) -> bool:
    """Remove the text for terminals that uvicorn adds to each record: a log in JSON would hold everything twice."""
    record.__dict__.pop("color_message", None)
    return True


logging.getLogger("uvicorn.error").addFilter(_without_colours)


class HttpServer:
    """Serves an ASGI application until closed.

    Args:
        app: The application; ``scope["state"]`` holds the client's name.
        uri: ``https://ADDRESS[:8443]`` to listen on, or ``http://ADDRESS[:8080]`` on loopback with ``insecure``; port 0
            takes a free one.
        tls: Certificates.
        insecure: Plain text is allowed on loopback.

    Attributes:
        port: Port on which it listens.
        address: URI on which it listens, with the port.

    Raises:
        SettingsError: An address or certificates that cannot be used.
        GalleryError: The address is not free.
    """

    def __init__(self, app: Any, uri: str, *, tls: TlsFiles | None = None, insecure: bool = False) -> None:
        where = endpoint(uri, {"https": 8443, "http": 8080}, tls, insecure=insecure)
        config = uvicorn.Config(
            app,
            http=_NamingProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=_KEEPALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
        config.load()
        if where.secure and tls is not None:
            config.ssl = server_context(tls)
        self._server = uvicorn.Server(config)
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


class _NamingProtocol(H11Protocol):
    """Puts the client's name into the state that each request gets a copy of: uvicorn has no ASGI TLS extension."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        connection: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if connection is not None:
            self.app_state = {**self.app_state, CLIENT_NAME: _common_name(connection.getpeercert() or {})}


def _common_name(certificate: Any) -> str:
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else ""


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
