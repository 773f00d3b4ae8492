"""Clients that do not keep to the rules are cut off; memory and descriptors stay bounded, and a camera is served."""

import contextlib
import gc
import os
import random
import re
import socket
import ssl
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reid_edge.gallery import http as gallery_http
from reid_edge.gallery import http_server
from reid_edge.gallery.uploads import Uploads
from reid_edge.upstream.http import HttpTransport
from tests.broker import free_port, tls_files
from tests.faults.hostile import (
    CHUNK,
    HostileClients,
    Talk,
    endless,
    half_close,
    nobodys_tls,
    noise,
    say,
    say_nothing,
    trickle,
)
from tests.gallery.test_http import Gallery, client
from tests.traffic import batch, wait_until

START = b"POST /v1/batches HTTP/1.1\r\nhost: localhost\r\n"
HEAD = START + b"content-type: application/x-protobuf\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
FORM = START + b"content-type: text/plain\r\ncontent-length: 9000\r\n\r\n"
SHORT_S = 0.4
#: A camera waits so long for its turn at most, on a busy machine.
SOON_S = 10.0


def head(length: int) -> bytes:
    return HEAD + b"content-length: %d\r\n\r\n" % length


@pytest.fixture
def impatient(monkeypatch):
    """Deadlines so short that a test can wait for them."""
    for name in ("HANDSHAKE_S", "HEAD_S", "LINGER_S"):
        monkeypatch.setattr(http_server, name, SHORT_S)
    monkeypatch.setattr(http_server, "REQUEST_S", 3 * SHORT_S)
    monkeypatch.setattr(gallery_http, "UPLOAD_S", SHORT_S)


@pytest.fixture
def gallery(tmp_path, impatient):
    gallery = Gallery(tmp_path / "gallery.db")
    yield gallery
    gallery.close()


@pytest.fixture
def secured(tmp_path, certs, impatient):
    gallery = Gallery(tmp_path / "gallery.db", tls_files(certs, "gallery"))
    yield gallery
    gallery.close()


STALLS: dict[str, Talk] = {
    "nothing": say_nothing,
    "half a request line": say(b"POST /v1/bat"),
    "a head without its end": say(HEAD),
    "a head, a byte at a time": trickle(HEAD * 50, every_s=0.05),
    "a body that does not come": say(head(1000)),
    "half a body": say(head(1000) + b"x" * 500),
    "a body, a byte at a time": trickle(head(1000) + b"x" * 1000, every_s=0.05),
    "a chunked body, a byte at a time": trickle(CHUNKED + b"1\r\nx\r\n" * 99, every_s=0.05),
    "chunks without end": endless(CHUNKED, CHUNK),
    "a head without end": endless(HEAD, b"x-filler: " + b"y" * 1000 + b"\r\n"),
    "a body that is refused": trickle(FORM + b"x" * 9000, every_s=0.05),
    "far too long a body": endless(head(10**12), b"x" * 65536),
    "a half closed request": half_close(head(1000) + b"x" * 500),
    "answers that are not read": endless(b"", 1000 * b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    "noise": noise(15),
}  # fmt: skip


@pytest.mark.parametrize("talk", STALLS.values(), ids=STALLS)
def test_whoever_stalls_is_cut_off_and_others_are_served(gallery, talk):
    with HostileClients(gallery.server.port, talk, count=2) as clients:
        assert gallery.post(batch("camA", 1))[0] == 200
        assert clients.all_ended(within_s=3 * SOON_S)
    wait_until(
        lambda: gallery.server.connections.unidentified + gallery.server.connections.identified <= 1,
        "only the camera was left",
    )


@pytest.mark.parametrize("certificate", [None, "camA"])
@pytest.mark.parametrize("talk", [say_nothing, say(HEAD), noise(3)], ids=["nothing", "half a head", "noise"])
def test_whoever_stalls_within_tls_is_cut_off(secured, certs, talk, certificate):
    context = client(certs, certificate) if certificate else nobodys_tls(str(certs / "ca.crt"))
    with HostileClients(secured.server.port, talk, count=5, tls=context) as clients:
        assert clients.all_ended(within_s=SOON_S)
    assert secured.post(batch("camA", 1), secured.connect(client(certs, "camA")))[0] == 200


@pytest.mark.parametrize("talk", [say_nothing, noise(1), say(b"\x16\x03\x01\x02")], ids=["nothing", "noise", "half"])
def test_a_handshake_has_a_deadline(secured, certs, talk):
    with HostileClients(secured.server.port, talk, count=20) as clients:
        assert secured.post(batch("camA", 1), secured.connect(client(certs, "camA")))[0] == 200
        assert clients.all_ended(within_s=SOON_S)


def test_an_idle_connection_stays_for_longer_than_any_other_stage(gallery):
    connection = gallery.connect()
    for seq in (1, 2):
        assert gallery.post(batch("camA", seq), connection)[0] == 200
        time.sleep(3 * SHORT_S)


def test_requests_in_one_go_are_answered_in_order(gallery):
    with socket.create_connection(("127.0.0.1", gallery.server.port), 10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 100)
        received = b""
        while received.count(b"ok\n") < 100:
            received += connection.recv(65536)
    assert received.count(b"HTTP/1.1 200 OK") == 100


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ("origin: http://other.example", 403),
        ("origin: null", 403),
        ("origin: http://localhost", 403),
        ("sec-fetch-site: cross-site", 403),
        ("sec-fetch-site: same-site", 403),
        ("content-type: application/x-protobuf", 200),
        ("content-type: application/x-www-form-urlencoded", 200),
        ("x-no: type", 200),
        ("sec-fetch-site: none", 200),
    ],
)
def test_what_a_browser_may_have_sent_for_another_site_is_refused_whatever_its_type(gallery, extra, status):
    name, _, value = extra.partition(": ")
    connection = gallery.connect()
    connection.request("POST", "/v1/batches", batch("camA", 1), {name: value})
    assert connection.getresponse().status == status
    assert len(gallery.stored()) == (status == 200)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("gallery.example", 403),
        ("127.0.0.1.example", 403),
        ("[::2]", 403),
        ("[", 403),
        ("localhost:8080", 200),
        ("[::1]:80", 200),
    ],
)
def test_a_name_that_somebody_elses_dns_leads_here_is_refused_in_plain_text(gallery, host, status):
    connection = gallery.connect()
    connection.putrequest("GET", "/healthz", skip_host=True)
    connection.putheader("host", host)
    connection.endheaders()
    assert connection.getresponse().status == status


