"""The camera's MQTT transport, against a real mosquitto, and against a script that does what mosquitto never does."""

import contextlib
import logging
import re
import resource
import shutil
import socket
import threading
from functools import partial
from pathlib import Path

import pytest

from reid_edge.errors import SettingsError, TransportError
from reid_edge.upstream.http import HttpTransport
from reid_edge.upstream.mqtt import MqttTransport
from tests.broker import Broker, make_certs, tls_files
from tests.traffic import Peer, ack, batch, next_acks, wait_until

FAST = (0.02, 0.2)


@pytest.fixture
def impatient(monkeypatch):
    """Within it, a batch that cannot be sent is refused at once, and closing does not wait for the broker."""

    @contextlib.contextmanager
    def waits():
        with monkeypatch.context() as patch:
            patch.setattr("reid_edge.upstream.mqtt.transport._SEND_TIMEOUT_S", 0.05)
            patch.setattr("reid_edge.upstream.mqtt.link._FLUSH_S", 0.05)
            yield

    return waits


@pytest.fixture
def transport_to(certs):
    opened = []

    def open_transport(broker: Broker, camera: str = "camA", **options) -> MqttTransport:
        tls = tls_files(certs, camera) if broker.uri.startswith("mqtts") else None
        opened.append(MqttTransport(broker.uri, camera=camera, tls=tls, insecure=not tls, backoff_s=FAST, **options))
        return opened[-1]

    yield open_transport
    for each in opened:
        each.close()


def test_a_batch_goes_out_and_its_ack_comes_back(certs, tmp_path, transport_to):
    with Broker(tmp_path, certs) as broker, Peer(broker.port, tls_files(certs, "collector")) as gallery:
        gallery.subscribe("$share/gallery/reid/v1/+/obs")
        transport = transport_to(broker)
        sent = batch("camA", 1, 2)
        transport.send(sent)
        assert gallery.next_message() == ("reid/v1/camA/obs", sent)
        gallery.publish("reid/v1/camA/ack", ack("camA", 1, 2))
        assert next_acks(transport)[0].seqs == (1, 2)
        assert transport.connected
        assert transport.name == broker.uri


def test_without_a_collector_it_backs_off_until_one_is_there(tmp_path, transport_to, caplog):
    with Broker(tmp_path) as broker:
        transport = transport_to(broker)
        transport.send(b"into the void")
        wait_until(lambda: transport.backoff.failures, "the broker said that nobody listens")
        assert not transport.connected
        assert "no collector" in transport.backoff.reason

        def refused_at_once() -> bool:
            try:
                transport.send(b"into the void")
            except TransportError as error:
                return "no collector" in str(error)
            return False

        wait_until(refused_at_once, "sending was held back")
        with Peer(broker.port) as gallery:
            gallery.subscribe("$share/gallery/reid/v1/+/obs")

            def accepted() -> bool:
                try:
                    transport.send(b"heard")
                except TransportError:
                    return False
                return True

            wait_until(accepted, "sending was tried again")
            assert gallery.next_message() == ("reid/v1/camA/obs", b"heard")
            wait_until(lambda: transport.connected, "the broker had accepted")
    assert transport.backoff.alerts == 0
    assert len([record for record in caplog.records if "no collector" in record.message]) == 1


def test_it_waits_for_a_broker_and_comes_back_after_each_loss(tmp_path, transport_to, impatient):
    broker = Broker(tmp_path)
    transport = transport_to(broker)
    with impatient(), pytest.raises(TransportError, match="not connected"):
        transport.send(b"nobody there")
    for life in range(1, 4):
        with broker:
            wait_until(lambda life=life: transport.link.connects == life, "it was connected")
            with Peer(broker.port) as gallery:
                gallery.subscribe("reid/v1/+/obs")
                transport.send(b"batch")
                assert gallery.next_message()[1] == b"batch"
                # Only if it has subscribed again in this life:
                gallery.publish("reid/v1/camA/ack", ack("camA", life))
                assert next_acks(transport)[0].seqs == (life,)
            broker.kill()
            wait_until(lambda: not transport.connected, "the loss was seen")


