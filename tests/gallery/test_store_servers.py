"""What only the galleries on servers have to deal with: lost connections, secrets in URIs, missing packages."""

import sys
import time

import pytest

from reid_edge.errors import MissingExtraError, SettingsError, StoreError
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.base import AuditEntry
from reid_edge.redaction import hidden, without_passwords
from tests.gallery.stores import DIM, MODEL, NOON, record, start, unit


@pytest.fixture
def store(engines):
    postgresql = engines("postgresql")
    uri = postgresql.uri()
    store = open_store(uri)
    store.accept_model(MODEL, DIM, now_us=NOON)
    yield store
    store.close()
    postgresql.give_back(uri)


def other_connection(store):
    import psycopg

    return psycopg.connect(store._uri, autocommit=True)


def test_the_audit_in_postgresql_can_only_be_added_to(store):
    import psycopg

    store.audit_append(AuditEntry(at_us=1, user="ann", action="search", purpose="why", detail={}))
    with other_connection(store) as other:
        for statement in ("DELETE FROM", "TRUNCATE", "UPDATE"):
            suffix = " SET purpose = 'none'" if statement == "UPDATE" else ""
            with pytest.raises(psycopg.errors.RaiseException, match="only be added to"):
                other.execute(f"{statement} reid_edge.audit{suffix}")
    assert store.audit_entries(5)[0].purpose == "why"


def test_a_lost_connection_is_an_error_once_and_then_made_again(store):
    store.add([record(1)])
    with other_connection(store) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid()"
        )
    with pytest.raises(StoreError, match="cannot be used"):
        store.add([record(2)])
    assert store.add([record(2)]).stored == 1


@pytest.mark.parametrize(
    ("damage", "call"),
    [
        ("UPDATE reid_edge.models SET dim = 0", lambda store: store.models()),
        ("UPDATE reid_edge.erasures SET selection = '[1'", lambda store: store.add([record(1)])),
        ("UPDATE reid_edge.erasures SET selection = '[1]'", lambda store: store.erasures()),
    ],
)
def test_contents_that_nobody_wrote_so_are_errors_that_say_what_to_do(store, damage, call):
    store.erase(Selection(cameras=("yard",)), now_us=NOON)
    with other_connection(store) as other:
        other.execute(damage)
    with pytest.raises(StoreError, match=r"something else than was written.*restore BACKUP"):
        call(store)


@pytest.mark.parametrize("body", ["x", [1], {"id": 5}, None])
def test_contents_of_milvus_that_nobody_wrote_so_are_errors_that_say_what_to_do(engines, body):
    milvus = engines("milvus")
    uri = milvus.uri()
    store = open_store(uri)
    store._meta.put("erasure", "damaged", body)
    with pytest.raises(StoreError, match=r"something else than was written.*restore BACKUP"):
        store.erasures()
    store.close()
    milvus.give_back(uri)


def test_commits_in_postgresql_are_durable(store):
    assert store._connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_a_gallery_of_a_later_release_is_refused(store):
    with other_connection(store) as other:
        other.execute("UPDATE reid_edge.settings SET value = '99' WHERE name = 'schema_version'")
    with pytest.raises(StoreError, match=r"format 99.*Upgrade"):
        open_store(store._uri)


def test_passwords_are_not_shown():
    pytest.importorskip("psycopg")
    uri = "postgresql://ann:secret@db.example:5433/people?sslmode=verify-full&password=secret&host=/run/pg"
    assert without_passwords(uri) == "postgresql://ann@db.example:5433/people?sslmode=verify-full&host=/run/pg"
    with pytest.raises(StoreError) as caught:
        open_store("postgresql://ann:secret@127.0.0.1:1/people?connect_timeout=1")
    assert "secret" not in str(caught.value)
    assert "ann@127.0.0.1" in str(caught.value)


ODD = ["S3CRET#x", "S3CRET?x", "S3 CRET", "S3%CRET", "S3/CRET", "S3@CRET", "S3:CRET", "12/S3CRET", "%53%33CRET"]


@pytest.mark.parametrize("password", ODD)
@pytest.mark.parametrize(
    "store", ["postgresql://me:{}@127.0.0.1:1/reid", "POSTGRESQL://me:{}@h/reid", "milvus:http://u:{}@127.0.0.1:1"]
)
def test_no_odd_password_is_in_an_error(monkeypatch, store, password):
    pytest.importorskip("psycopg")
    if "milvus" in store:
        pytest.importorskip("pymilvus")
        monkeypatch.setattr("reid_edge.gallery.store.milvus_client.TIMEOUT_S", 1)
    with pytest.raises((StoreError, SettingsError)) as caught:
        open_store(store.format(password), create=False)
    assert "CRET" not in str(caught.value)
    assert "S3" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:S3CRET#x@h:1/reid", "postgresql://me@h:1/reid"),
        ("postgresql://me:a/b@c?d@h/reid", "postgresql://me@h/reid"),
        ("postgresql://me:S3CRET/reid", "postgresql://me"),
        ("postgresql://me@h:5432/reid?sslmode=require", "postgresql://me@h:5432/reid?sslmode=require"),
        ("postgresql://[::1]:5432/reid", "postgresql://[::1]:5432/reid"),
        ("postgresql:///reid?sslpassword=a%20b&host=/run", "postgresql:///reid?host=/run"),
        ("http://h:19530/reid", "http://h:19530/reid"),
        ("gallery.db", "gallery.db"),
    ],
)
def test_an_address_is_shown_without_its_password(uri, shown):
    assert without_passwords(uri) == shown


