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

psycopg = pytest.importorskip("psycopg")

from reid_edge.gallery.store.postgresql import PostgresqlStore
from reid_edge.gallery.store.postgresql_connection import connect, cut_after, limited

PATIENCE_S = 1.0


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
    return store._connection.info.backend_pid


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