def test_what_a_lost_connection_held_is_not_sent_again(tmp_path, transport_to):
    """The outbox sends again; paho must not do so too."""
    broker = Broker(tmp_path)
    with broker:
        transport = transport_to(broker)
        with Peer(broker.port) as gallery:
            gallery.subscribe("reid/v1/+/obs")
            wait_until(lambda: transport.connected, "it was connected")
            broker.freeze()
            for _ in range(5):
                transport.send(b"lost")
        broker.kill()
    with broker, Peer(broker.port) as gallery:
        gallery.subscribe("reid/v1/+/obs")
        wait_until(lambda: transport.link.connects == 2, "it was connected again")
        assert transport.losses == 1
        transport.send(b"new")
        assert gallery.next_message()[1] == b"new"


def test_no_more_is_in_flight_than_the_broker_announced(tmp_path, transport_to, impatient):
    with Broker(tmp_path, options={"max_inflight_messages": "3"}) as broker:
        transport = transport_to(broker, window=64)
        wait_until(lambda: transport.connected, "it was connected")
        broker.freeze()
        for _ in range(3):
            transport.send(b"batch")
        with impatient(), pytest.raises(TransportError, match="confirm"):
            transport.send(b"one too many")
        broker.thaw()
        wait_until(lambda: transport.backoff.failures == 3, "the broker had answered all")


def test_no_more_is_in_flight_than_the_own_window(tmp_path, transport_to, impatient):
    with Broker(tmp_path) as broker:
        transport = transport_to(broker, window=2)
        wait_until(lambda: transport.connected, "it was connected")
        broker.freeze()
        transport.send(b"batch")
        transport.send(b"batch")
        with impatient(), pytest.raises(TransportError, match="confirm"):
            transport.send(b"one too many")
        broker.thaw()


def test_a_batch_that_the_broker_would_not_take_is_not_sent(tmp_path, transport_to):
    """mosquitto would end the connection, and with it everything in flight."""
    with Broker(tmp_path, options={"max_packet_size": "10000"}) as broker, Peer(broker.port) as gallery:
        gallery.subscribe("reid/v1/+/obs")
        transport = transport_to(broker)
        with pytest.raises(TransportError, match="max_packet_size"):
            transport.send(bytes(10_000))
        transport.send(bytes(9_000))
        assert len(gallery.next_message()[1]) == 9_000
        assert transport.link.connects == 1


def test_a_broker_that_is_not_the_named_one_is_refused(tmp_path, caplog):
    elsewhere = tmp_path / "certs"
    for arguments in (["ca"], ["broker", "elsewhere.example"], ["camera", "camA"]):
        assert make_certs(elsewhere, *arguments).returncode == 0
    with Broker(tmp_path / "broker", elsewhere) as broker:
        transport = MqttTransport(broker.uri, camera="camA", tls=tls_files(elsewhere, "camA"))
        wait_until(lambda: transport.link.backoff.alerts == 1, "the certificate was refused")
        transport.close()
    assert "not valid for 'localhost'" in transport.link.backoff.reason
    assert "compare tls.ca, the host's name in the address" in transport.link.backoff.reason
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_camera_whose_certificate_the_broker_refuses_says_so(certs, foreign_certs, tmp_path):
    files = tls_files(foreign_certs, "camA")
    with Broker(tmp_path / "broker", certs) as broker:
        # It trusts the broker's authority, which does not trust the camera's.
        trusting = type(files)(ca=certs / "ca.crt", cert=files.cert, key=files.key)
        transport = MqttTransport(broker.uri, camera="camA", tls=trusting)
        wait_until(lambda: transport.link.backoff.reason, "the broker had refused the certificate")
        transport.close()
    assert "the broker does not accept this certificate: it is of another authority" in transport.link.backoff.reason


