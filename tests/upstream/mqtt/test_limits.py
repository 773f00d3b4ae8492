"""What a broker announces or does not take, and what it may not make a camera do: with mosquitto, and a hostile one."""

import contextlib
import logging
import re
import threading
import time
from pathlib import Path

import pytest

from reid_edge.errors import BatchTooLargeError, TransportError
from reid_edge.upstream.mqtt import MqttTransport, session
from reid_edge.upstream.mqtt.trouble import Rivalry, SilentSizeLimit
from tests.broker import Broker, tls_files
from tests.faults.hostile import Conversation, HostileServer, Talk, say_nothing, trickle
from tests.traffic import Peer, wait_until

FAST = (0.02, 0.2)
PUBLISH, PINGREQ = 0x30, 0xC0


@contextlib.contextmanager
def transport(uri: str, camera: str = "camA", **options):
    opened = MqttTransport(uri, camera=camera, insecure=True, backoff_s=FAST, **options)
    try:
        yield opened
    finally:
        opened.close()


def sent_or_not(sending: MqttTransport, size: int) -> bool:
    try:
        sending.send(bytes(size))
    except TransportError:
        return False
    return True


@pytest.mark.parametrize("announced", [6000, 300])
def test_the_largest_batch_is_what_the_broker_announced_to_the_byte(tmp_path, announced):
    with (
        Broker(tmp_path, options={"max_packet_size": f"{announced}"}) as broker,
        Peer(broker.port) as gallery,
        transport(broker.uri) as sending,
    ):
        gallery.subscribe("reid/v1/+/obs")
        wait_until(lambda: sending.connected, "it was connected")
        most = sending.max_batch_bytes
        assert announced - 40 < most < announced
        sending.send(bytes(most))
        assert len(gallery.next_message()[1]) == most
        with pytest.raises(BatchTooLargeError, match=f"larger than the {most}"):
            sending.send(bytes(most + 1))
        assert sending.link.connects == 1
        assert sending.backoff.reason == ""


def test_a_broker_whose_limit_is_below_everything_is_told_and_nothing_is_sent(tmp_path):
    with Broker(tmp_path, options={"max_packet_size": "60"}) as broker, transport(broker.uri) as sending:
        wait_until(lambda: sending.max_batch_bytes < 60, "the limit was announced")
        with pytest.raises(BatchTooLargeError):
            sending.send(bytes(60))
        assert sending.link.connects == 1


def test_another_limit_after_the_next_connection_is_obeyed(tmp_path):
    broker = Broker(tmp_path, options={"max_packet_size": "50000"})
    with broker, transport(broker.uri) as sending:
        wait_until(lambda: sending.connected, "it was connected")
        assert 49_000 < sending.max_batch_bytes < 50_000
        for limit in (4_000, 80_000):
            broker.stop()
            configuration = broker.folder / "mosquitto.conf"
            text = re.sub(r"max_packet_size \d+", f"max_packet_size {limit}", configuration.read_text("utf-8"))
            configuration.write_text(text, "utf-8")
            connects = sending.link.connects
            broker.start()
            wait_until(lambda before=connects: sending.link.connects > before, "it was connected again")
            assert limit - 1000 < sending.max_batch_bytes < limit


def test_a_limit_that_is_not_announced_is_found_out(tmp_path):
    """mosquitto's message_size_limit is such a one."""
    options = {"max_packet_size": "4194304\nmessage_size_limit 20000"}
    with Broker(tmp_path, options=options) as broker, Peer(broker.port) as gallery, transport(broker.uri) as sending:
        gallery.subscribe("reid/v1/+/obs")
        wait_until(lambda: sending.connected, "it was connected")
        losses = sending.losses
        wait_until(
            lambda: sent_or_not(sending, min(72_000, sending.max_batch_bytes)) and sending.max_batch_bytes < 20_000,
            "batches were smaller",
        )
        assert sending.losses > losses, "what was in flight is not sent again"
        sending.send(bytes(sending.max_batch_bytes))
        assert 2_000 < len(gallery.next_message()[1]) < 20_000


def test_without_qos_1_batches_go_by_qos_0(tmp_path):
    with (
        Broker(tmp_path, options={"max_packet_size": "4194304\nmax_qos 0"}) as broker,
        Peer(broker.port) as gallery,
        transport(broker.uri, window=2) as sending,
    ):
        gallery.subscribe("reid/v1/+/obs")
        for number in range(5):
            sending.send(b"batch %d" % number)
            assert gallery.next_message()[1] == b"batch %d" % number
        assert sending.link.connects == 1


