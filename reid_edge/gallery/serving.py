"""The gallery as one process: a store, its collector, and the servers through which batches arrive."""

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
    from reid_edge.gallery.http import HttpServer
    from reid_edge.gallery.mqtt import MqttCollector

#: Seconds between two checks that the servers still run.
CHECK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Addresses at which observations arrive; at least one of ``listen`` and ``mqtt``.

    Attributes:
        listen: HTTP address, ``https://ADDRESS[:PORT]``, or ``http://`` on loopback with ``insecure``; None for none.
        mqtt: Broker, ``mqtts://HOST[:PORT]``, or ``mqtt://`` on loopback with ``insecure``; None for none.
        group: Collectors of one group share a broker's observations.
        tls: Certificates.
        insecure: Plain text is allowed on loopback.
        operations: Address ``http://`` on loopback for ``/healthz`` and ``/metrics`` alone; None for none.

    Raises:
        UsageError: There is neither ``listen`` nor ``mqtt``.
    """

    listen: str | None = None
    mqtt: str | None = None
    group: str = "gallery"
    tls: TlsFiles | None = None
    insecure: bool = False
    operations: str | None = None

    def __post_init__(self) -> None:
        if self.listen is None and self.mqtt is None:
            raise UsageError(
                "give --listen https://ADDRESS or --mqtt mqtts://BROKER, or both: without, no observation can arrive."
            )


class GalleryService:
    """Takes observations until closed.

    Args:
        store: Gallery to store in.
        endpoints: Addresses at which observations arrive.
        closing: Closes what this opens.

    Attributes:
        collector: Stores and counts.
        addresses: Addresses in use, for a person to read.

    Raises:
        SettingsError: An address or certificates that cannot be used.
        GalleryError: An address is not free.
        MissingExtraError: A package is not installed.
    """

    def __init__(self, store: Store, endpoints: Endpoints, closing: contextlib.ExitStack) -> None:
        from reid_edge.gallery.http import HttpServer, gallery_app, operations_app
        from reid_edge.gallery.metrics import GalleryMetrics

        self.collector = Collector(store)
        self.addresses: list[str] = []
        self._servers: list[HttpServer] = []
        closing.enter_context(self.collector.retention.running())
        self._mqtt = self._connected(endpoints, closing)
        metrics = GalleryMetrics(self.collector, self._mqtt)
        if endpoints.listen is not None:
            app = gallery_app(self.collector, metrics=metrics, healthy=self.trouble)
            server = HttpServer(app, endpoints.listen, tls=endpoints.tls, insecure=endpoints.insecure)
            self._serve(server, closing)
            self.addresses.append(server.address)
        if endpoints.operations is not None:
            app = operations_app(metrics=metrics, healthy=self.trouble)
            self._serve(HttpServer(app, endpoints.operations, insecure=True), closing)

    def trouble(self) -> str:
        """Return the reason why it does not work, or an empty text."""
        return "" if self._mqtt is None else self._mqtt.trouble

    def until(self, stopped: threading.Event) -> None:
        """Wait until stopped.

        Raises:
            GalleryError: An HTTP server has ended; the process has to be started again.
        """
        while not stopped.wait(CHECK_S):
            if not all(server.running for server in self._servers):
                raise GalleryError("the HTTP server has ended; the log says why. Start the gallery again.")

    def _connected(self, endpoints: Endpoints, closing: contextlib.ExitStack) -> MqttCollector | None:
        if endpoints.mqtt is None:
            return None
        from reid_edge.gallery.mqtt import MqttCollector

        mqtt = MqttCollector(
            self.collector, endpoints.mqtt, group=endpoints.group, tls=endpoints.tls, insecure=endpoints.insecure
        )
        closing.callback(mqtt.close)
        self.addresses.append(endpoints.mqtt)
        return mqtt

    def _serve(self, server: HttpServer, closing: contextlib.ExitStack) -> None:
        self._servers.append(server)
        closing.callback(server.close)
