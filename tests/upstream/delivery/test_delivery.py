import contextlib
import random
import re
import threading
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from reid_edge.errors import MessageError, OutboxError, StoreError, TransportError
from reid_edge.upstream.delivery import Delivery
from reid_edge.upstream.message import decode_ack, decode_batch, encode_ack
from reid_edge.upstream.observation import Ack, Batch, Gap, Refusal
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.transport import LocalTransport, Transport
from tests.upstream.observing import observed

CAMERA = "c0123456789abcdef01234567"
PATIENCE_S = 20.0


class Receiver:
    """A gallery: stores by (camera, incarnation, seq), counts what comes again, and answers.

    ``refuses`` maps the number of a track to the reason why it is not stored.
    """

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str, int], int] = {}
        self.gaps: dict[tuple[str, str, int], Gap] = {}
        self.batches: list[Batch] = []
        self.duplicates = 0
        self.refuses = lambda track: ""
        self.changed = threading.Condition()

    def receive(self, payloads) -> list[bytes]:
        with self.changed:
            answers = [encode_ack(self._store(decode_batch(payload))) for payload in payloads]
            self.changed.notify_all()
        return answers

    def _store(self, batch: Batch) -> Ack:
        self.batches.append(batch)
        assert not batch.unreadable
        stored, refused = [], []
        for seq, observation in batch.observations:
            key = (batch.camera, batch.incarnation, seq)
            reason = self.refuses(observation.track)
            if reason:
                refused.append(Refusal((seq,), reason))
                continue
            self.duplicates += key in self.stored
            assert self.stored.setdefault(key, observation.track) == observation.track
            stored.append(seq)
        for gap in batch.gaps:
            assert self.gaps.setdefault((batch.camera, batch.incarnation, gap.first_seq), gap) == gap
        gaps = tuple((gap.first_seq, gap.last_seq) for gap in batch.gaps)
        return Ack(batch.camera, batch.incarnation, tuple(stored), gaps, tuple(refused))

    def tracks(self) -> list[int]:
        return sorted(self.stored.values())

    def wait(self, condition) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE_S), "in vain"


class HeldTransport:
    """Keeps batches, and hands out acknowledgements, as the test says."""

    name = "held"
    losses = 0

    def __init__(self) -> None:
        self.sent: list[Batch] = []
        self.attempts: list[float] = []
        self.down = False
        self.changed = threading.Condition()
        self._acks: list[bytes] = []

    def send(self, batch: bytes) -> None:
        with self.changed:
            self.attempts.append(time.monotonic())
            self.changed.notify_all()
            if self.down:
                raise TransportError("no network, says the test")
            self.sent.append(decode_batch(batch))

    def acks(self, timeout_s: float) -> list[bytes]:
        with self.changed:
            self.changed.wait_for(lambda: self._acks, timeout_s)
            acks, self._acks = self._acks, []
            return acks

    def answer(self, *acks: bytes) -> None:
        with self.changed:
            self._acks.extend(acks)
            self.changed.notify_all()

    def close(self) -> None:
        self.answer(b"")

    def seqs(self) -> list[int]:
        return [seq for batch in self.sent for seq, _ in batch.observations]

    def wait(self, condition) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, PATIENCE_S), "in vain"


class LossyTransport:
    """Loses, repeats, delays and reorders batches and acknowledgements, and fails now and then."""

    name = "lossy"
    losses = 0

    def __init__(self, receiver: Receiver, seed: int) -> None:
        self._receiver = receiver
        self._rng = random.Random(seed)
        self._batches: list[bytes] = []
        self._acks: list[bytes] = []
        self._changed = threading.Condition()

    def send(self, batch: bytes) -> None:
        with self._changed:
            fate = self._rng.random()
            if fate < 0.1:
                raise TransportError("no network for the moment")
            if fate < 0.2:
                self._batches.append(batch)
                raise TransportError("connection lost after all had been sent")
            if fate > 0.3:
                self._batches.extend([batch] * self._rng.choice([1, 1, 2]))
            self._rng.shuffle(self._batches)
            passed = self._rng.randrange(len(self._batches) + 1)
            for payload in self._batches[:passed]:
                (ack,) = self._receiver.receive([payload])
                if self._rng.random() > 0.25:
                    self._acks.extend([ack] * self._rng.choice([1, 1, 2]))
            del self._batches[:passed]
            self._changed.notify_all()

    def acks(self, timeout_s: float) -> list[bytes]:
        with self._changed:
            self._changed.wait_for(lambda: self._acks, min(timeout_s, 0.05))
            self._rng.shuffle(self._acks)
            passed = self._rng.randrange(len(self._acks) + 1)
            acks = self._acks[:passed]
            del self._acks[:passed]
            return acks

    def close(self) -> None:
        pass