def test_with_tls_the_certificate_has_been_checked_against_the_name(secured, certs):
    connection = secured.connect(client(certs, "camA"))
    connection.putrequest("GET", "/healthz", skip_host=True)
    connection.putheader("host", "gallery.example")
    connection.endheaders()
    assert connection.getresponse().status == 200


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"no number\r\n",
        CHUNKED + b"5\r\nhelloXX5\r\n",
        CHUNKED.replace(b"POST", b"HEAD") + b"no number\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nno number\r\n",
        b"POST /nowhere HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\nabcno request\r\n\r\n",
        FORM + b"x" * 9000 + b"no request\r\n\r\n",
    ],
)
def test_what_is_no_http_within_or_after_a_request_is_no_error_of_the_server(gallery, data, caplog):
    for pause_s in (0.0, 0.05):
        with socket.create_connection(("127.0.0.1", gallery.server.port), 5) as peer, contextlib.suppress(OSError):
            peer.sendall(data[:-9])
            time.sleep(pause_s)
            peer.sendall(data[-9:])
            while peer.recv(65536):
                pass
    assert gallery.post(batch("camA", 1))[0] == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_random_requests_are_answered_or_cut_off(gallery, caplog):
    """400 requests, each a real one with random bytes changed, cut or repeated."""
    chance = random.Random(15)
    body = batch("camA", 1)
    whole = head(len(body)) + body
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(min(len(data), 400))
            data[at : at + chance.choice((0, 1, 3))] = chance.randbytes(chance.choice((0, 1, 2)))
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", gallery.server.port), 5) as peer:
            peer.sendall(data[: chance.randint(1, 2 * len(data))])
            if chance.random() < 0.3:
                peer.shutdown(socket.SHUT_WR)
                peer.recv(65536)
    assert gallery.post(batch("camA", 2))[0] == 200
    wait_until(lambda: gallery.server.connections.unidentified == 0, "all had gone")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_nothing_is_held_of_connections_that_were_reset_after_an_answer(gallery):
    for _ in range(30):
        with socket.create_connection(("127.0.0.1", gallery.server.port), 5) as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            peer.recv(10)
            time.sleep(0.01)
    wait_until(lambda: gallery.server.connections.identified == 0, "all had gone")
    gc.collect()
    assert sum(type(each) is http_server._GuardedProtocol for each in gc.get_objects()) < 5


def test_a_camera_that_posts_on_all_its_connections_keeps_no_other_waiting(tmp_path, certs, monkeypatch):
    share = len(batch("camB", *range(1, 6)))
    room = Uploads(most_of_a_camera=share)
    monkeypatch.setattr(gallery_http, "Uploads", lambda: room)
    gallery = Gallery(tmp_path / "gallery.db", tls_files(certs, "gallery"))

    def post(camera: str, seq: int) -> int:
        return gallery.post(batch(camera, *range(seq, seq + 5)), gallery.connect(client(certs, camera)))[0]

    with contextlib.closing(gallery), ThreadPoolExecutor() as pool:
        with gallery.collector._lock:  # a commit that takes long
            waiting = pool.submit(post, "camB", 1)
            wait_until(lambda: room.size == share, "its batch waits")
            assert [post("camB", seq) for seq in range(6, 60, 5)] == [503] * 11
            other = pool.submit(post, "camA", 1)
            wait_until(lambda: room.size == 2 * share, "another camera's waits too")
        assert (waiting.result(SOON_S), other.result(SOON_S)) == (200, 200)
        assert post("camB", 6) == 200


