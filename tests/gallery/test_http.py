"""The gallery by HTTP: a real server on a real socket with a real SQLite store, asked by a plain http.client."""

import contextlib
import http.client
import shutil
import socket
import sqlite3
import ssl
import threading

import pytest

from reid_edge.errors import GalleryError, SettingsError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.http import HttpServer, gallery_app, operations_app
from reid_edge.gallery.metrics import GalleryMetrics
from reid_edge.gallery.store import open_store
from reid_edge.upstream.message import decode_ack
from tests.broker import make_certs, tls_files
from tests.traffic import INCARNATION, batch, wait_until

MOST = 200_000
PROTOBUF = {"content-type": "application/x-protobuf"}


class Gallery:
    def __init__(self, path, tls=None) -> None:
        self.path = path
        self.store = open_store(f"sqlite:{path}", create=True)
        self.collector = Collector(self.store)
        self.reason = ""
        self.tls = tls
        metrics = GalleryMetrics(self.collector)
        app = gallery_app(self.collector, metrics=metrics, healthy=lambda: self.reason, max_batch_bytes=MOST)
        scheme = "https" if tls else "http"
        self.server = HttpServer(app, f"{scheme}://127.0.0.1:0", tls=tls, insecure=not tls)

    def connect(self, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        if context:
            return http.client.HTTPSConnection("localhost", self.server.port, context=context, timeout=20)
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)

    def post(self, body: bytes, connection: http.client.HTTPConnection | None = None) -> tuple[int, bytes]:
        return self.ask("POST", "/v1/batches", body, connection)

    def ask(self, method: str, path: str, body: bytes = b"", connection=None) -> tuple[int, bytes]:
        connection = connection or self.connect()
        connection.request(method, path, body, PROTOBUF if method == "POST" else {})
        response = connection.getresponse()
        self.headers = response.headers
        return response.status, response.read()

    def stored(self) -> set[tuple[str, str, int]]:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            return set(db.execute("SELECT camera, epoch, seq FROM observations"))

    def close(self) -> None:
        self.server.close()
        self.store.close()


@pytest.fixture
def gallery(tmp_path):
    gallery = Gallery(tmp_path / "gallery.db")
    yield gallery
    gallery.close()


@pytest.fixture
def secured(tmp_path, certs):
    gallery = Gallery(tmp_path / "gallery.db", tls_files(certs, "gallery"))
    yield gallery
    gallery.close()


def client(certs, name: str | None, **versions: ssl.TLSVersion) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certs / "ca.crt"))
    for option, version in versions.items():
        setattr(context, option, version)
    if name:
        files = tls_files(certs, name)
        context.load_cert_chain(files.cert, files.key)
    return context


def test_200_means_that_it_is_on_disk(gallery):
    status, body = gallery.post(batch("camA", 1, 2))
    assert gallery.stored() == {("camA", INCARNATION, 1), ("camA", INCARNATION, 2)}
    assert (status, decode_ack(body).seqs) == (200, (1, 2))
    assert gallery.headers["content-type"] == "application/x-protobuf"
    assert decode_ack(gallery.post(batch("camA", 2, 3))[1]).seqs == (2, 3)
    assert len(gallery.stored()) == 3


def test_one_connection_serves_many_batches(gallery):
    connection = gallery.connect()
    for seq in range(1, 6):
        assert gallery.post(batch("camA", seq), connection)[0] == 200


@pytest.mark.parametrize("nonsense", [b"", b"{}", b"\xff" * 1000])
def test_what_is_no_batch_is_answered_400(gallery, nonsense):
    assert gallery.post(nonsense)[0] == 400


def test_what_is_too_large_is_answered_413(gallery):
    assert gallery.post(bytes(MOST + 1))[0] == 413
    connection = gallery.connect()
    connection.request("POST", "/v1/batches", iter([bytes(MOST), b"x"]), PROTOBUF, encode_chunked=True)
    assert connection.getresponse().status == 413
    assert gallery.post(batch("camA", 1))[0] == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/batches", 405), ("POST", "/", 404)])
def test_other_requests_are_answered_as_http_says(gallery, method, path, status):
    assert gallery.ask(method, path)[0] == status