@contextlib.contextmanager
def delivering(outbox: Outbox, transport: Transport, **options):
    delivery = Delivery(outbox, transport, camera=CAMERA, **options)
    delivery.start()
    try:
        yield delivery
    finally:
        delivery.stop()


@pytest.fixture
def real_waits():
    """For tests of how long threads wait: the delivery's own waits stay."""


@pytest.fixture(autouse=True)
def quick_stop(request, monkeypatch):
    """A stop does not have to wait for the thread that waits for acknowledgements."""
    if "real_waits" not in request.fixturenames:
        monkeypatch.setattr("reid_edge.upstream.delivery.receiver.ACK_WAIT_S", 0.02)


@pytest.fixture
def outbox(ram_path):
    outbox = Outbox(ram_path / "outbox.db", synchronous="NORMAL")
    yield outbox
    outbox.close()


@pytest.mark.parametrize("seed", range(6))
def test_everything_is_stored_once_but_what_gaps_declare(ram_path, seed):
    """Puts, losses, full outboxes and restarts at random."""
    rng = random.Random(seed)
    receiver = Receiver()
    max_rows = (30, 200, 10_000)[seed % 3]
    track, given = 0, {}
    for life in range(4):
        outbox = Outbox(ram_path / "outbox.db", max_rows=max_rows, synchronous="NORMAL")
        transport = LossyTransport(receiver, rng.getrandbits(32))
        delivery = Delivery(
            outbox, transport, camera=CAMERA, window_rows=60, batch_rows=8, resend_s=0.03, most_backoff_s=0.02
        )
        delivery.start()
        for _ in range(rng.randrange(5, 30)):
            count = rng.randrange(1, 15)
            outbox.put([observed(track + number, dim=4) for number in range(count)])
            given.update((outbox.last_seq - count + 1 + number, track + number) for number in range(count))
            track += count
        drained = delivery.stop(PATIENCE_S if life == 3 else rng.uniform(0, 0.2))
        last = (outbox.depth, outbox.gap_count, outbox.incarnation, sum(outbox.dropped.values()))
        outbox.close()
    assert drained
    assert last[:2] == (0, 0)
    assert {(camera, incarnation) for camera, incarnation, _ in receiver.stored} == {(CAMERA, last[2])}
    assert max(Counter(receiver.stored.values()).values()) == 1
    stored = {seq: number for (_, _, seq), number in receiver.stored.items()}
    assert all(given[seq] == number for seq, number in stored.items())
    gaps = sorted(receiver.gaps.values(), key=lambda gap: gap.first_seq)
    assert all(before.last_seq < after.first_seq for before, after in pairwise(gaps))
    for gap in gaps:
        missing = [seq for seq in given if gap.first_seq <= seq <= gap.last_seq and seq not in stored]
        # What was stored, and dropped before its acknowledgement came, is declared too.
        assert len(missing) <= gap.count
    assert all(any(gap.first_seq <= seq <= gap.last_seq for gap in gaps) for seq in given.keys() - stored.keys())
    assert sum(gap.count for gap in gaps) == last[3]
    assert gaps if max_rows == 30 else max_rows == 200 or (not gaps and len(stored) == len(given))


def test_a_put_is_sent_at_once(outbox, real_waits):
    receiver = Receiver()
    with delivering(outbox, LocalTransport(receiver.receive)):
        for track in range(5):
            start = time.monotonic()
            outbox.put([observed(track)])
            receiver.wait(lambda track=track: receiver.tracks() == list(range(track + 1)))
            assert time.monotonic() - start < 0.4  # the shortest wait of any thread is 0.5 s


