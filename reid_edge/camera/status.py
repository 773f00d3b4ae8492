"""``/metrics`` for Prometheus and ``/healthz`` for a supervisor, on loopback."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from reid_edge.errors import MissingExtraError, SettingsError

if TYPE_CHECKING:
    from prometheus_client.registry import Collector


@dataclass(frozen=True)
class Health:
    """What is wrong now; nothing, if the agent is well."""

    problems: tuple[str, ...] = ()


class StatusServer:
    """Serves both pages from a thread of its own.

    Args:
        address: HOST:PORT; port 0 takes a free one.
        metrics: Asked at every scrape.
        health: Asked at every check.

    Raises:
        SettingsError: The address is taken.
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self, address: str, metrics: Collector, health: Callable[[], Health]) -> None:
        try:
            from prometheus_client import CollectorRegistry, make_wsgi_app
        except ModuleNotFoundError as error:
            raise MissingExtraError("prometheus-client", "camera", "serving metrics") from error
        registry = CollectorRegistry(auto_describe=False)
        registry.register(metrics)
        scrape = make_wsgi_app(registry)

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/healthz":
                return _answer(health(), start_response)
            page: Iterable[bytes] = scrape(environ, start_response)
            return page

        host, port = address.rsplit(":", 1)
        try:
            self._server = make_server(host, int(port), app, _ThreadingServer, _SilentHandler)
        except (OSError, OverflowError) as error:
            raise SettingsError(
                f"operation.listen: cannot listen on {address}: {error}. Choose another port, or '' for none."
            ) from error
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def _answer(health: Health, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("503 Service Unavailable" if health.problems else "200 OK", [("Content-Type", "application/json")])
    status = "unhealthy" if health.problems else "ok"
    return [json.dumps({"status": status, "problems": health.problems}).encode()]


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    timeout = 10  # a client that says nothing must not hold a thread

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass
