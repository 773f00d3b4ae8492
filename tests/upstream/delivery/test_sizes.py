"""Delivery through transports that take only small batches, whose limit changes, or is found out late."""

import threading

import pytest

from reid_edge.errors import BatchTooLargeError
from reid_edge.upstream.delivery import Delivery
from reid_edge.upstream.message import decode_batch, encode_ack
from reid_edge.upstream.observation import Ack
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.transport import AckQueue
from tests.broker import Broker
from tests.traffic import Peer, wait_until
from tests.upstream.mqtt.test_limits import transport as mqtt_transport
from tests.upstream.observing import observed

CAMERA = "gate"


class SmallTransport:
    """Takes batches of up to ``takes`` bytes, and says ``max_batch_bytes``; acknowledges what it took."""

    name = "small"
    losses = 0
    conflict = ""

    def __init__(self, announced: int, takes: int) -> None:
        self.max_batch_bytes, self.takes = announced, takes
        self.sizes: list[int] = []
        self.refused: list[int] = []
        self.stored: list[int] = []
        self.gaps: list[tuple[int, int]] = []
        self.learns = True
        self._acks = AckQueue()

    def send(self, batch: bytes) -> None:
        if len(batch) > self.takes:
            self.refused.append(len(batch))
            if self.learns:
                self.max_batch_bytes = min(self.max_batch_bytes, len(batch) // 2)
            raise BatchTooLargeError("too large")
        self.sizes.append(len(batch))
        read = decode_batch(batch)
        seqs = tuple(seq for seq, _ in read.observations)
        gaps = tuple((gap.first_seq, gap.last_seq) for gap in read.gaps)
        self.stored += seqs
        self.gaps += gaps
        self._acks.put(encode_ack(Ack(read.camera, read.incarnation, seqs, gaps)))

    def acks(self, timeout_s: float) -> list[bytes]:
        return self._acks.take(timeout_s)

    def close(self) -> None:
        self._acks.wake()


@pytest.fixture
def outbox(ram_path):
    opened = Outbox(ram_path / "outbox.db")
    yield opened
    opened.close()


def delivered(outbox: Outbox, transport, **options) -> Delivery:
    delivery = Delivery(outbox, transport, camera=CAMERA, galleries=(), resend_s=5.0, **options)
    delivery.start()
    return delivery


def test_batches_are_as_large_as_the_transport_says_and_no_larger(outbox):
    outbox.put([observed(track) for track in range(200)])
    transport = SmallTransport(6000, 6000)
    delivery = delivered(outbox, transport)
    assert delivery.stop(drain_s=20)
    assert transport.refused == []
    assert sorted(transport.stored) == list(range(1, 201))
    assert max(transport.sizes) > 5000
    assert outbox.depth == 0


def test_a_limit_that_is_found_out_by_a_refusal_is_kept_to_without_a_pause(outbox):
    outbox.put([observed(track) for track in range(100)])
    transport = SmallTransport(10**6, 6000)
    delivery = delivered(outbox, transport)
    assert delivery.stop(drain_s=20)
    assert sorted(set(transport.stored)) == list(range(1, 101))
    assert transport.refused == sorted(transport.refused, reverse=True)
    assert len(transport.refused) == 4
    assert delivery.stats.transport_errors == 0


def test_a_refusal_that_changes_nothing_is_a_failure_with_pauses(outbox):
    outbox.put([observed(1)])
    transport = SmallTransport(10**6, 100)
    transport.learns = False
    delivery = delivered(outbox, transport)
    wait_until(lambda: delivery.stats.transport_errors >= 2, "it was tried again")
    delivery.stop()
    assert len(transport.refused) < 6
    assert outbox.depth == 1


def test_a_row_too_large_for_any_batch_waits_and_stops_no_other(outbox, caplog):
    for track, dim in ((1, 512), (2, 4000), (3, 512), (4, 4000), (5, 512)):
        outbox.put([observed(track, dim=dim)])
    transport = SmallTransport(6000, 6000)
    delivery = delivered(outbox, transport, retry_refused_s=0.3)
    wait_until(lambda: sorted(set(transport.stored)) == [1, 3, 5], "the others were stored")
    wait_until(lambda: outbox.depth == 2, "they were deleted")
    assert delivery.stats.refused_waiting == 2
    assert "takes batches of at most 6000" in delivery.stats.last_refusal
    assert [text for text in caplog.messages if "at most 6000" in text]
    transport.max_batch_bytes = transport.takes = 100_000
    wait_until(lambda: outbox.depth == 0, "they went once there was room")
    delivery.stop()


def test_a_limit_below_any_batch_loses_nothing(outbox):
    outbox.put([observed(track) for track in range(20)])
    transport = SmallTransport(60, 60)
    delivery = delivered(outbox, transport)
    wait_until(lambda: delivery.stats.refused_waiting == 20, "they wait")
    assert transport.refused == transport.sizes == []
    delivery.stop()
    assert outbox.depth == 20


def test_gaps_are_divided_too(ram_path):
    with_gaps = Outbox(ram_path / "small.db", max_rows=1)
    for track in range(40):
        with_gaps.put([observed(track)])
    transport = SmallTransport(1500, 1500)
    delivery = delivered(with_gaps, transport)
    assert delivery.stop(drain_s=20)
    assert transport.refused == []
    assert with_gaps.gap_count == 0
    with_gaps.close()


def test_everything_arrives_through_a_broker_with_a_small_packet(outbox, tmp_path):
    outbox.put([observed(track) for track in range(100)])
    with (
        Broker(tmp_path, options={"max_packet_size": "6000"}) as broker,
        mqtt_transport(broker.uri, CAMERA) as sending,
        Peer(broker.port) as gallery,
    ):
        gallery.subscribe("reid/v1/+/obs")
        delivery = delivered(outbox, sending)
        stored: set[int] = set()
        ended = threading.Event()

        def answer() -> None:
            while not ended.is_set() and len(stored) < 100:
                read = decode_batch(gallery.next_message()[1])
                seqs = tuple(seq for seq, _ in read.observations)
                stored.update(seqs)
                payload = encode_ack(Ack(read.camera, read.incarnation, seqs))
                gallery.client.publish(f"reid/v1/{CAMERA}/ack", payload, qos=1)

        answering = threading.Thread(target=answer)
        answering.start()
        assert delivery.stop(drain_s=20)
        ended.set()
        answering.join(25)
    assert len(stored) == 100
    assert outbox.depth == 0