def test_what_waited_before_the_start_is_sent_and_deleted(outbox):
    outbox.put([observed(track) for track in range(100)])
    receiver = Receiver()
    delivery = Delivery(outbox, LocalTransport(receiver.receive), camera=CAMERA, batch_rows=16)
    delivery.start()
    assert delivery.stop(PATIENCE_S)
    assert receiver.tracks() == list(range(100))
    assert receiver.duplicates == 0
    assert outbox.depth == 0
    stats = delivery.stats
    assert (stats.sent, stats.acknowledged, stats.resent, stats.batches) == (100, 100, 0, 7)
    assert stats.connected
    assert stats.last_error == ""
    assert len(stats.latencies_s) == 7
    assert abs(time.time() * 1e6 - stats.last_ack_us) < 60e6


def test_no_more_than_the_window_waits_for_acknowledgement(outbox):
    transport = HeldTransport()
    outbox.put([observed(track, dim=4) for track in range(100)])
    with delivering(outbox, transport, window_rows=20, batch_rows=8, resend_s=1000):
        transport.wait(lambda: len(transport.seqs()) == 20)
        outbox.put([observed(100, dim=4)])
        assert transport.seqs() == list(range(1, 21))
        transport.answer(encode_ack(Ack(CAMERA, outbox.incarnation, (3, 1, 2))))
        transport.wait(lambda: len(transport.seqs()) == 23)
        assert transport.seqs() == list(range(1, 24))
        assert outbox.depth == 98


def test_only_unacknowledged_rows_are_sent_again_after_the_timeout(outbox):
    transport = HeldTransport()
    outbox.put([observed(track, dim=4) for track in range(6)])
    with delivering(outbox, transport, batch_rows=3, resend_s=0.2) as delivery:
        transport.wait(lambda: len(transport.sent) == 2)
        transport.answer(encode_ack(Ack(CAMERA, outbox.incarnation, (1, 3, 4))))
        transport.wait(lambda: sorted(transport.seqs()[6:9]) == [2, 5, 6])
        assert transport.attempts[2] - transport.attempts[0] >= 0.2
        transport.answer(encode_ack(Ack(CAMERA, outbox.incarnation, (2, 5, 6))))
        assert delivery.stop(PATIENCE_S)
    assert outbox.depth == 0
    assert delivery.stats.sent == 6
    assert delivery.stats.resent >= 3


def test_attempts_become_rarer_without_network_and_nothing_is_lost(outbox, monkeypatch):
    monkeypatch.setattr("reid_edge.upstream.delivery.sender.FIRST_BACKOFF_S", 0.02)
    transport = HeldTransport()
    transport.down = True
    outbox.put([observed(track, dim=4) for track in range(6)])
    with delivering(outbox, transport, batch_rows=4, most_backoff_s=0.16) as delivery:
        transport.wait(lambda: len(transport.attempts) >= 4)
        outbox.put([observed(6, dim=4)])  # news does not shorten the wait
        transport.wait(lambda: len(transport.attempts) >= 6)
        delivery_waits = np.diff(transport.attempts[:6])
        shortest = np.array([0.01, 0.02, 0.04, 0.08, 0.08])  # up to half of a wait is taken off at random
        assert (delivery_waits > 0.95 * shortest).all()
        assert delivery_waits.max() < 2
        assert not delivery.stats.connected
        assert delivery.stats.last_error == "no network, says the test"
        transport.down = False
        transport.wait(lambda: sorted(set(transport.seqs())) == list(range(1, 8)))
        assert transport.seqs() == list(range(1, 8))
        assert delivery.stats.connected
        assert delivery.stats.last_error == ""
        assert delivery.stats.transport_errors >= 6
        assert delivery.stats.sent == 7
        assert delivery.stats.resent == 0