def test_a_store_that_fails_is_answered_503_until_it_works(gallery):
    with contextlib.closing(sqlite3.connect(gallery.path)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON observations BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        other.commit()
        status, body = gallery.post(batch("camA", 1))
        assert status == 503
        assert b"disk full" in body
        assert int(gallery.headers["retry-after"]) > 0
        other.execute("DROP TRIGGER full")
        other.commit()
    assert gallery.stored() == set()
    assert gallery.post(batch("camA", 1))[0] == 200


def test_requests_that_come_during_a_commit_are_the_next_one(gallery):
    commits = 0
    receive = gallery.collector.receive

    def counted(*arguments, **options):
        nonlocal commits
        commits += 1
        return receive(*arguments, **options)

    gallery.collector.receive = counted
    answers: dict[int, tuple[int, ...]] = {}

    def post(seq: int) -> None:
        answers[seq] = decode_ack(gallery.post(batch("camA", seq))[1]).seqs

    threads = [threading.Thread(target=post, args=(seq,)) for seq in range(1, 21)]
    with contextlib.closing(sqlite3.connect(gallery.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        for thread in threads:
            thread.start()
        wait_until(lambda: len(gallery.server._server.server_state.tasks) == 20, "all had come")
        assert answers == {}
        other.execute("ROLLBACK")
        for thread in threads:
            thread.join()
    assert answers == {seq: (seq,) for seq in range(1, 21)}
    assert commits < 10


def test_a_camera_is_who_its_certificate_says(secured, certs):
    connection = secured.connect(client(certs, "camA"))
    status, body = secured.post(batch("camB", 7), connection)
    ack = decode_ack(body)
    assert (status, ack.seqs, ack.refused[0].seqs) == (200, (), (7,))
    assert secured.stored() == set()
    assert decode_ack(secured.post(batch("camA", 1), connection)[1]).seqs == (1,)
    assert secured.stored() == {("camA", INCARNATION, 1)}
    # Another connection is another camera, at the same time.
    other = secured.connect(client(certs, "camB"))
    assert decode_ack(secured.post(batch("camB", 7), other)[1]).seqs == (7,)
    assert decode_ack(secured.post(batch("camA", 2), connection)[1]).seqs == (2,)


def test_without_a_certificate_of_our_authority_nobody_is_served(secured, certs, tmp_path):
    foreign = tmp_path / "other"
    for arguments in (["ca"], ["camera", "camA"]):
        assert make_certs(foreign, *arguments).returncode == 0
    context = ssl.create_default_context(cafile=str(certs / "ca.crt"))
    context.load_cert_chain(foreign / "camA.crt", foreign / "camA.key")
    for refused in (client(certs, None), context, client(certs, "broker")):
        with pytest.raises(OSError, match=r"(?i)alert|reset|closed|EOF|broken pipe"):
            secured.post(batch("camA", 1), secured.connect(refused))
    assert secured.stored() == set()


def test_tls_1_2_is_refused(secured, certs):
    with pytest.raises(ssl.SSLError):
        secured.post(batch("camA", 1), secured.connect(client(certs, "camA", maximum_version=ssl.TLSVersion.TLSv1_2)))


def test_a_revoked_certificate_is_refused(certs, tmp_path):
    certs = shutil.copytree(certs, tmp_path / "certs")
    assert make_certs(certs, "revoke", "camB").returncode == 0
    files = tls_files(certs, "gallery")
    gallery = Gallery(
        tmp_path / "gallery.db", type(files)(ca=files.ca, cert=files.cert, key=files.key, crl=certs / "revoked.crl")
    )
    try:
        with pytest.raises(OSError, match=r"(?i)alert|reset|closed|EOF|broken pipe"):
            gallery.post(batch("camB", 1), gallery.connect(client(certs, "camB")))
        assert gallery.post(batch("camA", 1), gallery.connect(client(certs, "camA")))[0] == 200
    finally:
        gallery.close()


def test_a_connection_that_says_nothing_keeps_nobody_waiting(secured, certs):
    with socket.create_connection(("127.0.0.1", secured.server.port)):
        assert secured.post(batch("camA", 1), secured.connect(client(certs, "camA")))[0] == 200


def test_health_and_metrics(gallery):
    gallery.post(batch("camA", 1, 2))
    assert gallery.ask("GET", "/healthz") == (200, b"ok\n")
    gallery.reason = "the store does not answer"
    assert gallery.ask("GET", "/healthz") == (503, b"the store does not answer\n")
    status, body = gallery.ask("GET", "/metrics")
    assert status == 200
    assert "reid_edge_gallery_observations_stored_total 2.0" in body.decode().splitlines()
    assert gallery.headers["content-type"].startswith("text/plain")


def test_operations_alone_take_no_batches(gallery):
    server = HttpServer(operations_app(metrics=lambda: (b"m 1\n", "text/plain")), "http://127.0.0.1:0", insecure=True)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        assert gallery.ask("GET", "/metrics", connection=connection) == (200, b"m 1\n")
        assert gallery.ask("POST", "/v1/batches", connection=connection)[0] == 404
    finally:
        server.close()


def test_closing_answers_what_is_being_served(tmp_path):
    gallery = Gallery(tmp_path / "gallery.db")
    answers = []
    posting = threading.Thread(target=lambda: answers.append(gallery.post(batch("camA", 1))))
    with contextlib.closing(sqlite3.connect(gallery.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        posting.start()
        wait_until(lambda: gallery.server._server.server_state.tasks, "it had come")
        closing = threading.Thread(target=gallery.server.close)
        closing.start()
        wait_until(lambda: not gallery.server._server.servers[0].is_serving(), "it took no more connections")
        other.execute("ROLLBACK")
    closing.join(timeout=20)
    posting.join(timeout=20)
    assert answers[0][0] == 200
    assert not gallery.server.running
    with pytest.raises(ConnectionRefusedError):
        gallery.post(batch("camA", 2))
    gallery.close()


def test_an_address_that_is_taken_or_not_safe_is_refused(gallery, certs):
    with pytest.raises(GalleryError, match="Choose another"):
        HttpServer(None, f"http://127.0.0.1:{gallery.server.port}", insecure=True)
    with pytest.raises(SettingsError, match="unencrypted"):
        HttpServer(None, "http://0.0.0.0:0", insecure=True)
    with pytest.raises(SettingsError, match="--insecure"):
        HttpServer(None, "http://127.0.0.1:0")
