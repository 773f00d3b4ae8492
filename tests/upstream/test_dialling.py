"""Connecting: one deadline over the look-up and every address."""

import socket
import threading
import time

import pytest

from reid_edge.upstream import dialling
from reid_edge.upstream.dialling import connected
from tests.traffic import wait_until


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_it_connects_to_a_name(listener):
    with connected("localhost", listener.getsockname()[1], 5.0) as connection:
        assert connection.getpeername() == listener.getsockname()
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_look_up_that_hangs_ends_in_time_and_holds_one_thread(monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(20) and [])
    before = threading.active_count()
    for _ in range(3):
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match=r"look-up of gallery\.example did not end within 0\.2 s.*DNS"):
            connected("gallery.example", 1, 0.2)
        assert time.monotonic() - begin < 2
    assert threading.active_count() == before + 1
    answer.set()


def test_a_look_up_that_was_too_slow_serves_the_next_call_but_not_for_ever(listener, monkeypatch):
    answer, asked = threading.Event(), []

    def slow(*arguments, **_):
        asked.append(arguments)
        answer.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(TimeoutError):
        connected("slow.example", 1, 0.1)
    answer.set()
    connected("slow.example", 1, 5.0).close()
    assert len(asked) == 1
    connected("slow.example", 1, 5.0).close()
    assert len(asked) == 2, "an answer was kept after its use"
    monkeypatch.setattr(dialling, "_FRESH_S", 0.0)
    answer.clear()
    with pytest.raises(TimeoutError):
        connected("slow.example", 1, 0.1)
    answer.set()
    wait_until(lambda: not dialling._lookups["slow.example", 1].is_alive(), "it ended")
    connected("slow.example", 1, 5.0).close()
    assert len(asked) == 4, "an old answer was used"


def test_a_look_up_is_made_anew_after_one_that_failed(listener):
    with pytest.raises(OSError, match=r"(?i)name|service"):
        connected("no-such-host.invalid", 1, 5.0)
    with pytest.raises(OSError, match=r"(?i)name|service"):
        connected("no-such-host.invalid", 1, 5.0)


def test_an_address_that_swallows_everything_leaves_time_for_the_next(listener, monkeypatch):
    # TEST-NET-1 (RFC 5737) is nobody's: packets to it are lost, or refused at once where there is no route.
    port = listener.getsockname()[1]
    there = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: there)
    with connected("two.example", 1, 1.0) as connection:
        assert connection.getpeername() == listener.getsockname()


def test_all_addresses_together_keep_the_deadline():
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    port = full.getsockname()[1]
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:  # fill the queue, so that further connections hang
        each.setblocking(False)
        each.connect_ex(("127.0.0.1", port))
    begin = time.monotonic()
    with pytest.raises(OSError, match=r"timed out|within"):
        connected("127.0.0.1", port, 0.5)
    assert 0.4 < time.monotonic() - begin < 3
    for each in (*waiting, full):
        each.close()


@pytest.mark.parametrize("host", ["a..b", "x" * 70, "\udcff", ""])
def test_what_is_no_host_name_is_an_error_of_the_network(host):
    with pytest.raises(OSError):
        connected(host, 1, 5.0)