def test_refused_rows_hold_nobody_up_and_are_taken_later(outbox):
    receiver = Receiver()
    receiver.refuses = lambda track: "model not accepted" if track < 50 else ""
    outbox.put([observed(track, dim=4) for track in range(100)])
    transport = LocalTransport(receiver.receive)
    with delivering(outbox, transport, window_rows=16, batch_rows=8, retry_refused_s=0.02) as delivery:
        receiver.wait(lambda: receiver.tracks() == list(range(50, 100)))
        assert outbox.depth >= 50
        receiver.wait(lambda: delivery.stats.refused >= 60)  # tried again, in vain
        assert delivery.stats.last_refusal == "model not accepted"
        receiver.refuses = lambda track: "damaged" if track == 7 else ""
        receiver.wait(lambda: len(receiver.stored) == 99)
        assert delivery.stop(PATIENCE_S)  # all that can be delivered is
    assert outbox.depth == 1
    assert [seq for seq, _ in outbox.pending(0, 9)] == [8]
    assert delivery.stats.refused_waiting == 1
    assert receiver.duplicates == 0


def refusal_warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "refuses" in record.getMessage()]


def test_the_log_tells_each_kind_of_refusal_once(outbox, caplog):
    receiver = Receiver()
    receiver.refuses = lambda track: f"row {track} of 99:\nno room." if track < 50 else "model not accepted"
    outbox.put([observed(track, dim=4) for track in range(60)])
    with delivering(outbox, LocalTransport(receiver.receive), batch_rows=60, retry_refused_s=0.05) as delivery:
        receiver.wait(lambda: delivery.stats.refused >= 120)
    first, second = refusal_warnings(caplog)
    assert re.search(r"refuses observations: row \d+ of 99: no room\. .*wait .*tried again: 60$", first)
    assert "model not accepted" in second


def test_what_a_lost_connection_held_is_sent_again_at_once(outbox):
    transport = HeldTransport()
    outbox.put([observed(1)])
    with delivering(outbox, transport, resend_s=3600) as delivery:
        transport.wait(lambda: transport.seqs() == [1])
        transport.answer(encode_ack(Ack(CAMERA, outbox.incarnation, (1,))))
        delivery_has(delivery, 1)
        outbox.put([observed(2)])
        transport.wait(lambda: transport.seqs() == [1, 2])
        transport.losses += 1
        transport.wait(lambda: transport.seqs() == [1, 2, 2])


def delivery_has(delivery: Delivery, acknowledged: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while delivery.stats.last_ack_us is None or delivery.stats.acknowledged < acknowledged:
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.005)


def test_gaps_are_delivered_without_rows_and_until_acknowledged(ram_path):
    outbox = Outbox(ram_path / "outbox.db", max_rows=2)
    outbox.put([observed(track, dim=4) for track in range(5)])
    transport = HeldTransport()
    with delivering(outbox, transport, resend_s=0.1):
        transport.wait(lambda: transport.sent)
        assert transport.sent[0].gaps == (Gap(1, 3, 3, "full"),)
        transport.answer(encode_ack(Ack(CAMERA, outbox.incarnation, (4, 5))))
        transport.wait(lambda: any(not batch.observations for batch in transport.sent))
        assert transport.sent[-1].gaps == (Gap(1, 3, 3, "full"),)
        outbox.put([observed(9, dim=4) for track in range(3)])  # another is dropped
        transport.answer(encode_ack(Ack(CAMERA, outbox.incarnation, (6, 7, 8), ((1, 3),))))
        transport.wait(lambda: transport.sent[-1].gaps == (Gap(6, 6, 1, "full"),))
        transport.answer(encode_ack(Ack(CAMERA, outbox.incarnation, (6, 7, 8), ((6, 6),))))
    with delivering(outbox, transport) as delivery:
        assert delivery.stop(PATIENCE_S)
    outbox.close()


def test_acknowledgements_that_are_none_delete_nothing(outbox):
    transport = HeldTransport()
    outbox.put([observed(track, dim=4) for track in range(3)])
    with delivering(outbox, transport) as delivery:
        transport.wait(lambda: transport.sent)
        transport.answer(
            b"",
            b"garbage",
            encode_ack(Ack("c-another", outbox.incarnation, (1, 2, 3))),
            encode_ack(Ack(CAMERA, "0123456789abcdef", (1, 2, 3))),
            encode_ack(Ack(CAMERA, outbox.incarnation, (2,))),
        )
        receiver_done = time.monotonic() + PATIENCE_S
        while outbox.depth == 3 and time.monotonic() < receiver_done:
            time.sleep(0.01)
        assert [seq for seq, _ in outbox.pending(0, 9)] == [1, 3]
        assert delivery.stats.bad_acks == 2
        assert delivery.stats.acknowledged == 1
        assert delivery.stats.newest_acknowledged == 2


def test_stopping_ends_within_its_bound_and_keeps_what_is_left(outbox):
    transport = HeldTransport()
    transport.down = True
    outbox.put([observed(1)])
    delivery = Delivery(outbox, transport, camera=CAMERA)
    delivery.start()
    start = time.monotonic()
    assert not delivery.stop(0.3)
    assert 0.3 <= time.monotonic() - start < 2
    assert outbox.depth == 1
    attempts = len(transport.attempts)
    outbox.put([observed(2)])
    assert len(transport.attempts) == attempts


def test_an_outbox_that_is_replaced_while_running_is_delivered_under_its_new_incarnation(ram_path):
    path = ram_path / "outbox.db"
    outbox = Outbox(path, synchronous="NORMAL")
    receiver = Receiver()
    outbox.put([observed(track) for track in range(4000)])
    outbox.expire()
    first_incarnation = outbox.incarnation
    with path.open("r+b") as file:
        file.seek(300 * 8192)
        file.write(bytes(range(256)) * 32 * 200)
    with delivering(outbox, LocalTransport(receiver.receive)) as delivery:
        receiver.wait(lambda: len(receiver.stored) > 100)
        deadline = time.monotonic() + PATIENCE_S
        while not outbox.set_aside and time.monotonic() < deadline:
            time.sleep(0.01)
        assert outbox.set_aside
        outbox.put([observed(track) for track in range(5000, 5010)])
        assert delivery.stop(PATIENCE_S)
    assert [track for track in receiver.tracks() if track >= 5000] == list(range(5000, 5010))
    assert {incarnation for _, incarnation, _ in receiver.stored} == {first_incarnation, outbox.incarnation}
    (gap,) = receiver.gaps.values()
    assert gap.reason == "lost"
    assert gap.count + len([track for track in receiver.tracks() if track < 5000]) >= 4000
    outbox.close()


def test_a_gallery_in_this_process_that_cannot_store_is_tried_again(outbox):
    receiver = Receiver()
    failing = threading.Event()
    failing.set()
    failed = threading.Event()

    def receive(payloads):
        if failing.is_set():
            failed.set()
            raise StoreError("disk full, says the test")
        return receiver.receive(payloads)

    outbox.put([observed(1)])
    with delivering(outbox, LocalTransport(receive), most_backoff_s=0.05) as delivery:
        assert failed.wait(PATIENCE_S)
        failing.clear()
        assert delivery.stop(PATIENCE_S)
    assert receiver.tracks() == [1]


def test_a_closed_local_transport_takes_nothing_and_wakes_who_waits():
    transport = LocalTransport(lambda payloads: [])
    woken = []
    waiting = threading.Thread(target=lambda: woken.append(transport.acks(PATIENCE_S)))
    waiting.start()
    transport.close()
    waiting.join(PATIENCE_S)
    assert woken == [[b""]]
    with pytest.raises(TransportError, match="closed"):
        transport.send(b"")


def test_idle_takes_no_processor_time(outbox, real_waits):
    receiver = Receiver()
    with delivering(outbox, LocalTransport(receiver.receive)):
        outbox.put([observed(1)])
        receiver.wait(lambda: receiver.stored)
        start = time.process_time()
        time.sleep(1.5)
        assert time.process_time() - start < 0.02 * 1.5


