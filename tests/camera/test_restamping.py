"""reid_edge.camera.restamping: what a camera saw before its clock was set arrives with the right times."""

import sqlite3
import time
from contextlib import closing
from dataclasses import replace

import pytest

from reid_edge.camera.restamping import Restamping
from reid_edge.errors import MessageError, OutboxError
from reid_edge.upstream.clocks import IMPLAUSIBLE_US
from reid_edge.upstream.delivery import Delivery
from reid_edge.upstream.message import decode_batch, decode_observation, encode_ack, encode_observation, restamped
from reid_edge.upstream.observation import Ack, Replay
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.transport import LocalTransport
from tests.traffic import observation

FOUND_US = 1_795_000_000_000_000
MINUTE = 60_000_000


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()


def seen_at(track, captured_us):
    return replace(observation(track), first_us=captured_us - 5, captured_us=captured_us, last_us=captured_us + 7)


def test_restamping_changes_the_times_alone():
    seen = seen_at(3, 10 * MINUTE)
    moved = decode_observation(restamped(encode_observation(seen, "fp32"), FOUND_US))
    expected = seen_at(3, 10 * MINUTE + FOUND_US)
    assert replace(moved, feature=expected.feature) == replace(expected, feature=expected.feature)
    assert (moved.feature == decode_observation(encode_observation(seen, "fp32")).feature).all()


@pytest.mark.parametrize(("data", "correction_us"), [(b"\xff\xff", 1), (encode_observation(seen_at(1, 100)), -100)])
def test_what_cannot_be_moved_is_an_error(data, correction_us):
    with pytest.raises(MessageError):
        restamped(data, correction_us)


def test_rows_of_before_the_clock_was_set_are_delivered_with_the_right_times(outbox):
    earlier = seen_at(1, 20 * MINUTE)
    outbox.put([earlier])  # by an earlier process: how wrong its clock was is not known
    found, received = [0], {}

    def gallery(batches):
        acks = []
        for batch in map(decode_batch, batches):
            rows = dict(batch.observations)
            received.update({seen.track: seen for seen in rows.values()})
            acks.append(encode_ack(Ack(batch.camera, batch.incarnation, tuple(rows))))
        return acks

    amend = Restamping(outbox, found_us=lambda: found[0])
    outbox.put([seen_at(2, 30 * MINUTE), seen_at(3, FOUND_US + 40 * MINUTE)])
    assert [data for _, data in amend(outbox.incarnation, outbox.pending(0, 10))] == [
        data for _, data in outbox.pending(0, 10)
    ]
    found[0] = FOUND_US
    delivery = Delivery(outbox, LocalTransport(gallery), camera="north", amend=amend)
    delivery.start()
    try:
        deadline = time.monotonic() + 20
        while len(received) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        delivery.stop(drain_s=5)
    times = {track: (seen.first_us, seen.captured_us, seen.last_us) for track, seen in received.items()}
    right = [20 * MINUTE, 30 * MINUTE + FOUND_US, 40 * MINUTE + FOUND_US]
    assert times == {track: (at - 5, at, at + 7) for track, at in enumerate(right, 1)}
    assert outbox.depth == 0


def test_rows_from_after_2099_are_moved_back(outbox):
    amend = Restamping(outbox, found_us=lambda: FOUND_US - IMPLAUSIBLE_US)
    outbox.put([seen_at(1, IMPLAUSIBLE_US + MINUTE), seen_at(2, FOUND_US + 2 * MINUTE)])
    rows = amend(outbox.incarnation, outbox.pending(0, 10))
    assert [decode_observation(data).captured_us - FOUND_US for _, data in rows] == [MINUTE, 2 * MINUTE]


def test_rows_of_an_earlier_process_stay_as_they_are_though_the_disk_took_the_outbox_only_later(tmp_path, monkeypatch):
    with closing(Outbox(tmp_path / "outbox.db")) as before:
        before.put([seen_at(1, 20 * MINUTE)])
    with monkeypatch.context() as full:
        full.setattr("reid_edge.upstream.outbox.database.connect", raising(sqlite3.OperationalError("disk is full")))
        outbox = Outbox(tmp_path / "outbox.db", wait_for_disk=True)
        assert not outbox.is_open
        amend = Restamping(outbox, found_us=lambda: FOUND_US)
    outbox.put([seen_at(2, 30 * MINUTE)])
    sent = [decode_observation(data).captured_us for _, data in amend(outbox.incarnation, outbox.pending(0, 10))]
    assert sent == [20 * MINUTE, 30 * MINUTE + FOUND_US]
    outbox.close()


def raising(error):
    def fail(*_given, **_options):
        raise error

    return fail


def test_a_later_process_sends_the_right_times_of_what_an_earlier_one_sent(tmp_path):
    path = tmp_path / "kept.db"
    with closing(Outbox(path, keep_acknowledged_s=3600)) as outbox:
        amend = Restamping(outbox, found_us=lambda: FOUND_US)
        outbox.put([seen_at(2, 30 * MINUTE), seen_at(3, 40 * MINUTE)])
        sent = amend(outbox.incarnation, outbox.pending(0, 10))
        outbox.acknowledge(Ack("north", outbox.incarnation, (1,)))  # and 2 waits
    with closing(Outbox(path, keep_acknowledged_s=3600)) as outbox:
        assert (outbox.set_aside, outbox.gap_count) == ([], 0)
        assert outbox.payload_bytes == len(sent[1][1])
        outbox.replay(Replay("r1", FOUND_US))
        again = Restamping(outbox, found_us=lambda: 0)(outbox.incarnation, outbox.pending(0, 10))
        assert again == sent
        assert decode_observation(again[0][1]).captured_us == 30 * MINUTE + FOUND_US


def test_an_outbox_that_cannot_be_written_stops_no_right_time(outbox, monkeypatch):
    amend = Restamping(outbox, found_us=lambda: FOUND_US)
    outbox.put([seen_at(2, 30 * MINUTE)])
    monkeypatch.setattr(Outbox, "rewrite", lambda *_: (_ for _ in ()).throw(OutboxError("full")))
    [(_, data)] = amend(outbox.incarnation, outbox.pending(0, 10))
    assert decode_observation(data).captured_us == 30 * MINUTE + FOUND_US
