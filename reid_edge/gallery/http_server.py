"""uvicorn in a thread: TLS 1.3 with client certificates, whose common name the application gets to know."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from typing import Any

from reid_edge.errors import GalleryError, MissingExtraError
from reid_edge.upstream.tls import TlsFiles, endpoint, server_context

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingExtraError("uvicorn", "gallery", "the HTTP server") from error

LOG = logging.getLogger(__name__)

#: Where an ASGI scope's ``state`` holds the common name of the client's certificate; missing in plain text.
CLIENT_NAME = "client_name"
_MOST_CONNECTIONS = 10_000
_KEEPALIVE_S = 75
_GRACE_S = 5
#: Then the thread is left behind: its store hangs.
_CLOSE_S = 10


def _without_colours(record: logging.LogRecord) -> bool:
    """Uvicorn says everything twice, once for terminals; a log in JSON would hold both."""
    record.__dict__.pop("color_message", None)
    return True


logging.getLogger("uvicorn.error").addFilter(_without_colours)


class HttpServer:
    """Serves an ASGI application until closed.

    Args:
        app: The application; ``scope["state"]`` tells it the client's name.
        uri: ``https://ADDRESS[:8443]`` to listen on, or ``http://ADDRESS[:8080]`` on loopback with ``insecure``; port 0
            takes a free one.
        tls: Certificates.
        insecure: Plain text is allowed on loopback.

    Attributes:
        port: Where it listens.
        address: Likewise, as a URI with the port.

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
        # Listening before the thread runs: whoever connects from now on is served.
        self._socket = _listen(uri, where.host, where.port)
        self.port: int = self._socket.getsockname()[1]
        host = f"[{where.host}]" if ":" in where.host else where.host
        self.address = f"{'https' if where.secure else 'http'}://{host}:{self.port}"
        self._thread = threading.Thread(target=self._run, name="http server", daemon=True)
        self._thread.start()
        LOG.info("listening on %s", self.address)

    @property
    def running(self) -> bool:
        """Whether requests are served."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Take no more requests; those that are being served have a few seconds."""
        self._server.should_exit = True
        self._thread.join(_CLOSE_S)
        self._socket.close()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except Exception:  # the thread's last resort
            LOG.exception("the HTTP server ended in an unforeseen way")


class _NamingProtocol(H11Protocol):
    """uvicorn has no ASGI TLS extension: this puts the name into the state that each request gets a copy of."""

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
