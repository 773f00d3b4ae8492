"""The gallery as one process: a store, its collector, and the servers through which batches arrive."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reid_edge.errors import GalleryError, UsageError
from reid_edge.gallery.collector import DEFAULT_NAME, Collector
from reid_edge.gallery.health import Health, Problem, probing
from reid_edge.gallery.live_people import LivePeople
from reid_edge.gallery.people import unknown_text
from reid_edge.gallery.quota import Quota
from reid_edge.gallery.store import Store
from reid_edge.gallery.store.people import PersonEvent
from reid_edge.gallery.times import now_us
from reid_edge.gallery.twins import Twins, TwinsRecord
from reid_edge.identity.transit import StatedTransits
from reid_edge.systemd import notify, watchdog_interval_s
from reid_edge.upstream.tls import TlsFiles, client_context, endpoint
from reid_edge.wire_names import checked_wire_name

if TYPE_CHECKING:
    from reid_edge.gallery.http import HttpServer
    from reid_edge.gallery.mqtt import MqttCollector

log = logging.getLogger(__name__)

#: Seconds between two checks that the servers still run.
CHECK_S = 1.0
#: A commit that has run for so long will not end: no store's time limits add up to it.
HUNG_S = 240.0
#: Most cameras that health names.
MOST_NAMED = 5


def check_endpoints(endpoints: Endpoints) -> None:
    """Raise what would keep a service with these endpoints from beginning, before there is a store that it would fill.

    Raises:
        SettingsError: An address or certificates that cannot be used.
        UsageError: A name that cannot be on the wire.
        GalleryError: An address is not free.
        MissingExtraError: A package is not installed.
    """
    import reid_edge.gallery.metrics
    from reid_edge.gallery.http_server import check_listening

    checked_wire_name(endpoints.name, "the name of a gallery", UsageError)
    if endpoints.mqtt is not None:
        import reid_edge.gallery.mqtt  # noqa: F401 - likewise
        from reid_edge.upstream.mqtt import PORTS

        where = endpoint(endpoints.mqtt, PORTS, endpoints.tls, insecure=endpoints.insecure)
        if where.secure and endpoints.tls is not None:
            client_context(endpoints.tls)
    if endpoints.listen is not None:
        check_listening(endpoints.listen, tls=endpoints.tls, insecure=endpoints.insecure)
    if endpoints.operations is not None:
        check_listening(endpoints.operations, insecure=True)


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Addresses at which observations arrive; at least one of ``listen`` and ``mqtt``.

    Attributes:
        listen: HTTP address, ``https://ADDRESS[:PORT]``, or ``http://`` on loopback with ``insecure``; None for none.
        mqtt: Broker, ``mqtts://HOST[:PORT]``, or ``mqtt://`` on loopback with ``insecure``; None for none.
        name: Name of the gallery; collectors with the same name share a broker's observations.
        tls: Certificates.
        insecure: Plain text is allowed on loopback.
        operations: Address ``http://`` on loopback for ``/healthz`` and ``/metrics`` alone; None for none.
        quota: What each camera may bring.
        people: Give tracklets to people as they come.
        transits: Stated times between cameras; None: none.

    Raises:
        UsageError: There is neither ``listen`` nor ``mqtt``.
    """

    listen: str | None = None
    mqtt: str | None = None
    name: str = DEFAULT_NAME
    tls: TlsFiles | None = None
    insecure: bool = False
    operations: str | None = None
    quota: Quota = field(default_factory=Quota)
    people: bool = False
    transits: StatedTransits | None = None

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
        health: What is wrong.
        addresses: Addresses in use, for a person to read.

    Raises:
        SettingsError: An address or certificates that cannot be used.
        GalleryError: An address is not free.
        MissingExtraError: A package is not installed.
    """

    def __init__(self, store: Store, endpoints: Endpoints, closing: contextlib.ExitStack) -> None:
        from reid_edge.gallery.http import HttpServer, gallery_app, operations_app
        from reid_edge.gallery.metrics import GalleryMetrics

        people = LivePeople(store, transits=endpoints.transits, tell=self._tell) if endpoints.people else None
        if people is not None:
            store.people_state()  # whether it can be read, now and not later
            _warn_of_unknown_cameras(store, endpoints.transits)
        self._people = people
        taken = None if people is None else people.take
        self.collector = Collector(store, name=endpoints.name, quota=endpoints.quota, stored=taken)
        self.addresses: list[str] = []
        self._servers: list[HttpServer] = []
        self._twins = TwinsRecord(store)
        closing.enter_context(self.collector.retention.running())
        closing.enter_context(probing(store, self.collector.commits, self._record_twins))
        self._mqtt = self._connected(endpoints, closing)
        if people is not None:
            closing.enter_context(people.running())
        self.health = Health(
            (self._store_problems, self._broker_problems, self._camera_problems, self._people_problems)
        )
        metrics = GalleryMetrics(self.collector, self._mqtt, health=self.health, servers=self._servers)
        if endpoints.listen is not None:
            app = gallery_app(self.collector, metrics=metrics, healthy=self.health.reason)
            server = HttpServer(app, endpoints.listen, tls=endpoints.tls, insecure=endpoints.insecure)
            self._serve(server, closing)
            self.addresses.append(server.address)
        if endpoints.operations is not None:
            app = operations_app(metrics=metrics, healthy=self.health.reason)
            self._serve(HttpServer(app, endpoints.operations, insecure=True), closing)

    def until(self, stopped: threading.Event) -> None:
        """Wait until stopped; meanwhile log problems, and tell systemd's watchdog that commits do not hang.

        Raises:
            GalleryError: An HTTP server has ended; the process has to be started again.
        """
        feed_s, fed_s = watchdog_interval_s(), 0.0
        while not stopped.wait(CHECK_S):
            if not all(server.running for server in self._servers):
                raise GalleryError("the HTTP server has ended; the log says why. Start the gallery again.")
            self.health.log()
            self.collector.replays.report()
            if self._mqtt is not None:
                self._mqtt.leave_if_stuck()
            if feed_s is not None and time.monotonic() - fed_s >= feed_s and self.alive:
                fed_s = time.monotonic()
                notify("WATCHDOG=1")

    @property
    def alive(self) -> bool:
        """False once a commit has hung for longer than any time limit of a store explains."""
        return self.collector.commits.running_s < HUNG_S

    def _store_problems(self) -> Iterator[Problem]:
        if reason := self.collector.commits.trouble:
            yield Problem("store", reason)
        if reason := self.collector.retention.damage:
            yield Problem("store", reason)
        if reason := self.collector.retention.trouble:
            yield Problem("retention", f"observations are not deleted on time: {reason}")

    def _broker_problems(self) -> Iterator[Problem]:
        if self._mqtt is not None and (reason := self._mqtt.trouble):
            yield Problem("broker", reason)

    def _camera_problems(self) -> Iterator[Problem]:
        over = [f"{camera} ({what})" for camera, what in self.collector.accounts.over()]
        if over:
            more = f" and {len(over) - MOST_NAMED} more" if len(over) > MOST_NAMED else ""
            yield Problem("quota", f"over their quota, and refused: {', '.join(over[:MOST_NAMED])}{more}")
        for each in self._present_twins()[:MOST_NAMED]:
            yield Problem("twins", f"{each}")

    def _people_problems(self) -> Iterator[Problem]:
        if self._people is not None and (reason := self._people.trouble):
            yield Problem("people", f"tracklets are not given to people: {reason}")
        for text in [] if self._people is None else self._people.moved[:MOST_NAMED]:
            yield Problem("moved", text)

    def _present_twins(self) -> list[Twins]:
        return [Twins(*each, now_us()) for each in self.collector.accounts.twins()]

    def _record_twins(self) -> None:
        self._twins.write(self._present_twins())

    def _tell(self, event: PersonEvent) -> None:
        if self._mqtt is not None:
            self._mqtt.tell(event)

    def _connected(self, endpoints: Endpoints, closing: contextlib.ExitStack) -> MqttCollector | None:
        if endpoints.mqtt is None:
            return None
        from reid_edge.gallery.mqtt import MqttCollector

        mqtt = MqttCollector(
            self.collector, endpoints.mqtt, group=endpoints.name, tls=endpoints.tls, insecure=endpoints.insecure
        )
        closing.callback(mqtt.close)
        self.addresses.append(endpoints.mqtt)
        return mqtt

    def _serve(self, server: HttpServer, closing: contextlib.ExitStack) -> None:
        self._servers.append(server)
        closing.callback(server.close)


def _warn_of_unknown_cameras(store: Store, transits: StatedTransits | None) -> None:
    """Warn, once, if times are stated for cameras of which the gallery holds nothing, though it does of others."""
    held = [] if transits is None else [one.camera for one in store.cameras() if one.observations]
    if unknown := unknown_text(transits, held):
        log.warning("%s", unknown)
