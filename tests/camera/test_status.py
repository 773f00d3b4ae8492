import json
import socket
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from prometheus_client.core import GaugeMetricFamily

from reid_edge.camera.health import Health, Problem
from reid_edge.camera.status import StatusPages, StatusServer, machine
from reid_edge.errors import SettingsError
from tests.system.recorded_trees import NUC, ORIN_NANO, plant


class OneNumber:
    def __init__(self):
        self.value = 0

    def collect(self):
        yield GaugeMetricFamily("reid_edge_answer", "For the test.", value=self.value)


@contextmanager
def serving(metrics=None, health=Health):
    server = StatusServer("127.0.0.1:0", metrics or OneNumber(), health)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.close()


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_are_read_at_each_scrape():
    metrics = OneNumber()
    with serving(metrics) as url:
        assert "reid_edge_answer 0.0" in get(f"{url}/metrics")[1]
        metrics.value = 42
        assert "reid_edge_answer 42.0" in get(f"{url}/metrics")[1]


def test_a_well_agent_says_ok():
    with serving() as url:
        assert get(f"{url}/healthz") == (200, '{"status": "ok", "problems": [], "kinds": []}')


def test_an_unwell_agent_says_why():
    with serving(health=lambda: Health((Problem("source", "no frame for 61 s"),))) as url:
        code, body = get(f"{url}/healthz")
    assert code == 503
    assert json.loads(body) == {"status": "unhealthy", "problems": ["no frame for 61 s"], "kinds": ["source"]}


def test_a_client_that_says_nothing_does_not_block_others():
    with serving() as url, socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))):
        assert get(f"{url}/healthz")[0] == 200


def test_a_taken_port_is_named():
    with serving() as url, pytest.raises(SettingsError, match=r"operation\.listen: cannot listen on 127"):
        StatusServer(url.removeprefix("http://"), OneNumber(), Health)


def test_a_taken_port_is_tried_again_until_it_is_free(caplog):
    with serving() as url:
        pages = StatusPages(url.removeprefix("http://"), OneNumber(), Health, retry_s=0.02)
        assert pages.server is None and "until the port is free" in caplog.text
    try:
        deadline = time.monotonic() + 10
        while pages.server is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert get(f"{url}/healthz")[0] == 200
    finally:
        pages.close()


def test_a_port_that_cannot_be_is_an_error():
    with pytest.raises(SettingsError, match=r"operation\.listen"):
        StatusPages("127.0.0.1:99999", OneNumber(), Health)


def test_a_closed_server_lets_its_port_go():
    with serving() as url:
        pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/healthz", timeout=1)


def samples(metrics):
    return {(each.name, *each.labels.values()): each.value for metric in metrics for each in metric.samples}


def test_the_machines_temperatures_and_throttling_are_read_as_the_kernel_writes_them(tmp_path):
    assert samples(machine(plant(tmp_path / "nuc", NUC))) == {
        ("reid_edge_temperature_celsius", "acpitz"): 27.8,
        ("reid_edge_cpu_throttled_total",): 42,
    }
    # A sensor that is switched off reads −256 °C.
    orin = samples(machine(plant(tmp_path / "orin", ORIN_NANO)))
    assert orin == {("reid_edge_temperature_celsius", "cpu-thermal"): 48.125}
