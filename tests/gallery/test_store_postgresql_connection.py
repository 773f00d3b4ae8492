"""A PostgreSQL that says nothing any more: every call ends, and the next one finds another connection."""

import contextlib
import os
import random
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from reid_edge.errors import StoreError
from reid_edge.gallery.entries import Selection
from tests.gallery.stores import DIM, MODEL, NOON, record
from tests.traffic import wait_until

psycopg = pytest.importorskip("psycopg")

from reid_edge.gallery.store.postgresql import PostgresqlStore
from reid_edge.gallery.store.postgresql_connection import connect, cut_after, limited

PATIENCE_S = 1.0
NO_TLS = "sslmode=disable&others_may_read=yes"


@pytest.fixture
def uri(engines):
    postgresql = engines("postgresql")
    uri = postgresql.uri()
    yield uri
    postgresql.give_back(uri)


@pytest.fixture
def store(uri):
    store = PostgresqlStore(uri, create=True, patience_s=PATIENCE_S)
    store.accept_model(MODEL, DIM, now_us=NOON)
    yield store
    store.close()


@contextlib.contextmanager
def frozen(pid):
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def backend(store):
    """Return the number of the server's process; it is 0, which would stop this one, while the store reconnects."""
    pids = []
    wait_until(lambda: pids.append(store._connection.info.backend_pid) or pids[-1], "it is connected")
    return pids[-1]


def test_a_frozen_server_process_is_an_error_soon_and_then_another_one_serves(store):
    store.add([record(1)])
    with frozen(backend(store)):
        start = time.monotonic()
        with pytest.raises(StoreError, match="has not answered within 1 s"):
            store.add([record(2)])
        assert time.monotonic() - start < 5 * PATIENCE_S
        assert store.add([record(1), record(2)]).stored == 1  # by a new connection, while the old one is frozen
    assert store.span(Selection()).observations == 2


@pytest.mark.parametrize("call", ["models", "retention_hours"])
def test_each_call_of_a_collector_ends(store, call):
    with frozen(backend(store)), pytest.raises(StoreError, match="has not answered"):
        getattr(store, call)()
    getattr(store, call)()


def test_a_server_that_freezes_at_any_moment_loses_and_doubles_nothing(store):
    """Commit after commit, and the process that serves them is stopped after a random time, six times."""
    chance = random.Random(15)
    stored, failures, ended = [], [], threading.Event()

    def keep_storing():
        while not ended.is_set():
            try:
                store.add([record(len(stored) + 1)])
                stored.append(len(stored) + 1)
            except StoreError as error:
                failures.append(str(error))

    writer = threading.Thread(target=keep_storing)
    writer.start()
    for _ in range(6):
        time.sleep(chance.uniform(0.02, 0.07))
        with contextlib.suppress(ProcessLookupError), frozen(backend(store)):
            time.sleep(1.2 * PATIENCE_S)
    ended.set()
    writer.join(30)
    assert len(failures) >= 6
    assert store.span(Selection()).observations == len(stored) > 6


def test_a_server_that_accepts_and_says_nothing_is_an_error_soon():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(StoreError, match="timeout"):
            PostgresqlStore(f"postgresql://127.0.0.1:{port}/people?connect_timeout=2&sslmode=disable", create=False)
        assert time.monotonic() - start < 10


def test_another_call_that_does_not_end_keeps_nobody_waiting(store):
    with store._lock, frozen(backend(store)):
        errors = []

        def call():
            try:
                store.models()
            except StoreError as error:
                errors.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join(10 * PATIENCE_S)
        assert "busy with another call" in errors[0]


def test_the_server_ends_statements_and_waits_for_locks_itself(uri, store):
    db = store._connection
    for name, value in {"statement_timeout": "12s", "lock_timeout": "10s", "synchronous_commit": "on"}.items():
        assert db.execute(f"SHOW {name}").fetchone() == (value,)
    with limited(db, 600):
        assert db.execute("SHOW statement_timeout").fetchone() == ("597s",)
    assert db.execute("SHOW statement_timeout").fetchone() == ("12s",)


def test_what_ends_in_time_leaves_the_connection_as_it_was(uri):
    with connect(uri) as db:
        descriptors = open_files()
        for _ in range(20):
            with cut_after(db, 10):
                assert db.execute("SELECT 1").fetchone() == (1,)
        assert open_files() == descriptors
        with pytest.raises(psycopg.OperationalError, match=r"within 0\.2 s"), cut_after(db, 0.2):
            db.execute("SELECT pg_sleep(5)")
        assert db.closed


def test_a_store_whose_call_does_not_end_can_be_closed(store):
    with frozen(backend(store)):
        start = time.monotonic()
        store.close()
        assert time.monotonic() - start < 5


@contextlib.contextmanager
def forwarded(uri, port):
    """Lead 127.0.0.2:PORT to the socket of a database; yield the port."""
    given = psycopg.conninfo.conninfo_to_dict(uri)
    path = f"{given['host']}/.s.PGSQL.{given.get('port', 5432)}"
    with socket.create_server(("127.0.0.2", port)) as listening:

        def copy(source, target):
            with contextlib.suppress(OSError):
                while data := source.recv(1 << 16):
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)

        def serve():
            with contextlib.suppress(OSError):
                near, _ = listening.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(path)
                threading.Thread(target=copy, args=(near, far), daemon=True).start()
                copy(far, near)

        threading.Thread(target=serve, daemon=True).start()
        yield port


