"""Hostile peers are as hostile as they say."""

import gzip
import http.client
import socket
import ssl
import time

import pytest

from tests.faults.hostile import (
    OK,
    OK_CHUNKED,
    HostileClients,
    HostileServer,
    after_request,
    endless,
    gzip_bomb,
    half_close,
    noise,
    post_head,
    say,
    say_nothing,
    trickle,
)


def _read(port, count, timeout_s=5.0):
    with socket.create_connection(("127.0.0.1", port), timeout_s) as client:
        got = b""
        while len(got) < count and (data := client.recv(65536)):
            got += data
    return got


def test_a_silent_server_accepts_and_says_nothing():
    with (
        HostileServer(say_nothing) as server,
        socket.create_connection(("127.0.0.1", server.port), 5) as client,
    ):
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.close()
        assert server.all_ended(within_s=5)


def test_a_trickling_answer_comes_byte_by_byte():
    with HostileServer(trickle(b"abcd", every_s=0.1)) as server:
        began = time.monotonic()
        assert _read(server.port, 4) == b"abcd"
        assert time.monotonic() - began >= 0.3


def test_a_server_that_waits_for_the_request_has_all_of_it():
    with HostileServer(after_request(say(OK + bytes(5000)))) as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        client.request("POST", "/", b"x" * 100_000)
        assert client.getresponse().read() == bytes(5000)
        client.close()


def test_endless_chunks_do_not_end():
    with HostileServer(endless(OK_CHUNKED)) as server:
        assert len(_read(server.port, 5_000_000)) >= 5_000_000


def test_a_bomb_is_small_and_unpacks_to_what_it_says():
    head, body = gzip_bomb(20).split(b"\r\n\r\n", 1)
    assert len(body) < 100_000
    assert b"content-length: %d" % len(body) in head
    assert gzip.decompress(body) == bytes(20 << 20)


def test_noise_is_the_same_for_a_seed():
    with HostileServer(noise(1, 100)) as server:
        assert _read(server.port, 100) == _read(server.port, 100)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        yield listener


def test_clients_are_as_many_as_asked_for_and_notice_when_they_are_turned_away(listener):
    port = listener.getsockname()[1]
    with HostileClients(port, say(post_head(1000) + b"x"), count=3) as clients:
        served = [listener.accept()[0] for _ in range(3)]
        assert served[0].recv(1000) in post_head(1000) + b"x"
        assert not clients.all_ended(within_s=0.1)
        for connection in served:
            connection.close()
        assert clients.all_ended(within_s=5)
        assert not clients.turned_away
    listener.close()
    with HostileClients(port, say_nothing) as clients:
        assert len(clients.turned_away) == 1


def test_a_half_closed_connection_still_listens(listener):
    with HostileClients(listener.getsockname()[1], half_close(b"all")) as clients:
        served, _ = listener.accept()
        served.settimeout(5)
        got = b""
        while data := served.recv(100):
            got += data
        assert got == b"all"
        served.sendall(b"answer")
        served.close()
        assert clients.all_ended(within_s=5)
        assert clients.conversations[0].received == b"answer"


def test_by_tls_too(certs):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certs / "gallery.crt", certs / "gallery.key")
    trusting = ssl.create_default_context(cafile=str(certs / "ca.crt"))
    with HostileServer(after_request(trickle(OK, every_s=0.001)), tls=context) as server:
        client = http.client.HTTPSConnection("localhost", server.port, context=trusting, timeout=5)
        client.request("GET", "/")
        assert client.getresponse().status == 200
        client.close()