def test_a_name_that_cannot_be_sent_is_an_error_at_once(outbox):
    with pytest.raises(MessageError, match="camera must be"):
        Delivery(outbox, LocalTransport(lambda payloads: []), camera="front door")


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_no_acknowledgement_delete_nothing_and_stop_nothing(outbox, seed, caplog):
    rng = random.Random(seed)
    outbox.put([observed(track, dim=4) for track in range(50)])
    transport = HeldTransport()
    good = encode_ack(Ack(CAMERA, outbox.incarnation, (1, 2), ((1, 2),), (Refusal((3,), "no"),), "gallery"))
    with delivering(outbox, transport, resend_s=1000) as delivery:
        transport.wait(lambda: transport.sent)
        for _ in range(2000):
            damaged = bytearray(good)
            for _ in range(rng.randrange(1, 6)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            transport.answer(bytes(damaged) if rng.random() < 0.5 else rng.randbytes(rng.randrange(1, 200)))
        transport.answer(encode_ack(Ack(CAMERA, outbox.incarnation, tuple(range(4, 51)))))
        until(lambda: outbox.depth <= 3)
        assert delivery.stats.bad_acks > 500
        assert delivery.stats.internal_errors == 0
    assert len(caplog.records) < 60


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.005)


def test_rows_that_were_not_sent_stay_whatever_the_gallery_acknowledges(outbox, caplog):
    outbox.put([observed(track, dim=4) for track in range(20)])
    transport = HeldTransport()
    with delivering(outbox, transport, window_rows=5, batch_rows=5, resend_s=1000) as delivery:
        transport.wait(lambda: transport.seqs() == [1, 2, 3, 4, 5])
        everything = encode_ack(Ack(CAMERA, outbox.incarnation, tuple(range(1, 300_001)) * 2))
        transport.down = True
        transport.answer(everything)
        until(lambda: delivery.stats.acknowledged >= 5)
        assert outbox.depth == 15
        assert delivery.stats.unsent_acks == 1
        transport.down = False
        transport.wait(lambda: 6 in transport.seqs())
    assert caplog.text.count("has never made") == 1


def test_a_refusal_of_megabytes_and_of_rows_without_number_is_one_short_line(outbox, caplog):
    outbox.put([observed(1, dim=4)])
    transport = HeldTransport()
    with delivering(outbox, transport, resend_s=1000) as delivery:
        transport.wait(lambda: transport.sent)
        reason = "full\nERROR forged \x1b[2J" + "x" * 2_000_000
        transport.answer(
            encode_ack(Ack(CAMERA, outbox.incarnation, (), (), (Refusal(tuple(range(1, 500_000)), reason),)))
        )
        until(lambda: delivery.stats.refused == 1)
        assert delivery.stats.refused_waiting == 1
        assert len(delivery.stats.last_refusal) <= 300
        assert delivery.stats.last_refusal.startswith("full ERROR forged \\x1b[2J")
    assert max(len(record.getMessage()) for record in caplog.records) < 500


def test_acknowledgements_of_another_gallery_delete_nothing_and_are_counted(outbox, caplog):
    outbox.put([observed(track, dim=4) for track in range(3)])
    transport = HeldTransport()
    with delivering(outbox, transport, galleries=("north",)) as delivery:
        transport.wait(lambda: transport.sent)
        assert transport.sent[0].galleries == ("north",)
        transport.answer(encode_ack(Ack(CAMERA, outbox.incarnation, (1, 2), gallery="south")))
        until(lambda: delivery.stats.foreign_acks)
        transport.answer(encode_ack(Ack(CAMERA, outbox.incarnation, (3,), gallery="north")))
        until(lambda: outbox.depth == 2)
        assert [seq for seq, _ in outbox.pending(0, 9)] == [1, 2]
        assert delivery.stats.foreign_galleries == {"south": 1}
    assert "upstream.galleries" in caplog.text


def test_two_galleries_have_every_row_though_one_is_away_for_a_while(outbox):
    galleries = {"a": Receiver(), "b": Receiver()}
    away = threading.Event()

    def receive(payloads):
        answers = []
        for name, receiver in galleries.items():
            if name == "b" and away.is_set():
                continue
            for answer in receiver.receive(payloads):
                ack = decode_ack(answer)
                answers.append(encode_ack(replace(ack, gallery=name)))
        return answers

    with delivering(outbox, LocalTransport(receive), galleries=("a", "b"), window_rows=20, resend_s=0.05) as delivery:
        outbox.put([observed(track, dim=4) for track in range(50)])
        until(lambda: outbox.depth == 0)
        away.set()
        outbox.put([observed(track, dim=4) for track in range(50, 100)])
        galleries["a"].wait(lambda: len(galleries["a"].stored) == 100)  # not held up: the window has room for 20
        until(lambda: delivery.stats.lacking == {"a": 0, "b": 50})
        assert outbox.depth == 50
        away.clear()
        outbox.put([observed(100, dim=4)])
        assert delivery.stop(PATIENCE_S)
    assert galleries["a"].tracks() == galleries["b"].tracks() == list(range(101))


