"""Where a gallery's database is reached: verified TLS, this machine, or words that own the risk.

That nothing leaves is looked at from the other end: a server that says, as libpq allows, that it has no TLS.
"""

import contextlib
import logging
import ssl

import pytest

from reid_edge.camera.publishing import open_transport
from reid_edge.camera.settings import parse_settings
from reid_edge.errors import SettingsError, StoreError
from reid_edge.gallery.store import open_store
from tests.broker import make_certs
from tests.faults.hostile import Conversation, HostileServer

psycopg = pytest.importorskip("psycopg")
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"

from reid_edge.gallery.store.postgresql_connection import verified


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch, tmp_path):
    for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


REMOTE = [
    "postgresql://u@192.0.2.9/g",
    "postgres://u:S3CRET@db.example:6432/g",
    "postgresql://u@localhost,192.0.2.9/g",
    "postgresql://u@192.0.2.9:1,127.0.0.1:2/g",
    "postgresql://u@localhost/g?hostaddr=192.0.2.9",
    "postgresql:///g?host=192.0.2.9",
    "postgresql://u@[2001:db8::1]/g",
    "postgresql:///g?service=north",
    "postgresql://localhost/g?service=north",
    "postgresql://u@127.0.0.1.example/g",
    "postgresql://u@0.0.0.0/g",
    "host=192.0.2.9 dbname=g password=S3CRET",
    "host='192.0.2.9' hostaddr=192.0.2.9",
    "service=north",
]
LOCAL = [
    "postgresql://u@127.0.0.1/g",
    "postgresql://u@[::1]:5433/g",
    "postgresql://LOCALHOST/g",
    "postgresql:///g",
    "postgresql://u@/g",
    "postgresql:///g?host=/run/postgresql",
    "postgresql://%2Frun%2Fpostgresql/g",
    "postgresql://localhost,127.0.0.2/g",
    "postgresql://db.example/g?hostaddr=127.0.0.1",
    "host=@abstract dbname=g",
    "dbname=g",
]


@pytest.mark.parametrize("uri", REMOTE)
def test_a_database_elsewhere_has_to_prove_its_name(uri):
    joint = "&" if "?" in uri else "?" if "://" in uri else " "
    assert verified(f"{uri}{joint}sslrootcert=system")["sslmode"] == "verify-full"
    for mode in ("disable", "allow", "prefer", "require", "verify-ca"):
        with pytest.raises(SettingsError, match=f"sslmode={mode}.*others_may_read=yes") as caught:
            verified(f"{uri}{joint}sslmode={mode}")
        assert "S3CRET" not in str(caught.value)
        given = verified(f"{uri}{joint}sslmode={mode}&others_may_read=yes".replace("&", "&" if "://" in uri else " "))
        assert given["sslmode"] == mode


@pytest.mark.parametrize("uri", LOCAL)
def test_a_database_on_this_machine_needs_nothing(uri, monkeypatch):
    assert "sslmode" not in verified(uri)
    if "host" not in uri and ("///" in uri or "@/" in uri or "://" not in uri):
        monkeypatch.setenv("PGHOST", "192.0.2.9")
        with pytest.raises(SettingsError, match="prove its name"):
            verified(uri)
        monkeypatch.setenv("PGHOST", "/run/postgresql")
        assert "sslmode" not in verified(uri)
    monkeypatch.setenv("PGSERVICE", "north")
    assert verified(uri)["sslmode"] == "verify-full"


def test_what_the_environment_says_of_tls_does_not_count(monkeypatch):
    monkeypatch.setenv("PGSSLMODE", "disable")
    with pytest.raises(SettingsError, match=r"there is no ~/\.postgresql/root\.crt.*sslrootcert=system"):
        verified("postgresql://192.0.2.9/g")
    monkeypatch.setenv("PGHOSTADDR", "192.0.2.9")
    with pytest.raises(SettingsError, match="prove its name"):
        verified("postgresql://localhost/g")


def test_the_words_alone_change_nothing(caplog):
    given = verified("postgresql://192.0.2.9/g?others_may_read=yes&sslrootcert=system")
    assert given == {"host": "192.0.2.9", "dbname": "g", "sslrootcert": "system", "sslmode": "verify-full"}
    assert not caplog.records
    for words in ("others_may_read=no", "others_may_read", "xothers_may_read=yes"):
        with pytest.raises((SettingsError, psycopg.Error)):
            verified(f"postgresql://192.0.2.9/g?sslmode=disable&{words}")