class Served:
    """A real ``gallery serve`` with 256 descriptors, and a camera."""

    def __init__(self, folder: Path, certs: Path) -> None:
        self.port, self.certs, self.seq = free_port(), certs, 0
        command = [sys.executable, "-m", "reid_edge", "gallery", "serve", f"sqlite:{folder}/g.db"]
        command += ["--listen", f"https://127.0.0.1:{self.port}", "--ca", str(certs / "ca.crt")]
        command += ["--cert", str(certs / "gallery.crt"), "--key", str(certs / "gallery.key")]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", 'ulimit -n 256; exec "$@"', "x", *command], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                break
            time.sleep(0.05)
        self.camera_brings_one()
        self.log = folder / "log"

    @property
    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208 - it may vanish meanwhile

    def camera_brings_one(self) -> None:
        """A camera that has just started delivers a batch, soon."""
        self.seq += 1
        camera = HttpTransport(
            f"https://localhost:{self.port}", tls=tls_files(self.certs, "camA"), backoff_s=(0.1, 0.5)
        )
        start = time.monotonic()
        while True:
            try:
                camera.send(batch("camA", self.seq))
                break
            except Exception:
                assert time.monotonic() - start < SOON_S, self.log.read_text()
                time.sleep(0.1)
        camera.close()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def served(tmp_path_factory, certs):
    served = Served(tmp_path_factory.mktemp("served"), certs)
    yield served
    served.close()


def tls_clients(served: Served, talk: Talk, count: int, name: str | None = "camB") -> HostileClients:
    context = client(served.certs, name) if name else nobodys_tls(str(served.certs / "ca.crt"))
    return HostileClients(served.port, talk, count=count, tls=context)


def thousand_resets(served: Served) -> None:
    for _ in range(1000):
        with contextlib.suppress(OSError):
            peer = socket.create_connection(("127.0.0.1", served.port), 5)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()


CROWDS = {
    "300 that say nothing": lambda served: HostileClients(served.port, say_nothing, count=300),
    "300 without a certificate": lambda served: tls_clients(served, say_nothing, 300, None),
    "300 random ones": lambda served: HostileClients(served.port, noise(7), count=300),
    "50 unfinished uploads of one camera": lambda served: tls_clients(
        served, say(head(4_100_000) + bytes(4_000_000)), 50
    ),
    "30 trickled bodies": lambda served: tls_clients(served, trickle(head(1000) + b"x" * 1000, every_s=0.2), 30),
    "20 endless bodies": lambda served: tls_clients(served, endless(CHUNKED, CHUNK), 20),
}


@pytest.mark.parametrize("crowd", CROWDS.values(), ids=CROWDS)
def test_a_camera_gets_through_a_crowd_and_nothing_of_it_stays(served, crowd):
    memory, descriptors = served.memory_mb, served.descriptors
    with crowd(served):
        served.camera_brings_one()
        assert served.memory_mb - memory < 150
    wait_until(lambda: served.descriptors <= descriptors + 2, "the descriptors were free again")
    served.camera_brings_one()


def test_connections_that_are_reset_at_once_leave_nothing(served):
    memory, descriptors = served.memory_mb, served.descriptors
    thousand_resets(served)
    served.camera_brings_one()
    wait_until(lambda: served.descriptors <= descriptors + 2, "the descriptors were free again")
    assert served.memory_mb - memory < 50


def test_200_uploads_of_4_mb_that_nobody_finishes_take_little_memory(tmp_path):
    """In plain text, where all are the same to the gallery."""
    port = free_port()
    command = [sys.executable, "-m", "reid_edge", "gallery", "serve", f"sqlite:{tmp_path}/g.db"]
    command += ["--listen", f"http://127.0.0.1:{port}", "--insecure"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, "it listened")
        status = Path(f"/proc/{process.pid}/status")

        def memory_mb() -> float:
            return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024

        before = memory_mb()
        with HostileClients(port, say(head(4_100_000) + bytes(4_000_000)), count=200) as clients:
            camera = HttpTransport(f"http://127.0.0.1:{port}", insecure=True)
            camera.send(batch("camA", 1))
            talks = clients.conversations
            wait_until(lambda: all(each.sent > 3_900_000 or each.lasted_s for each in talks), "all had come")
            camera.send(batch("camA", 2))
            assert memory_mb() - before < 200
            camera.close()
    finally:
        process.kill()
        process.wait()


def test_a_client_without_a_certificate_is_not_logged_each_time(served):
    lines = len(served.log.read_text().splitlines())
    with contextlib.suppress(ssl.SSLError, OSError), HostileClients(served.port, noise(5), count=200):
        time.sleep(1)
    assert len(served.log.read_text().splitlines()) - lines < 10
