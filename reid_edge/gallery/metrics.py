"""Prometheus metrics of a gallery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reid_edge.errors import MissingExtraError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.health import KINDS, Health
from reid_edge.gallery.http_server import HttpServer
from reid_edge.gallery.mqtt import MqttCollector

try:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector as MetricsSource
except ImportError as error:
    raise MissingExtraError("prometheus-client", "gallery", "metrics") from error

PREFIX = "reid_edge_gallery"


class GalleryMetrics(MetricsSource):
    """Reads the counts at each scrape, so that they cost the collector nothing more.

    Args:
        collector: The collector whose counts are shown.
        mqtt: Its connection to a broker, if it has one.
        health: What is wrong; None shows no problems.
        servers: HTTP servers, also those that are added later.
    """

    def __init__(
        self,
        collector: Collector,
        mqtt: MqttCollector | None = None,
        *,
        health: Health | None = None,
        servers: Sequence[HttpServer] = (),
    ) -> None:
        self._collector, self._mqtt, self._health, self._servers = collector, mqtt, health, servers
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def __call__(self) -> tuple[bytes, str]:
        """Return body and content type, in Prometheus's text format."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Metric]:
        """Yield all families of metrics, as prometheus_client asks for them."""
        stats = self._collector.stats
        yield _counter("batches", "Batches received.", stats.batches)
        yield _counter("malformed_batches", "Batches that could not be read.", stats.malformed)
        yield _counter("observations_stored", "Observations newly stored.", stats.stored)
        yield _counter("observations_duplicate", "Observations that had been stored before.", stats.duplicates)
        yield _counter("observations_erased", "Observations kept out because they were erased before.", stats.erased)
        yield _counter("gaps", "Gaps newly stored that cameras declared.", stats.gaps)
        refused = CounterMetricFamily(f"{PREFIX}_observations_refused", "Observations refused.", labels=["reason"])
        for reason, count in sorted(stats.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        last_s = stats.last_stored_us / 1e6
        yield _gauge("last_stored_seconds", "When something was last stored, seconds since 1970.", last_s)
        yield _counter("batches_elsewhere", "Batches that were for other galleries.", stats.elsewhere)
        elsewhere = stats.observations_elsewhere
        yield _counter("observations_elsewhere", "Observations for other galleries, each counted once.", elsewhere)
        running_s = self._collector.commits.running_s
        yield _gauge("commit_running_seconds", "For how long a commit has been running; 0 if none is.", running_s)
        yield self._problems()
        yield from _server_families(self._servers)
        if self._mqtt is not None:
            yield from _mqtt_families(self._mqtt)

    def _problems(self) -> Metric:
        present = {problem.kind for problem in self._health.problems()} if self._health else set()
        problems = GaugeMetricFamily(f"{PREFIX}_problem", "1 while there is a problem of this kind.", labels=["kind"])
        for kind in KINDS:
            problems.add_metric([kind], float(kind in present))
        return problems


def _mqtt_families(mqtt: MqttCollector) -> Iterator[Metric]:
    yield _gauge("mqtt_connected", "Whether the broker is there.", float(mqtt.connected))
    yield _counter("mqtt_connects", "Connections made.", mqtt.link.connects)
    yield _counter("mqtt_messages", "Messages taken from the broker.", mqtt.stats.messages)
    yield _counter("mqtt_dropped", "Messages dropped, too large or too many of one camera.", mqtt.stats.dropped)
    yield _counter("mqtt_commits", "Groups of messages committed.", mqtt.stats.commits)
    yield _counter("mqtt_commit_failures", "Commits that failed.", mqtt.stats.failures)
    yield _counter("mqtt_unanswered", "Acknowledgements that could not be published.", mqtt.stats.unanswered)
    yield _counter("mqtt_answers_refused", "Acknowledgements that the broker refused.", mqtt.answers.failures)


def _server_families(servers: Sequence[HttpServer]) -> Iterator[Metric]:
    identified = sum(one.connections.identified for one in servers)
    unidentified = sum(one.connections.unidentified for one in servers)
    yield _gauge("http_connections", "HTTP connections.", identified)
    yield _gauge("http_strangers", "Connections that have shown no certificate or whole request yet.", unidentified)
    dropped = sum(one.connections.dropped for one in servers)
    yield _counter("http_connections_dropped", "Connections ended since there were too many.", dropped)


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", help_text, value=value)


def _counter(name: str, help_text: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}_{name}", help_text, value=value)