def test_renewed_certificates_are_used_from_the_next_connection_on(certs, foreign_certs, tmp_path):
    own = shutil.copytree(foreign_certs, tmp_path / "own")
    (own / "ca.crt").write_bytes((certs / "ca.crt").read_bytes())
    with Broker(tmp_path / "broker", certs) as broker:
        transport = MqttTransport(broker.uri, camera="camA", tls=tls_files(own, "camA"))
        wait_until(lambda: transport.link.backoff.reason, "the broker had refused the certificate")
        for name in ("camA.crt", "camA.key"):
            (own / name).write_bytes((certs / name).read_bytes())
        wait_until(lambda: transport.link.retry_now() or transport.link.connected, "the renewed certificate was used")
        transport.close()


def test_nothing_is_sent_before_the_ack_topic_is_granted(scripted_server, impatient):
    transport = MqttTransport(scripted_server.uri, camera="camA", insecure=True)
    try:
        subscribe = scripted_server.accept_until_subscribe()
        with impatient(), pytest.raises(TransportError, match="not connected"):
            transport.send(b"too early")
        scripted_server.grant(subscribe, 1)
        transport.send(b"in time")
        packet = scripted_server.packet()
        assert packet[0] & 0xF0 == 0x30
        assert packet.endswith(b"in time")
    finally:
        with impatient():  # nobody confirms
            transport.close()


def test_a_refused_subscription_is_an_alert(scripted_server):
    transport = MqttTransport(scripted_server.uri, camera="camA", insecure=True)
    try:
        scripted_server.grant(scripted_server.accept_until_subscribe(), 0x87)
        wait_until(lambda: transport.link.backoff.alerts == 1, "the refusal was seen")
        assert "reid/v1/camA/ack" in transport.link.backoff.reason
    finally:
        transport.close()


def test_a_server_that_talks_nonsense_does_not_end_the_transport(scripted_server):
    transport = MqttTransport(scripted_server.uri, camera="camA", insecure=True, backoff_s=FAST)
    try:
        for nonsense in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x20\x02\x00",
            b"\x20\x03\x00\x00\xff",
            b"\x90\x01\x00",
        ):
            scripted_server.accept()
            scripted_server.send(nonsense)
            scripted_server.hang_up()
        scripted_server.grant(scripted_server.accept_until_subscribe(), 1)
        wait_until(lambda: transport.connected, "it was connected")
    finally:
        transport.close()


def test_closing_wakes_who_waits_for_acks(tmp_path, transport_to, impatient):
    with Broker(tmp_path) as broker:
        transport = transport_to(broker)
        waiting = threading.Thread(target=transport.acks, args=(60.0,))
        waiting.start()
        transport.close()
        waiting.join(timeout=10)
        assert not waiting.is_alive()
        with impatient(), pytest.raises(TransportError):
            transport.send(b"closed")


def test_connections_leave_nothing_open(tmp_path, transport_to):
    with Broker(tmp_path) as broker:
        transport = transport_to(broker)
        wait_until(lambda: transport.link.connects >= 1, "it was connected")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            count = transport.link.connects
            transport.link.leave(0.001)
            wait_until(lambda count=count: transport.link.connects > count, "it was connected again")
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_it_works_in_a_process_with_more_than_1024_open_files(certs, tmp_path, transport_to):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    try:
        with contextlib.ExitStack() as stack:
            while stack.enter_context(Path("/dev/null").open("rb")).fileno() < 1100:
                pass
            with Broker(tmp_path, certs) as broker:
                transport = transport_to(broker)
                wait_until(lambda: transport.connected, "it was connected")
                transport.send(b"batch")
                wait_until(lambda: transport.backoff.failures, "the broker had answered")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("uri", "insecure", "message"),
    [
        ("mqtt://127.0.0.1:1883", False, "--insecure"),
        ("mqtt://10.0.0.1:1883", True, "unencrypted"),
        ("mqtt://broker.example", True, "unencrypted"),
        ("mqtts://broker.example", False, "certificates"),
        ("https://broker.example", False, "mqtts://HOST"),
        ("mqtts://user:word@broker.example", False, "mqtts://HOST"),
        ("mqtts://broker.example/path", False, "mqtts://HOST"),
        ("mqtts://broker.example:99999", False, "is not an address"),
        ("broker.example:8883", False, "mqtts://HOST"),
    ],
)
def test_an_address_that_is_not_safe_is_refused(uri, insecure, message):
    with pytest.raises(SettingsError, match=message):
        MqttTransport(uri, camera="camA", insecure=insecure)


