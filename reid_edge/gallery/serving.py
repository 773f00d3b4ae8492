"""The receiving end as one process: a store, a collector, and the ways to it."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reid_edge.errors import GalleryError, UsageError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.store import Store
from reid_edge.upstream.tls import TlsFiles

if TYPE_CHECKING:
    from reid_edge.gallery.http_server import HttpServer
    from reid_edge.gallery.mqtt import MqttCollector

#: How often to look whether the servers still serve.
LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How observations come, at least one way.

    Attributes:
        listen: ``https://ADDRESS[:PORT]``, or ``http://`` on loopback with ``insecure``; None for none.
        mqtt: Broker, ``mqtts://HOST[:PORT]``, or ``mqtt://`` on loopback with ``insecure``; None for none.
        group: Collectors of one group share a broker's observations.
        tls: Certificates.
        insecure: Plain text is allowed on loopback.
        operations: ``http://`` on loopback, for ``/healthz`` and ``/metrics`` alone; None for none.

    Raises:
        UsageError: No way at all.
    """

    listen: str | None = None
    mqtt: str | None = None
    group: str = "gallery"
    tls: TlsFiles | None = None
    insecure: bool = False
    operations: str | None = None

    def __post_init__(self) -> None:
        if self.listen is None and self.mqtt is None:
            raise UsageError("give --listen https://ADDRESS or --mqtt mqtts://BROKER, or both: else nothing can come.")


class Serving:
    """Takes observations until closed.

    Args:
        store: Where they go.
        ways: How they come.
        closing: Closes what was opened.

    Attributes:
        collector: What counts and stores.
        addresses: Where observations come from, for a person to read.

    Raises:
        SettingsError: An address or certificates that cannot be used.
        GalleryError: An address is not free.
        MissingExtraError: A package is not installed.
    """

    def __init__(self, store: Store, ways: Ways, closing: contextlib.ExitStack) -> None:
        from reid_edge.gallery.http import gallery_app, operations_app
        from reid_edge.gallery.http_server import HttpServer
        from reid_edge.gallery.metrics import GalleryMetrics

        self.collector = Collector(store)
        self.addresses: list[str] = []
        self._servers: list[HttpServer] = []
        closing.enter_context(self.collector.retention.running())
        self._mqtt = self._connected(ways, closing)
        metrics = GalleryMetrics(self.collector, self._mqtt)
        if ways.listen is not None:
            app = gallery_app(self.collector, metrics=metrics, healthy=self.trouble)
            server = HttpServer(app, ways.listen, tls=ways.tls, insecure=ways.insecure)
            self._serve(server, closing)
            self.addresses.append(server.address)
        if ways.operations is not None:
            app = operations_app(metrics=metrics, healthy=self.trouble)
            self._serve(HttpServer(app, ways.operations, insecure=True), closing)

    def trouble(self) -> str:
        """Why it does not work; "" if it does."""
        return "" if self._mqtt is None else self._mqtt.trouble

    def until(self, stopped: threading.Event) -> None:
        """Wait.

        Raises:
            GalleryError: An HTTP server has ended: let whoever started this process start it again.
        """
        while not stopped.wait(LOOK_S):
            if not all(server.running for server in self._servers):
                raise GalleryError("the HTTP server has ended; the log says why. Start again.")

    def _connected(self, ways: Ways, closing: contextlib.ExitStack) -> MqttCollector | None:
        if ways.mqtt is None:
            return None
        from reid_edge.gallery.mqtt import MqttCollector

        mqtt = MqttCollector(self.collector, ways.mqtt, group=ways.group, tls=ways.tls, insecure=ways.insecure)
        closing.callback(mqtt.close)
        self.addresses.append(ways.mqtt)
        return mqtt

    def _serve(self, server: HttpServer, closing: contextlib.ExitStack) -> None:
        self._servers.append(server)
        closing.callback(server.close)
