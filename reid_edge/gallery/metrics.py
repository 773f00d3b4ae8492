"""Prometheus metrics of a gallery."""

from __future__ import annotations

from collections.abc import Iterator

from reid_edge.errors import MissingExtraError
from reid_edge.gallery.collector import Collector
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
    """

    def __init__(self, collector: Collector, mqtt: MqttCollector | None = None) -> None:
        self._collector, self._mqtt = collector, mqtt
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
        yield _counter("gaps", "Gaps newly stored.", stats.gaps)
        refused = CounterMetricFamily(f"{PREFIX}_observations_refused", "Observations refused.", labels=["reason"])
        for reason, count in sorted(stats.refused.items()):
            refused.add_metric([reason], count)
        yield refused
        last = GaugeMetricFamily(f"{PREFIX}_last_stored_seconds", "When something was last stored, seconds since 1970.")
        last.add_metric([], stats.last_stored_us / 1e6)
        yield last
        if self._mqtt is not None:
            yield from _mqtt_families(self._mqtt)


def _mqtt_families(mqtt: MqttCollector) -> Iterator[Metric]:
    connected = GaugeMetricFamily(f"{PREFIX}_mqtt_connected", "Whether the broker is there.")
    connected.add_metric([], float(mqtt.connected))
    yield connected
    yield _counter("mqtt_connects", "Connections made.", mqtt.link.connects)
    yield _counter("mqtt_messages", "Messages taken from the broker.", mqtt.stats.messages)
    yield _counter("mqtt_commits", "Groups of messages committed.", mqtt.stats.commits)
    yield _counter("mqtt_commit_failures", "Commits that failed.", mqtt.stats.failures)
    yield _counter("mqtt_unanswered", "Acknowledgements that could not be published.", mqtt.stats.unanswered)
    yield _counter("mqtt_answers_refused", "Acknowledgements that the broker refused.", mqtt.answers.failures)


def _counter(name: str, help_text: str, value: int) -> CounterMetricFamily:
    return CounterMetricFamily(f"{PREFIX}_{name}", help_text, value=value)