@pytest.mark.parametrize(
    "userinfo",
    [
        *("u:S3CRET@", ":S3CRET@", "S3CRET@", "u:S3CRET/x@", "u:S3CRET?x#@", "u:S3CRET@x@", "u:[S3CRET@"),
        *("u:S3CRET%40", "u:S3CRET\uff20", "u:S3CRET\n@", "//S3CRET@", "u:S3CRET\u2100@"),
    ],
)
@pytest.mark.parametrize("scheme", ["mqtt://", "mqtts://", "https://", "http://", "", "ftp://", "mqtt:"])
def test_no_message_repeats_a_password(userinfo, scheme):
    uri = f"{scheme}{userinfo}127.0.0.1:1"
    for make in (partial(MqttTransport, camera="camA"), HttpTransport):
        with pytest.raises(SettingsError, match=r"127\.0\.0\.1:1") as caught:
            make(uri, insecure=True)
        assert "S3CRET" not in str(caught.value)
        assert caught.value.__context__ is None


def test_a_failure_to_connect_names_the_broker_once(tmp_path, transport_to, impatient):
    transport = transport_to(Broker(tmp_path))
    wait_until(lambda: transport.link.backoff.reason, "connecting had failed")
    with impatient(), pytest.raises(TransportError) as caught:
        transport.send(b"batch")
    assert str(caught.value).count(transport.name) == 1
    assert re.search(r"refused\.$", str(caught.value))


def test_certificates_that_do_not_fit_are_refused_at_once(certs, tmp_path):
    files = tls_files(certs, "camA")
    mixed = type(files)(ca=files.ca, cert=files.cert, key=certs / "camB.key")
    with pytest.raises(SettingsError, match="belong together"):
        MqttTransport("mqtts://localhost", camera="camA", tls=mixed)
    missing = type(files)(ca=files.ca, cert=files.cert, key=tmp_path / "no.key")
    with pytest.raises(SettingsError, match=r"no\.key"):
        MqttTransport("mqtts://localhost", camera="camA", tls=missing)
    no_pem = type(files)(ca=tmp_path / "ca.txt", cert=files.cert, key=files.key)
    no_pem.ca.write_text("no certificate", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"ca\.txt"):
        MqttTransport("mqtts://localhost", camera="camA", tls=no_pem)


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "x" * 65, "..", "-a"])
def test_a_name_that_cannot_be_in_a_topic_is_refused(name):
    with pytest.raises(SettingsError, match="camera must be"):
        MqttTransport("mqtt://127.0.0.1", camera=name, insecure=True)


class ScriptedServer:
    """Sends what a test says, byte by byte."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(20)
        self.uri = f"mqtt://127.0.0.1:{self._listener.getsockname()[1]}"

    def accept(self) -> None:
        self._connection = self._listener.accept()[0]
        self._connection.settimeout(20)
        assert self.packet()[0] == 0x10

    def accept_until_subscribe(self) -> bytes:
        self.accept()
        self.send(b"\x20\x03\x00\x00\x00")
        subscribe = self.packet()
        assert subscribe[0] == 0x82
        return subscribe

    def grant(self, subscribe: bytes, code: int) -> None:
        self.send(b"\x90\x04" + subscribe[2:4] + b"\x00" + bytes([code]))

    def packet(self) -> bytes:
        head = self._exactly(2)
        assert head[1] < 128, "longer than these tests send"
        return head + self._exactly(head[1])

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def hang_up(self) -> None:
        self._connection.close()

    def close(self) -> None:
        self._listener.close()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._connection.recv(count - len(data))
            assert part, "the client hung up"
            data += part
        return data


@pytest.fixture
def scripted_server():
    server = ScriptedServer()
    yield server
    server.close()
