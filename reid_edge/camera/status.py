"""Serve ``/metrics`` for Prometheus and ``/healthz`` for a supervisor, on loopback."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import socketserver
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from reid_edge.camera.health import KINDS, Health
from reid_edge.camera.vitals import RECENT, percentiles
from reid_edge.errors import SettingsError
from reid_edge.redaction import scrubbed
from reid_edge.system.conditions import cpu_throttle_counts, zone_temperatures
from reid_edge.system.sysfs import ROOT

if TYPE_CHECKING:
    from reid_edge.camera.agent import Agent


log = logging.getLogger(__name__)


class StatusServer:
    """Serves both pages from a thread of its own.

    Args:
        address: HOST:PORT; port 0 takes a free one.
        metrics: Collected at every scrape.
        health: Called at every check.

    Raises:
        PortTakenError: Another process listens there.
        SettingsError: The address cannot be listened on.
    """

    def __init__(self, address: str, metrics: Collector, health: Callable[[], Health]) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(metrics)
        scrape = make_wsgi_app(registry)

        def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if environ["PATH_INFO"] == "/healthz":
                return _answer(health(), start_response)
            page: Iterable[bytes] = scrape(environ, start_response)
            return page

        self._server = _listening(address, app)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, name="status", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def check_address(address: str) -> None:
    """Check that a :class:`StatusServer` could listen on an address, now or once its port is free.

    Raises:
        SettingsError: It never could.
    """
    with contextlib.suppress(PortTakenError):
        _listening(address, lambda _environ, _start: ()).server_close()


def _listening(address: str, app: Callable[..., Iterable[bytes]]) -> WSGIServer:
    host, port = address.rsplit(":", 1)
    try:
        return make_server(host, int(port), app, _ThreadingServer, _SilentHandler)
    except (OSError, OverflowError) as error:
        kind = PortTakenError if getattr(error, "errno", None) == errno.EADDRINUSE else SettingsError
        raise kind(
            f"operation.listen: cannot listen on {address}: {error}. Choose another port, or '' for none."
        ) from error


class PortTakenError(SettingsError):
    """Another process listens on the address."""


class StatusPages:
    """Serves both pages, and tries again where another process has the port: no reason for a camera to see nothing.

    Args:
        address: As for :class:`StatusServer`.
        metrics: Likewise.
        health: Likewise.
        retry_s: Time between two attempts, seconds.
        any_port: Take a free port at once where another process has this one.

    Raises:
        SettingsError: The address can never be listened on.
    """

    def __init__(
        self,
        address: str,
        metrics: Collector,
        health: Callable[[], Health],
        *,
        retry_s: float = 10.0,
        any_port: bool = False,
    ) -> None:
        self._address, self._metrics, self._health = address, metrics, health
        self._retry_s = retry_s
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.server: StatusServer | None = None
        try:
            self.server = self._serve()
        except PortTakenError as error:
            if any_port:
                self._take_free_port()
                return
            log.error("neither /metrics nor /healthz is served until the port is free: %s", error)
            self._thread = threading.Thread(target=self._try_again, name="status-retry", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        if self.server is not None:
            self.server.close()

    def _serve(self) -> StatusServer:
        return StatusServer(self._address, self._metrics, self._health)

    def _take_free_port(self) -> None:
        taken, self._address = self._address, f"{self._address.rsplit(':', 1)[0]}:0"
        self.server = self._serve()
        log.warning(
            "%s is taken, perhaps by another agent: /metrics and /healthz are served on port %d. Choose one: --listen",
            taken,
            self.server.port,
        )

    def _try_again(self) -> None:
        while self.server is None and not self._closing.wait(self._retry_s):
            with contextlib.suppress(PortTakenError):
                self.server = self._serve()
                log.info("/metrics and /healthz are served on port %d", self.server.port)


def _answer(health: Health, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("503 Service Unavailable" if health.problems else "200 OK", [("Content-Type", "application/json")])
    status = "unhealthy" if health.problems else "ok"
    texts = [scrubbed(problem.text) for problem in health.problems]
    kinds = sorted({problem.kind for problem in health.problems})
    return [json.dumps({"status": status, "problems": texts, "kinds": kinds}).encode()]


class _ThreadingServer(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    timeout = 10  # a client that sends nothing must not hold a thread

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


class AgentMetrics(Collector):
    """Metrics of an agent, read from its counters at each scrape.

    Args:
        agent: The agent.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; prometheus_client calls this at each scrape."""
        yield from self._detecting()
        yield from self._embedding()
        yield from self._delivering()
        yield self._problems()
        yield from machine()

    def _detecting(self) -> Iterator[Metric]:
        source, detection = self._agent.pipeline.source.stats, self._agent.pipeline.detection.stats
        yield _counter("frames", "Frames captured.", source.frames)
        yield _counter("frames_looked_at", "Frames that went through detection.", detection.frames)
        yield _counters(
            "frames_dropped",
            "Frames that did not go through detection, by reason.",
            {"newer": source.dropped, "unreadable": source.unreadable, "off": detection.off},
        )
        yield _counter("source_reconnects", "Attempts to open a live source again.", source.reconnects)
        yield _gauge("source_connected", "1 while frames are coming.", source.connected)
        yield _gauge("source_silent_seconds", "Seconds since the last frame.", source.silent_s)
        yield _counter("detections", "Boxes kept by the filter.", detection.detections)
        yield _counters(
            "detections_dropped", "Boxes dropped by the filter, by reason.", self._agent.pipeline.filter.dropped
        )

    def _embedding(self) -> Iterator[Metric]:
        agent, embedding = self._agent, self._agent.pipeline.embedding
        yield _counter("crops_chosen", "Crops that the crop selector chose.", agent.pipeline.detection.stats.chosen)
        yield _counters(
            "crops_dropped",
            "Chosen crops that were dropped before the engine, by reason.",
            {"overload": agent.pipeline.crop_queue.dropped},
        )
        yield _gauge("crops_waiting", "Crops in the queue.", len(agent.pipeline.crop_queue))
        yield _counter("embeddings", "Crops embedded.", embedding.stats.embedded)
        yield _counter("engine_calls", "Calls of the engine, one batch each.", embedding.stats.batches)
        yield from _latency("engine_seconds", "Seconds of the engine for one batch.", embedding.engine_latencies_s)
        yield from _latency(
            "crop_seconds", "Seconds from the beginning of detection to the feature.", embedding.crop_latencies_s
        )
        yield _gauge("tracklets", "Live tracklets.", len(agent.pipeline.tracklets))
        yield _counters(
            "tracklets_withheld",
            "Tracklets that were not published because they do not look like one whole person, by reason.",
            agent.pipeline.tracklets.withheld,
        )
        yield _counter("tracklets_split", "Tracks that began to show another person.", agent.pipeline.tracklets.split)
        yield _counter("bundle_reloads", "Bundles loaded again while running.", agent.reloads)
        yield _counter("bundle_reload_failures", "Bundles that could not be loaded again.", agent.failed_reloads)
        yield InfoMetricFamily(
            "reid_edge_model",
            "Model and engine that make the features.",
            {"hash": embedding.extractor.bundle.manifest.model_hash, "engine": embedding.extractor.description},
        )

    def _delivering(self) -> Iterator[Metric]:
        outbox, publisher, delivery = self._agent.outbox, self._agent.publisher.stats, self._agent.delivery
        yield _counter("observations_published", "Observations written to the outbox.", publisher.published)
        yield _gauge(
            "observations_unwritten",
            "Observations that wait in memory until the outbox is writable.",
            publisher.unwritten,
        )
        yield _counters(
            "observations_dropped",
            "Observations dropped before delivery, by reason.",
            dict(outbox.dropped) | {"unwritten": publisher.lost},
        )
        yield _gauge("outbox_rows", "Observations that are not acknowledged.", outbox.depth)
        yield _gauge("outbox_bytes", "Size of these observations.", outbox.payload_bytes)
        yield _gauge("outbox_age_seconds", "Age of the oldest of these observations.", delivery.stats.oldest_s or 0.0)
        yield _counter("observations_sent", "Observations sent, each counted once.", delivery.stats.sent)
        yield _counter("observations_resent", "Observations sent again.", delivery.stats.resent)
        yield _counter(
            "observations_acknowledged", "Observations that the gallery has committed.", delivery.stats.acknowledged
        )
        yield _counter("observations_refused", "Observations that the gallery has refused.", delivery.stats.refused)
        yield _gauge("upstream_connected", "1 if the last attempt to send succeeded.", delivery.stats.connected)
        yield from _latency("publish_seconds", "Seconds from sending to acknowledgement.", delivery.stats.latencies_s)

    def _problems(self) -> Metric:
        present = {problem.kind for problem in self._agent.health().problems}
        family = GaugeMetricFamily(
            "reid_edge_problem", "1 while the agent has a problem of this kind.", labels=["kind"]
        )
        for kind in KINDS:
            family.add_metric([kind], float(kind in present))
        return family


def machine(root: Path = ROOT) -> Iterator[Metric]:
    """Yield temperatures, and throttling where the CPU counts it, read from the system's files under ``root``."""
    temperatures = GaugeMetricFamily("reid_edge_temperature_celsius", "Temperature of a thermal zone.", labels=["zone"])
    for zone, degrees in zone_temperatures(root).items():
        temperatures.add_metric([zone], degrees)
    yield temperatures
    if throttled := cpu_throttle_counts(root):
        yield _counter("cpu_throttled", "Times that the hottest core was slowed down.", max(throttled.values()))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"reid_edge_{name}", text, value=value)


def _counters(name: str, text: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"reid_edge_{name}", text, labels=["reason"])
    for reason, value in sorted(values.items()):
        family.add_metric([reason], value)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"reid_edge_{name}", text, value=float(value))


def _latency(name: str, text: str, recent_s: Collection[float]) -> Iterator[Metric]:
    family = GaugeMetricFamily(f"reid_edge_{name}", f"{text} Percentiles of the last {RECENT}.", labels=["percentile"])
    for percentile, seconds in percentiles(recent_s).items():
        family.add_metric([str(percentile)], seconds)
    yield family
