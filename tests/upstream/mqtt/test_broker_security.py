"""The deployed configuration on a real mosquitto: who may connect, and who may read and write what."""

import queue
import socket
import ssl
import stat

import pytest

from reid_edge.upstream.mqtt import MqttTransport
from reid_edge.upstream.tls import TlsFiles
from tests.broker import Broker, make_all_certs, make_certs, tls_files
from tests.traffic import Peer, wait_until

NOT_AUTHORISED = 0x87


@pytest.fixture(scope="module")
def broker(certs, tmp_path_factory):
    with Broker(tmp_path_factory.mktemp("broker"), certs) as broker:
        yield broker


def handshake(port: int, certs, tls: TlsFiles | None, **versions: ssl.TLSVersion) -> str:
    """The TLS version agreed on; raises what the broker or OpenSSL objects to."""
    context = ssl.create_default_context(cafile=str(certs / "ca.crt"))
    for name, version in versions.items():
        setattr(context, name, version)
    if tls:
        context.load_cert_chain(tls.cert, tls.key)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        wrapped.settimeout(10)
        # CONNECT of MQTT 5 without properties, client id "x": with TLS 1.3 only the first answer tells whether the
        # broker took the certificate.
        wrapped.sendall(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01x")
        if not wrapped.recv(4):
            raise ConnectionResetError("closed without an answer")
        return wrapped.version() or ""


def test_a_camera_connects_with_tls_1_3(broker, certs):
    assert handshake(broker.port, certs, tls_files(certs, "camA")) == "TLSv1.3"


def test_a_tls_1_2_client_cannot_connect(broker, certs):
    with pytest.raises(ssl.SSLError, match=r"(?i)version"):
        handshake(broker.port, certs, tls_files(certs, "camA"), maximum_version=ssl.TLSVersion.TLSv1_2)


def test_without_a_certificate_nobody_connects(broker, certs):
    with pytest.raises(OSError, match=r"(?i)certificate|reset|closed|EOF"):
        handshake(broker.port, certs, None)


def test_a_certificate_of_another_authority_cannot_connect(broker, certs, foreign_certs):
    with pytest.raises(OSError, match=r"(?i)alert|reset|closed|EOF"):
        handshake(broker.port, certs, tls_files(foreign_certs, "camA"))


def test_the_brokers_own_certificate_is_no_clients(broker, certs):
    with pytest.raises(OSError, match=r"(?i)alert|reset|closed|EOF"):
        handshake(broker.port, certs, tls_files(certs, "broker"))


def test_a_revoked_certificate_cannot_connect(certs_copy, tmp_path):
    certs = certs_copy
    assert make_certs(certs, "revoke", "camB").returncode == 0
    with Broker(tmp_path / "broker", certs, crl=certs / "revoked.crl") as broker:
        with pytest.raises(OSError, match=r"(?i)alert|reset|closed|EOF"):
            handshake(broker.port, certs, tls_files(certs, "camB"))
        assert handshake(broker.port, certs, tls_files(certs, "camA")) == "TLSv1.3"


def test_a_camera_publishes_its_own_observations_and_no_others(broker, certs):
    with (
        Peer(broker.port, tls_files(certs, "collector")) as collector,
        Peer(broker.port, tls_files(certs, "camA")) as camera,
    ):
        collector.subscribe("reid/v1/+/obs")
        assert camera.publish("reid/v1/camB/obs", b"forged") == NOT_AUTHORISED
        assert camera.publish("reid/v1/camA/ack", b"forged") == NOT_AUTHORISED
        assert camera.publish("reid/v1/camA/obs/more", b"forged") == NOT_AUTHORISED
        assert camera.publish("reid/v1/camA/obs", b"own") == 0
        assert collector.next_message() == ("reid/v1/camA/obs", b"own")
        assert collector.messages.empty()


@pytest.mark.parametrize("topic", ["reid/v1/camB/ack", "reid/v1/+/ack", "reid/v1/+/obs", "#", "$SYS/#"])
def test_a_camera_reads_its_own_acks_and_nothing_else(broker, certs, topic):
    """mosquitto grants the subscription and then delivers nothing: only messages can tell."""
    with (
        Peer(broker.port, tls_files(certs, "collector")) as collector,
        Peer(broker.port, tls_files(certs, "camA")) as camera,
        Peer(broker.port, tls_files(certs, "camB")) as other,
    ):
        camera.subscribe("reid/v1/camA/ack")
        camera.subscribe(topic)
        other.publish("reid/v1/camB/obs", b"of B")
        assert collector.publish("reid/v1/camB/ack", b"for B") in (0, 0x10)
        assert collector.publish("reid/v1/camA/ack", b"for A") == 0
        heard = [camera.next_message()]
        with pytest.raises(queue.Empty):
            while True:  # overlapping subscriptions may deliver it twice
                heard.append(camera.messages.get(timeout=0.1))
        assert set(heard) == {("reid/v1/camA/ack", b"for A")}


def test_nobody_takes_over_anothers_session(broker, certs):
    with (
        Peer(broker.port, tls_files(certs, "collector"), client_id="collector") as collector,
        Peer(broker.port, tls_files(certs, "camA"), client_id="collector") as camera,
    ):
        assert camera.subscribe("reid/v1/camA/ack") == 1
        assert collector.publish("reid/v1/camA/ack", b"still here") == 0
        assert camera.next_message() == ("reid/v1/camA/ack", b"still here")
        assert collector.lost.empty()


def test_a_camera_under_anothers_name_is_told_why(broker, certs):
    transport = MqttTransport(broker.uri, camera="camB", tls=tls_files(certs, "camA"))
    try:
        transport.send(b"batch")
        wait_until(lambda: transport.backoff.alerts == 1, "the broker had refused the batch")
        assert "access list" in transport.backoff.reason
        assert not transport.connected
    finally:
        transport.close()


def test_keys_are_for_their_owner_alone(certs):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in certs.iterdir()}
    assert {modes[name] for name in modes if name.endswith(".key")} == {0o600}
    assert {modes[name] for name in modes if name.endswith(".crt")} == {0o644}
    assert not [name for name in modes if name.startswith(".making")]


def test_certificates_that_are_there_are_kept(certs_copy):
    certs = certs_copy
    before = {path.name: path.read_bytes() for path in certs.iterdir()}
    again = make_certs(certs, "camera", "camA", "camC")
    assert again.returncode == 0
    assert "kept" in again.stdout
    assert "made" in again.stdout
    make_all_certs(certs)
    after = {path.name: path.read_bytes() for path in certs.iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"camC.crt", "camC.key"}


def test_half_a_pair_is_left_for_a_person(certs_copy):
    certs = certs_copy
    (certs / "camA.crt").unlink()
    done = make_certs(certs, "camera", "camA")
    assert done.returncode != 0
    assert "only one of" in done.stderr
    assert not (certs / "camA.crt").exists()


@pytest.mark.parametrize(
    "name", ["collector", "collector-2", "broker", "gallery", "ca", "a/b", "+", "#", "-x", "a b", "", "x" * 65]
)
def test_a_camera_cannot_have_the_name_of_a_role_or_a_wildcard(certs, name):
    before = sorted(certs.iterdir())
    assert make_certs(certs, "camera", name).returncode != 0
    assert sorted(certs.iterdir()) == before