def test_somebody_who_owns_the_risk_is_warned(caplog):
    with caplog.at_level(logging.WARNING):
        verified("postgresql://u:S3CRET@192.0.2.9/g?sslmode=require&others_may_read=yes")
    assert "others on the network may read and alter" in caplog.text
    assert "S3CRET" not in caplog.text


def no_tls(peer: Conversation) -> None:
    """Say that there is no TLS, then go along with anything."""
    while len(peer.received) < 8:
        peer.listen(0.01)
    peer.send(b"N")


def with_certificate(context: ssl.SSLContext):
    def talk(peer: Conversation) -> None:
        while len(peer.received) < 8:
            peer.listen(0.01)
        peer.send(b"S")
        peer._connection.settimeout(5)
        peer._connection = context.wrap_socket(peer._connection, server_side=True)
        peer.received = b""
        peer._connection.settimeout(0.05)

    return talk


def service(monkeypatch, tmp_path, port: int) -> str:
    """An address that leads to loopback through a file, so that it counts as elsewhere."""
    file = tmp_path / "services"
    file.write_text(f"[north]\nhost=localhost\nport={port}\nuser=ann\npassword=S3CRET\ndbname=g\nsslmode=disable\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    return "postgresql:///?service=north"


def test_no_byte_leaves_to_a_server_that_says_it_has_no_tls(monkeypatch, tmp_path):
    with HostileServer(no_tls) as server:
        uri = service(monkeypatch, tmp_path, server.port)
        with pytest.raises(StoreError, match="SSL"):
            open_store(f"{uri}&sslrootcert=system", create=True)
        assert server.conversations
        assert all(peer.received == SSL_REQUEST for peer in server.conversations)


def test_no_byte_leaves_to_a_server_of_another_authority_or_name(monkeypatch, tmp_path):
    own, foreign = tmp_path / "own", tmp_path / "foreign"
    for folder, host in ((own, "elsewhere.example"), (foreign, "localhost")):
        for arguments in (["ca"], ["broker", host]):
            assert make_certs(folder, *arguments).returncode == 0
    for folder, words in ((foreign, "certificate verify failed"), (own, "elsewhere.example.*does not match host name")):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "broker.crt", folder / "broker.key")
        with HostileServer(with_certificate(context)) as server:
            uri = service(monkeypatch, tmp_path, server.port)
            with pytest.raises(StoreError, match=words):
                open_store(f"{uri}&sslrootcert={own / 'ca.crt'}", create=True)
            assert server.conversations
            assert all(peer.received in (SSL_REQUEST, b"") for peer in server.conversations)


@pytest.mark.parametrize(
    "uri",
    [
        "milvus:http://192.0.2.9:19530",
        "milvus:HTTP://u:S3CRET@milvus.example",
        "milvus:tcp://192.0.2.9:19530",
        "milvus:http://127.0.0.1.example:19530",
        "milvus:http://[::1",
    ],
)
def test_a_milvus_elsewhere_is_reached_by_https(uri):
    pytest.importorskip("pymilvus")
    with pytest.raises(SettingsError, match=r"https://.*others_may_read=yes") as caught:
        open_store(uri)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "opened"),
    [
        ("http://127.0.0.1:19530", "http://127.0.0.1:19530"),
        ("http://192.0.2.9:19530?others_may_read=yes", "http://192.0.2.9:19530"),
        ("https://milvus.example/db", "https://milvus.example/db"),
        ("gallery.db", "gallery.db"),
        ("unix:///run/milvus", "unix:///run/milvus"),
    ],
)
def test_what_milvus_is_given(address, opened):
    pytest.importorskip("pymilvus")
    from reid_edge.gallery.store.milvus_client import _verified

    assert _verified(address) == opened


@pytest.mark.parametrize(
    "uri",
    [
        "mqtt://192.0.2.9",
        "http://192.0.2.9",
        "postgresql://gallery@192.0.2.9/reid?connect_timeout=2",
        "postgresql://gallery@192.0.2.9/reid?sslmode=require",
        "milvus:http://192.0.2.9:19530",
    ],
)
def test_a_camera_does_not_start_with_an_address_that_others_can_read(uri):
    pytest.importorskip("pymilvus")
    tables = {"source": {"uri": "x"}, "engine": {"bundle": "x"}, "upstream": {"uri": uri, "insecure": True}}
    with contextlib.ExitStack() as closing, pytest.raises(SettingsError):
        open_transport(parse_settings(tables), "gate", closing)