def test_two_cameras_of_one_name_do_not_fight_and_both_say_so(tmp_path, caplog):
    """Also with a mosquitto that does not tell, as Debian's 2.0.11."""
    with Broker(tmp_path) as broker, transport(broker.uri, "gate") as first, transport(broker.uri, "gate") as second:
        wait_until(lambda: first.conflict or second.conflict, "one of them said so")
        wait_until(lambda: noticed(first, second) and noticed(second, first), "both said so")
        for each in (first, second):
            assert re.search(r"another client (probably )?connects to mqtt://127.* as 'gate'.*--camera", each.conflict)
        before = first.link.connects + second.link.connects
        time.sleep(1.0)
        assert first.link.connects + second.link.connects <= before + 2, "they fight"
        assert before < 20
    records = [record for record in caplog.records if "as 'gate'" in record.getMessage()]
    assert {record.levelno for record in records} == {logging.ERROR}
    assert len(records) < 20


def noticed(sending: MqttTransport, other: MqttTransport) -> bool:
    """Return whether it has noticed the other; if not, end the other's pause."""
    if not sending.conflict:
        other.link.retry_now()
    return bool(sending.conflict)


@pytest.mark.parametrize("told", [True, False])
def test_a_rival_makes_the_pauses_longer_and_is_forgotten_in_peace(monkeypatch, told):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rivalry = Rivalry("gate", "mqtt://broker", "way out")
    if not told:
        assert [rivalry.ended(5.0, taken_over=False, dropped=True) for _ in range(3)] == [0, 0, 0]
    pauses = []
    for _ in range(8):
        pauses.append(rivalry.ended(pauses[-1] if pauses else 5.0, taken_over=told, dropped=not told))
        assert rivalry.problem.endswith("as 'gate', and the broker serves only the last: way out")
        assert ("probably" in rivalry.problem) != told
        now[0] += 1.5 * pauses[-1]
    for index, pause in enumerate(pauses):
        assert min(600, 30 * 2**index) / 2 <= pause <= min(600, 30 * 2**index)
    now[0] += 1801
    assert rivalry.problem == ""
    assert rivalry.ended(1e4, taken_over=False, dropped=True) == 0
    assert 0 < rivalry.ended(1.0, taken_over=True, dropped=False) <= 30


def test_connections_that_last_or_end_otherwise_are_no_sign_of_a_rival():
    rivalry = Rivalry("gate", "mqtt://broker", "way out")
    for _ in range(50):
        for lasted_s, dropped in ((5.0, True), (5.0, True), (5.0, True), (0.1, False), (5.0, True), (100.0, True)):
            assert rivalry.ended(lasted_s, taken_over=False, dropped=dropped) == 0
    assert rivalry.problem == ""


def test_a_broker_that_tells_of_a_rival_is_believed_at_once():
    def take_over(peer: Conversation) -> None:
        peer.send(b"\xe0\x02\x8e\x00")

    with HostileServer(granting(take_over)) as server, transport(f"mqtt://127.0.0.1:{server.port}") as sending:
        wait_until(lambda: sending.conflict, "it was told")
        assert "probably" not in sending.conflict
        assert sending.link.backoff.reason == sending.conflict
        assert sending.link.backoff.alerts == 1
        assert len(server.conversations) == 1


def test_the_size_is_blamed_only_for_repeated_ends_with_nothing_as_large_taken():
    suspicion = SilentSizeLimit()
    assert suspicion.ended([70, 72], certain=False) == 0
    assert suspicion.suspected
    assert suspicion.ended([70, 72], certain=False) == 72
    assert suspicion.ended([35, 36], certain=False) == 36
    suspicion.confirmed(80)
    assert suspicion.ended([70, 72], certain=False) == 0
    assert suspicion.ended([70], certain=False) == 0
    assert suspicion.ended([], certain=False) == 0, "a connection that sent nothing tells nothing"
    assert not suspicion.suspected
    assert suspicion.ended([70], certain=False) == 0
    assert suspicion.ended([70], certain=True) == 70
    assert suspicion.ended([], certain=True) == 0


def packets(data: bytes) -> list[bytes]:
    """Split what a client sent into whole packets."""
    found = []
    while len(data) > 1:
        length = shift = position = 0
        while position == 0 or data[position] & 0x80:
            position += 1
            if position >= len(data):
                return found
            length |= (data[position] & 0x7F) << shift
            shift += 7
        end = position + 1 + length
        if end > len(data):
            return found
        found.append(data[:end])
        data = data[end:]
    return found


