"""The camera's HTTP transport, against the real gallery, and against a server that answers as a test says."""

import contextlib
import http.server
import logging
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from reid_edge.errors import BatchTooLargeError, SettingsError, TransportError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.http import HttpServer, gallery_app
from reid_edge.gallery.store import open_store
from reid_edge.upstream.http import HttpTransport
from reid_edge.upstream.message import decode_ack
from tests.broker import free_port, tls_files
from tests.faults.hostile import (
    OK,
    OK_CHUNKED,
    HostileServer,
    after_request,
    endless,
    gzip_bomb,
    noise,
    say,
    say_nothing,
    trickle,
)
from tests.traffic import batch, next_acks, wait_until

FAST = (0.01, 0.05)


def rss_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def trickle_after(head: bytes, data: bytes, *, every_s: float):
    def talk(peer) -> None:
        peer.send(head)
        trickle(data, every_s=every_s)(peer)

    return talk


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
        self.asked: dict[str, str] = {}
        self.times: list[float] = []
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.asked = dict(self.headers)
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


GZIP_OK = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"
REDIRECT = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/v1/batches\r\ncontent-length: 0\r\n\r\n"
#: An answer that never ends otherwise than by the transport's doing, and what it says then.
HOSTILE = {
    "silent": (say_nothing, "did not come within 1.5 s"),
    "silent after the request": (after_request(say_nothing), "did not come within 1.5 s"),
    "trickling head": (after_request(trickle(OK, every_s=0.2)), "did not come within 1.5 s"),
    "trickling body": (after_request(trickle_after(OK, b"x" * 5000, every_s=0.2)), "did not come within 1.5 s"),
    "endless head": (after_request(endless(b"HTTP/1.1 200 OK\r\n", b"x: " + b"y" * 4000 + b"\r\n")), None),
    "endless line": (after_request(endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 4096)), None),
    "endless interim answers": (after_request(endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 64)), "1.5 s"),
    "endless body": (after_request(endless(OK_CHUNKED)), "with more than 524288 bytes"),
    "bomb": (after_request(say(gzip_bomb(600))), "packed as gzip|more than 524288 bytes"),
    "packed": (after_request(say(GZIP_OK)), "packed as gzip"),
    "noise": (after_request(noise(1)), None),
    "redirect": (after_request(say(REDIRECT)), "answered 307"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_answer_costs_neither_time_nor_memory(kind):
    talk, words = HOSTILE[kind]
    with HostileServer(talk) as server:
        transport = HttpTransport(server.url, insecure=True, backoff_s=FAST, request_s=1.5)
        before, begin = rss_mb(), time.monotonic()
        with pytest.raises(TransportError, match=words):
            transport.send(b"batch" * 10_000)
        assert time.monotonic() - begin < 4
        assert rss_mb() - before < 40
        assert server.all_ended(within_s=5), "the connection is kept"
        assert transport.acks(0) == []
        assert transport.backoff.reason
        transport.close()


def test_a_batch_that_the_other_end_reads_byte_by_byte_ends_in_time():
    def sip(peer):
        peer._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.listen(0.01)
        while True:
            peer._check()
            with contextlib.suppress(TimeoutError):
                peer._connection.recv(1)
            time.sleep(0.02)

    with HostileServer(sip) as server:
        transport = HttpTransport(server.url, insecure=True, backoff_s=FAST, request_s=1.5)
        begin = time.monotonic()
        with pytest.raises(TransportError, match=r"within 1\.5 s"):
            transport.send(b"x" * 20_000_000)
        assert time.monotonic() - begin < 4
        transport.close()


def test_a_tls_handshake_that_never_ends_ends_in_time(certs):
    with HostileServer(trickle(b"\x16\x03\x03\x40\x00" + b"\x02" * 5000, every_s=0.2)) as server:
        uri = f"https://localhost:{server.port}"
        transport = HttpTransport(uri, tls=tls_files(certs, "camA"), backoff_s=FAST, request_s=1.5)
        begin = time.monotonic()
        with pytest.raises(TransportError):
            transport.send(b"batch")
        assert time.monotonic() - begin < 4
        transport.close()


@pytest.mark.parametrize("body", [b"\x1b[2Jgone\r\n2026-01-01 ERROR forged\n", b"\xff" * 500, b"", b"why. " * 100_000])
def test_what_an_error_says_is_one_short_line(body, caplog):
    head = b"HTTP/1.1 500 Oops\r\ncontent-length: %d\r\n\r\n" % len(body)
    with HostileServer(after_request(say(head + body))) as server:
        transport = HttpTransport(server.url, insecure=True, backoff_s=FAST)
        with pytest.raises(TransportError, match="answered 500") as caught:
            transport.send(b"batch")
        transport.close()
    for text in (str(caught.value), transport.backoff.reason, *(record.getMessage() for record in caplog.records)):
        assert text.isprintable()
        assert len(text) < 400


def test_no_packed_answer_is_asked_for(scripted):
    transport = HttpTransport(scripted.uri, insecure=True)
    transport.send(b"batch")
    transport.close()
    assert scripted.asked["accept-encoding"] == "identity"


def test_a_batch_that_is_too_large_makes_the_next_ones_smaller_at_once(scripted):
    scripted.status = 413
    transport = HttpTransport(scripted.uri, insecure=True, max_batch_bytes=100_000)
    assert transport.max_batch_bytes == 100_000
    for expected in (30_000, 15_000):
        with pytest.raises(BatchTooLargeError, match="answered 413"):
            transport.send(b"x" * min(60_000, transport.max_batch_bytes))
        assert transport.max_batch_bytes == expected
    scripted.status = 200
    transport.send(b"x" * transport.max_batch_bytes)
    transport.close()


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


def test_a_camera_whose_certificate_the_gallery_refuses_is_told_and_so_is_the_gallerys_operator(
    certs, foreign_certs, collector, caplog
):
    server = serve(collector, "https://127.0.0.1:0", tls_files(certs, "gallery"))
    files = tls_files(foreign_certs, "camA")
    # It trusts the gallery's authority, which does not trust the camera's.
    trusting = type(files)(ca=certs / "ca.crt", cert=files.cert, key=files.key)
    transport = HttpTransport(f"https://localhost:{server.port}", tls=trusting, backoff_s=FAST)
    with pytest.raises(
        TransportError,
        match=r"(?i)alert unknown ca.*the gallery does not accept this certificate: it is of another authority",
    ):
        transport.send(batch("camA", 1))
    assert transport.backoff.alerts == 1
    transport.close()
    server.close()
    refused = [record.getMessage() for record in caplog.records if record.name == "reid_edge.upstream.tls"]
    assert [text for text in refused if "refused for its certificate" in text] == refused
    assert len(refused) == 1


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