def test_what_a_driver_quotes_of_a_password_is_hidden():
    uri = "postgresql://me:12/S3 CRET@h/reid"
    text = hidden(
        'port "12" of "h": invalid token "CRET", database "S3 CRET" in "postgresql://me:12/S3 CRET@h/reid"', uri
    )
    assert text == 'port "***" of "h": invalid token "***", database "***" in "postgresql://me@h/reid"'


def test_a_milvus_lite_file_is_a_gallery_too(tmp_path):
    pytest.importorskip("milvus_lite")
    uri = f"milvus:{tmp_path / 'gallery.db'}"
    store = open_store(uri)
    store.accept_model(MODEL, DIM, now_us=NOON)
    store.add([record(1), record(2)])
    found = store.search(unit(DIM, seed=2), model_hash=MODEL, selection=Selection(), top=5)
    assert [match.entry.seq for match in found] == [2, 1]
    store.close()
    again = open_store(uri, create=False)
    assert again.span(Selection()).observations == 2
    again.close()


def test_a_milvus_that_was_killed_has_kept_all_and_is_used_again(tmp_path):
    engine = start("milvus", tmp_path)
    store = open_store(engine.uri())
    store.accept_model(MODEL, DIM, now_us=NOON)
    store.add([record(1), record(2)])
    engine.kill_and_start_again()
    with pytest.raises(StoreError, match="cannot be used"):
        store.add([record(3)])
    assert store.add([record(2), record(3)]).stored == 1
    assert store.span(Selection()).observations == 3
    store.close()
    engine.close()


def test_a_milvus_that_does_not_answer_is_an_error_in_time_and_is_used_again(tmp_path, monkeypatch):
    engine = start("milvus", tmp_path)
    monkeypatch.setattr("reid_edge.gallery.store.milvus_client.TIMEOUT_S", 2)
    store = open_store(engine.uri())
    store.accept_model(MODEL, DIM, now_us=NOON)
    engine.freeze()
    start_s = time.monotonic()
    with pytest.raises(StoreError, match="cannot be used"):
        store.add([record(1)])
    assert time.monotonic() - start_s < 20
    engine.thaw()
    assert store.add([record(1)]).stored == 1
    store._client.within(0)
    with pytest.raises(StoreError, match="all together"):
        store._client.count("reid_edge_meta", "at_us >= 0")
    assert store.add([record(2)]).stored == 1
    store.close()
    engine.close()


def test_a_connection_to_milvus_is_its_own_and_sends_no_pings_while_no_call_waits(engines, monkeypatch):
    import grpc

    uri = engines("milvus").uri()
    channels = []
    connect = grpc.insecure_channel

    def recorded(address, options):
        channels.append(dict(options))
        return connect(address, options)

    monkeypatch.setattr(grpc, "insecure_channel", recorded)
    open_store(uri).close()
    assert channels
    for options in channels:
        # Milvus Lite ends a connection with the error "Too many pings" after 30 s of them.
        assert options["grpc.keepalive_permit_without_calls"] == 0
        # Else the channel that is made after an error is given the connection that has just failed.
        assert options["grpc.use_local_subchannel_pool"] == 1


def test_an_unreachable_milvus_is_an_error_soon():
    pytest.importorskip("pymilvus")
    with pytest.raises(StoreError, match="cannot be used"):
        open_store("milvus:http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("uri", "package", "extra"),
    [
        ("postgresql://localhost/people", "psycopg", "postgresql"),
        ("milvus:http://localhost:19530", "pymilvus", "milvus"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, uri, package, extra):
    for module in ("postgresql", "milvus", "milvus_client"):
        monkeypatch.delitem(sys.modules, f"reid_edge.gallery.store.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"^a gallery in") as caught:
        open_store(uri)
    assert f"pip install 'reid-edge[{extra}]'" in str(caught.value)


@pytest.mark.parametrize("uri", ["gallery.db", "mysql://localhost/people", "sqlite:", ""])
def test_another_uri_is_answered_with_those_that_there_are(uri):
    with pytest.raises(StoreError, match="sqlite:PATH, postgresql://"):
        open_store(uri)


def test_a_bare_file_name_is_answered_with_the_uri_that_was_meant():
    with pytest.raises(StoreError, match=r"Did you mean sqlite:gallery\.db"):
        open_store("gallery.db")