def granting(talk: Talk) -> Talk:
    """Connect and subscribe a client as a broker does; then go on otherwise."""

    def broker(peer: Conversation) -> None:
        while not packets(peer.received):
            peer.listen(0.01)
        peer.send(b"\x20\x03\x00\x00\x00")
        while len(packets(peer.received)) < 2:
            peer.listen(0.01)
        peer.send(b"\x90\x04" + packets(peer.received)[1][2:4] + b"\x00\x01")
        talk(peer)

    return broker


def hanging_up_on(most: int) -> Talk:
    """Confirm messages, but close the connection without a word at one of more bytes."""

    def broker(peer: Conversation) -> None:
        read = 2
        while True:
            peer.listen(0.01)
            for packet in packets(peer.received)[read:]:
                read += 1
                if packet[0] & 0xF0 == PUBLISH:
                    if len(packet) > most:
                        peer.half_close()
                        raise ConnectionAbortedError
                    number = packet.index(b"/obs") + 4
                    peer.send(b"\x40\x02" + packet[number : number + 2])

    return granting(broker)


def test_a_broker_that_hangs_up_without_a_word_gets_smaller_batches():
    """As AWS IoT does above 128 KiB."""
    with HostileServer(hanging_up_on(20_000)) as server, transport(f"mqtt://127.0.0.1:{server.port}") as sending:
        wait_until(
            lambda: sent_or_not(sending, min(72_000, sending.max_batch_bytes)) and sending.max_batch_bytes < 20_000,
            "batches were smaller",
        )
        assert sending.max_batch_bytes == 18_000
        assert sending.conflict == "", "a namesake is suspected"


def test_a_broker_that_never_confirms_is_left(monkeypatch):
    monkeypatch.setattr(session, "_CONFIRM_S", 0.5)

    def pong(peer: Conversation) -> None:
        while True:
            peer.listen(0.1)
            peer.send(b"\xd0\x00")

    with HostileServer(granting(pong)) as server, transport(f"mqtt://127.0.0.1:{server.port}") as sending:
        wait_until(lambda: sent_or_not(sending, 10), "it was connected")
        wait_until(lambda: "confirmed none of 1" in sending.link.backoff.reason, "it was left")
        wait_until(lambda: sending.losses > 0, "it was connected again, and what it held counts as lost")


@pytest.mark.parametrize(
    "talk", [say_nothing, trickle(b"\x20\xff\xff\xff\x7f" + b"x" * 1000, every_s=0.1)], ids=["silent", "trickling"]
)
def test_a_broker_that_does_not_answer_in_time_is_left(monkeypatch, talk):
    monkeypatch.setattr(session, "_CONNECT_S", 1.0)
    with HostileServer(talk) as server, transport(f"mqtt://127.0.0.1:{server.port}") as sending:
        wait_until(lambda: sending.link.backoff.failures, "it was left")
        assert re.search("no answer in time|a packet of", sending.link.backoff.reason)


def test_a_tls_handshake_that_never_ends_is_left(monkeypatch, certs):
    monkeypatch.setattr(session, "_CONNECT_S", 1.0)
    with HostileServer(trickle(b"\x16\x03\x03\x40\x00" + b"\x02" * 5000, every_s=0.2)) as server:
        sending = MqttTransport(f"mqtts://localhost:{server.port}", camera="camA", tls=tls_files(certs, "camA"))
        begin = time.monotonic()
        wait_until(lambda: sending.link.backoff.failures, "it was left")
        assert time.monotonic() - begin < 5
        sending.close()


def test_a_packet_without_end_costs_no_memory():
    def bomb(peer: Conversation) -> None:
        peer.send(b"\x30\xff\xff\xff\x7f")
        while True:
            peer.send(bytes(1 << 20))

    def rss_mb() -> float:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    most, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            most[0] = max(most[0], rss_mb())

    before = rss_mb()
    watching = threading.Thread(target=watch)
    watching.start()
    with HostileServer(granting(bomb)) as server, transport(f"mqtt://127.0.0.1:{server.port}") as sending:
        wait_until(lambda: sending.link.backoff.failures >= 3, "it was left")
        assert re.search(r"a packet of \d{7,9} bytes, more than the 524288", sending.link.backoff.reason)
    ended.set()
    watching.join()
    assert most[0] - before < 60