def uri_database(uri):
    return psycopg.conninfo.conninfo_to_dict(uri)["dbname"]


def answers(monkeypatch, *found):
    there = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in found]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: there)


def test_a_resolver_that_never_answers_is_an_error_in_time_and_holds_one_thread(monkeypatch):
    answer = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer.wait(30) and [])
    before = threading.active_count()
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(StoreError, match=r"silent\.example did not end within 2 s.*DNS"):
            PostgresqlStore(f"postgresql://silent.example/g?connect_timeout=2&{NO_TLS}", create=False)
        assert time.monotonic() - start < 4
    assert threading.active_count() == before + 1
    answer.set()


def test_a_look_up_within_libpq_is_an_error_in_time_too(monkeypatch):
    """A service's file is read by libpq alone, which then looks up the name; so does Kerberos."""
    answer = threading.Event()

    def look_up(**_):
        answer.wait(30)
        raise psycopg.OperationalError("could not translate host name")

    monkeypatch.setattr(psycopg, "connect", look_up)
    start = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match=r"within 2 s.*DNS"):
        connect(f"service=north connect_timeout=2 {NO_TLS.replace('&', ' ')}")
    assert time.monotonic() - start < 4
    answer.set()


def test_a_connection_that_comes_too_late_is_closed(uri, monkeypatch):
    go_on, late, really = threading.Event(), [], psycopg.connect

    def slow(**parameters):
        go_on.wait(30)
        late.append(really(**parameters))
        return late[0]

    monkeypatch.setattr(psycopg, "connect", slow)
    with pytest.raises(psycopg.OperationalError, match="within 2 s"):
        connect(f"{uri}&connect_timeout=2")
    go_on.set()
    wait_until(lambda: late and late[0].closed, "it is closed")


def given_to_libpq(monkeypatch, address):
    """Return the parameters with which an address is opened."""
    seen = {}

    def note(**parameters):
        seen.update(parameters)
        raise psycopg.OperationalError("enough")

    monkeypatch.setattr(psycopg, "connect", note)
    with pytest.raises(psycopg.OperationalError, match="enough"):
        connect(address)
    return {name: seen.get(name) for name in ("host", "hostaddr", "port", "connect_timeout", "sslmode")}


def test_every_address_of_a_name_has_its_share_and_the_name_stays_for_the_certificate(monkeypatch):
    answers(monkeypatch, "192.0.2.1", "192.0.2.2")
    given = given_to_libpq(monkeypatch, "postgresql://db.example:6432/g?sslrootcert=system")
    assert given == {
        "host": "db.example,db.example",
        "hostaddr": "192.0.2.1,192.0.2.2",
        "port": "6432,6432",
        "connect_timeout": 4,
        "sslmode": "verify-full",
    }


def test_several_hosts_sockets_and_addresses_keep_their_places(monkeypatch):
    answers(monkeypatch, "192.0.2.1")
    given = given_to_libpq(
        monkeypatch, f"host=db.example,/run/pg,x hostaddr=,,192.0.2.7 port=1,2,3 {NO_TLS.replace('&', ' ')}"
    )
    assert (given["host"], given["hostaddr"], given["port"]) == (
        "db.example,/run/pg,x",
        "192.0.2.1,,192.0.2.7",
        "1,2,3",
    )
    monkeypatch.setenv("PGHOST", "db.example")
    assert given_to_libpq(monkeypatch, f"dbname=g {NO_TLS.replace('&', ' ')}")["hostaddr"] == "192.0.2.1"
    assert given_to_libpq(monkeypatch, "host=/run/pg dbname=g")["hostaddr"] is None


def test_a_host_without_an_address_leaves_the_others(monkeypatch):
    def look_up(host, *_, **__):
        if host == "gone.example":
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    given = given_to_libpq(monkeypatch, f"postgresql://gone.example:1,db.example:2/g?{NO_TLS}")
    assert (given["host"], given["hostaddr"], given["port"]) == ("db.example", "192.0.2.1", "2")
    with pytest.raises(psycopg.OperationalError, match=r"gone\.example: .*not known"):
        connect(f"postgresql://gone.example/g?{NO_TLS}")


def test_an_address_that_swallows_everything_leaves_time_for_the_next(uri, monkeypatch):
    """The first address is of a server that accepts and says nothing."""
    answers(monkeypatch, "127.0.0.1", "127.0.0.2")
    given = f"{NO_TLS}&connect_timeout=6"
    start = time.monotonic()
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        forwarded(uri, silent.getsockname()[1]) as port,
        connect(f"postgresql://postgres@db.example:{port}/{uri_database(uri)}?{given}") as db,
    ):
        assert db.info.hostaddr == "127.0.0.2"
        assert time.monotonic() - start < 5  # half of the time for each


@pytest.mark.parametrize("wrong", ["soon", "inf"])
def test_a_time_limit_that_is_no_number_is_an_error(wrong):
    with pytest.raises(psycopg.ProgrammingError, match="connect_timeout"):
        connect(f"postgresql:///g?connect_timeout={wrong}")
