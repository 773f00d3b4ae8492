"""The camera's HTTP transport, against the real gallery, and against a server that answers as a test says."""

import http.server
import logging
import threading
import time

import pytest

from reid_edge.errors import SettingsError, TransportError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.http import HttpServer, gallery_app
from reid_edge.gallery.store import open_store
from reid_edge.upstream.http import HttpTransport
from reid_edge.upstream.message import decode_ack
from tests.broker import free_port, tls_files
from tests.traffic import batch, next_acks, wait_until

FAST = (0.01, 0.05)


@pytest.fixture
def collector(tmp_path):
    store = open_store(f"sqlite:{tmp_path / 'gallery.db'}", create=True)
    yield Collector(store)
    store.close()


def serve(collector: Collector, uri: str, tls=None) -> HttpServer:
    return HttpServer(gallery_app(collector, metrics=lambda: (b"", "text/plain")), uri, tls=tls, insecure=not tls)


def test_a_sent_batch_is_stored_and_acknowledged(certs, collector):
    server = serve(collector, "https://127.0.0.1:0", tls_files(certs, "gallery"))
    transport = HttpTransport(f"https://localhost:{server.port}", tls=tls_files(certs, "camA"))
    try:
        transport.send(batch("camA", 1, 2))
        transport.send(batch("camA", 3))
        assert [ack.seqs for ack in next_acks(transport, 2)] == [(1, 2), (3,)]
        assert collector.stats.stored == 3
        assert transport.connected
        assert transport.acks(0) == []
        assert len(server._server.server_state.connections) == 1
    finally:
        transport.close()
        server.close()


def test_it_comes_back_after_the_server_was_unreachable(collector):
    port = free_port()
    transport = HttpTransport(f"http://127.0.0.1:{port}", insecure=True, backoff_s=FAST)
    with pytest.raises(TransportError, match=r"(?i)refused"):
        transport.send(batch("camA", 1))
    for seq in (1, 2):
        server = serve(collector, f"http://127.0.0.1:{port}")

        def sent(seq=seq) -> bool:
            try:
                transport.send(batch("camA", seq))
            except TransportError:
                return False
            return True

        wait_until(sent, "the server was back")
        assert decode_ack(transport.acks(5)[0]).seqs == (seq,)
        server.close()
    transport.close()
    assert collector.stats.stored == 2


class Scripted(http.server.ThreadingHTTPServer):
    """Answers with ``status`` and ``headers``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 200
        self.headers: dict[str, str] = {}
        self.times: list[float] = []
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.times.append(time.monotonic())
        self.send_response(self.server.status)
        for name, value in {"content-length": "3", **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"why")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted():
    server = Scripted()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 301])
def test_what_a_person_has_to_put_right_is_an_alert(scripted, caplog, status):
    scripted.status = status
    transport = HttpTransport(scripted.uri, insecure=True, backoff_s=FAST)
    for _ in range(3):
        with pytest.raises(TransportError, match=f"answered {status} .*why"):
            transport.send(b"batch")
    transport.close()
    assert transport.backoff.alerts == 1
    assert not transport.connected
    assert len(scripted.times) == 1, "it was asked again without a pause"
    assert [record.levelno for record in caplog.records if "answered" in record.message] == [logging.ERROR]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_passes_is_tried_again(scripted, status):
    scripted.status = status
    transport = HttpTransport(scripted.uri, insecure=True, backoff_s=FAST)
    with pytest.raises(TransportError, match=f"answered {status}"):
        transport.send(b"batch")
    scripted.status = 200

    def sent() -> bool:
        try:
            transport.send(b"batch")
        except TransportError:
            return False
        return True

    wait_until(sent, "it was tried again")
    assert transport.acks(1) == [b"why"]
    assert transport.backoff.alerts == 0
    transport.close()


def test_retry_after_is_kept_to(scripted):
    scripted.status, scripted.headers = 503, {"retry-after": "0.3"}
    transport = HttpTransport(scripted.uri, insecure=True, backoff_s=FAST)
    deadline = time.monotonic() + 20
    while len(scripted.times) < 2 and time.monotonic() < deadline:
        with pytest.raises(TransportError):
            transport.send(b"batch")
        time.sleep(0.005)
    transport.close()
    assert scripted.times[1] - scripted.times[0] > 0.28


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2026 07:28:00 GMT", "-5", "soon", "nan", "1e9"])
def test_a_retry_after_that_makes_no_sense_is_no_harm(scripted, value):
    scripted.status, scripted.headers = 503, {"retry-after": value}
    transport = HttpTransport(scripted.uri, insecure=True, backoff_s=FAST)
    with pytest.raises(TransportError, match="answered 503"):
        transport.send(b"batch")
    transport.close()


def test_a_server_of_another_authority_is_an_alert(certs, foreign_certs, collector):
    server = serve(collector, "https://127.0.0.1:0", tls_files(foreign_certs, "gallery"))
    transport = HttpTransport(f"https://localhost:{server.port}", tls=tls_files(certs, "camA"), backoff_s=FAST)
    with pytest.raises(TransportError, match=r"(?i)certificate verify failed"):
        transport.send(batch("camA", 1))
    assert transport.backoff.alerts == 1
    transport.close()
    server.close()


def test_closing_wakes_who_waits_for_acks_and_ends_sending(scripted):
    transport = HttpTransport(scripted.uri, insecure=True)
    waiting = threading.Thread(target=transport.acks, args=(60.0,))
    waiting.start()
    transport.close()
    waiting.join(timeout=10)
    assert not waiting.is_alive()
    with pytest.raises(TransportError, match="closed"):
        transport.send(b"batch")


def test_no_proxy_of_the_environment_gets_to_see_features(scripted, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    transport = HttpTransport(scripted.uri, insecure=True)
    transport.send(b"batch")
    transport.close()


@pytest.mark.parametrize("url", ["http://10.0.0.1", "https://gallery.example", "mqtts://x", "http://127.0.0.1/path"])
def test_an_address_that_is_not_safe_is_refused(url):
    with pytest.raises(SettingsError):
        HttpTransport(url, insecure=True)