def test_what_is_acknowledged_while_the_outbox_cannot_be_written_is_not_sent_again(outbox, monkeypatch):
    receiver = Receiver()
    acknowledge, failing = outbox.acknowledge, threading.Event()
    failing.set()

    def refusing(ack):
        if failing.is_set():
            raise OutboxError("disk full, says the test")
        acknowledge(ack)

    monkeypatch.setattr(outbox, "acknowledge", refusing)
    with delivering(outbox, LocalTransport(receiver.receive), resend_s=0.05) as delivery:
        outbox.put([observed(track, dim=4) for track in range(10)])
        until(lambda: "disk full" in delivery.stats.last_error)
        time.sleep(0.3)
        assert (outbox.depth, delivery.stats.resent, receiver.duplicates) == (10, 0, 0)
        failing.clear()
        assert delivery.stop(PATIENCE_S)
    assert (outbox.depth, delivery.stats.acknowledged) == (0, 10)


def test_the_age_of_the_oldest_row_and_recent_losses_are_told(ram_path):
    outbox = Outbox(ram_path / "outbox.db", max_rows=2)
    transport = HeldTransport()
    transport.down = True
    with delivering(outbox, transport) as delivery:
        assert delivery.stats.oldest_s is None
        outbox.put([observed(track, dim=4) for track in range(5)])
        until(lambda: delivery.stats.oldest_s is not None)
        age_s = delivery.stats.oldest_s
        time.sleep(0.1)
        assert age_s + 0.05 < delivery.stats.oldest_s < PATIENCE_S
        assert outbox.dropped_recently() == {"full": 3}
    outbox.close()


class AnyError(Exception):
    pass


@pytest.mark.parametrize("part", ["send", "acks", "losses"])
def test_a_transport_that_raises_anything_is_counted_and_tried_again(outbox, monkeypatch, caplog, part):
    monkeypatch.setattr("reid_edge.upstream.delivery.delivery.AFTER_A_BUG_S", 0.01)
    monkeypatch.setattr("reid_edge.upstream.delivery.sender.FIRST_BACKOFF_S", 0.01)
    receiver = Receiver()
    left = [20]

    class Faulty(LocalTransport):
        def _fail(self, now):
            if now == part and left[0]:
                left[0] -= 1
                raise AnyError("says the test")

        def send(self, batch):
            self._fail("send")
            super().send(batch)

        def acks(self, timeout_s):
            self._fail("acks")
            return super().acks(timeout_s)

        @property
        def losses(self):
            self._fail("losses")
            return 0

    outbox.put([observed(1)])
    with delivering(outbox, Faulty(receiver.receive), resend_s=0.05, most_backoff_s=0.02) as delivery:
        assert delivery.stop(PATIENCE_S)
        assert delivery.stats.internal_errors == 20
        assert delivery.stats.internal_error(60) == "AnyError: says the test"
    assert caplog.text.count("unexpected error in delivery") == 1


def test_it_goes_on_after_an_unexpected_error(outbox, caplog, monkeypatch):
    monkeypatch.setattr("reid_edge.upstream.delivery.delivery.AFTER_A_BUG_S", 0.01)
    receiver = Receiver()
    calls = []

    def receive(payloads):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a bug, says the test")
        return receiver.receive(payloads)

    outbox.put([observed(1)])
    with delivering(outbox, LocalTransport(receive), resend_s=0.05) as delivery:
        receiver.wait(lambda: receiver.stored)
        assert delivery.stop(PATIENCE_S)
    assert "a bug, says the test" in caplog.text
