"""Acknowledged rows are kept for a while, and a restored gallery gets them again."""

import logging
import random
import sqlite3
from dataclasses import replace

import pytest

from reid_edge.upstream.delivery import Delivery
from reid_edge.upstream.message import decode_ack, encode_ack
from reid_edge.upstream.observation import Ack, Replay
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.outbox.notes import Notes
from reid_edge.upstream.transport import LocalTransport
from tests.upstream.delivery.test_delivery import CAMERA, PATIENCE_S, Receiver, until
from tests.upstream.observing import observed
from tests.upstream.outboxes import HOUR, SECOND, Clocks, integrity, opened, tracks

DAY_S = 86400


def seen(track: int, last_us: int):
    return replace(observed(track, dim=8), last_us=last_us)


def put_and_acknowledged(outbox: Outbox, count: int) -> None:
    first = outbox.last_seq + 1
    outbox.put([seen(track, 1_795_000_000_000_000 + track) for track in range(count)])
    outbox.acknowledge(Ack("c", outbox.incarnation, tuple(range(first, outbox.last_seq + 1))))


def test_acknowledged_rows_are_kept_and_wait_again_when_they_are_asked_for(ram_path):
    path = ram_path / "outbox.db"
    with opened(path, keep_acknowledged_s=DAY_S) as outbox:
        put_and_acknowledged(outbox, 1200)
        assert (outbox.depth, outbox.kept, outbox.payload_bytes, tracks(outbox)) == (0, 1200, 0, [])
    with opened(path, keep_acknowledged_s=DAY_S) as outbox:
        assert (outbox.depth, outbox.kept, outbox.gap_count) == (0, 1200, 0)
        assert outbox.replay(Replay("r1", 1_795_000_000_000_000 + 700)) == 500
        assert (outbox.depth, outbox.kept, tracks(outbox)) == (500, 700, list(range(700, 1200)))
        assert outbox.replay(Replay("r1", 0)) is None  # once
        assert outbox.fetch([1, 701]) == outbox.pending(0, 1)
    with opened(path, keep_acknowledged_s=DAY_S) as outbox:
        assert (outbox.depth, outbox.kept, outbox.gap_count, outbox.set_aside) == (500, 700, 0, [])
        assert outbox.replay(Replay("r1", 0)) is None
        assert outbox.replay(Replay("r2", 0)) == 700
        assert tracks(outbox) == list(range(1200))
    assert integrity(path) == "ok"


def test_by_default_nothing_is_kept(ram_path):
    with opened(ram_path / "outbox.db") as outbox:
        put_and_acknowledged(outbox, 10)
        assert outbox.kept == 0
        assert outbox.replay(Replay("r1", 0)) == 0


def test_kept_rows_make_room_first_and_without_a_gap(ram_path):
    with opened(ram_path / "outbox.db", keep_acknowledged_s=DAY_S, max_rows=100) as outbox:
        put_and_acknowledged(outbox, 80)
        outbox.put([observed(track, dim=8) for track in range(60)])
        assert (outbox.depth, outbox.kept, outbox.gap_count) == (60, 40, 0)
        outbox.put([observed(track, dim=8) for track in range(60, 110)])
        assert (outbox.depth, outbox.kept, outbox.missing) == (100, 0, 10)


def test_kept_rows_go_when_they_are_old_and_leave_no_byte_and_no_gap(ram_path):
    path, clocks = ram_path / "outbox.db", Clocks()
    secret = observed(77)
    with opened(path, keep_acknowledged_s=3600, read_clocks=clocks) as outbox:
        outbox.put([secret])
        outbox.acknowledge(Ack("c", outbox.incarnation, (1,)))
        clocks.run(HOUR - SECOND)
        outbox.expire()
        assert outbox.kept == 1
        clocks.run(2 * SECOND)
        outbox.expire()
        assert (outbox.kept, outbox.gap_count) == (0, 0)
        trace = secret.feature.astype("<f2").tobytes()[:64]
        assert not any(trace in file.read_bytes() for file in ram_path.iterdir())


def test_kept_rows_go_at_once_when_keeping_is_switched_off(ram_path):
    path = ram_path / "outbox.db"
    with opened(path, keep_acknowledged_s=DAY_S) as outbox:
        put_and_acknowledged(outbox, 10)
    with opened(path) as outbox:
        outbox.expire()
        assert (outbox.kept, outbox.gap_count) == (0, 0)


def test_nothing_is_kept_longer_than_waiting_rows_are(ram_path):
    clocks = Clocks()
    with opened(ram_path / "outbox.db", keep_acknowledged_s=10 * DAY_S, retention_s=3600, read_clocks=clocks) as outbox:
        put_and_acknowledged(outbox, 10)
        clocks.run(HOUR + SECOND)
        outbox.expire()
        assert outbox.kept == 0


def test_two_galleries_that_ask_in_turn_are_each_served_once(ram_path):
    path = ram_path / "outbox.db"
    with opened(path, keep_acknowledged_s=DAY_S) as outbox:
        put_and_acknowledged(outbox, 3)
        assert [outbox.replay(Replay(name, 0)) for name in ("north", "south", "north", "south")] == [3, 0, None, None]
        outbox.take([], "e" * 16, 17)
    with opened(path, keep_acknowledged_s=DAY_S) as outbox:
        assert outbox.taken_from("e" * 16) == 17
        assert [outbox.replay(Replay(name, 0)) for name in ("north", "south", "east")] == [None, None, 0]
        assert outbox.taken_from("e" * 16) == 17


def test_rows_wait_since_a_gallery_asked_for_them_again_also_after_a_restart(ram_path):
    path, clocks = ram_path / "outbox.db", Clocks()
    with opened(path, keep_acknowledged_s=DAY_S, read_clocks=clocks) as outbox:
        put_and_acknowledged(outbox, 10)
        clocks.run(HOUR)
        assert outbox.replay(Replay("r1", 0)) == 10
        assert outbox.oldest_age_s() == 0
        clocks.run(7 * SECOND)
        assert outbox.oldest_age_s() == 7
        outbox.put([observed(1)])
        outbox.replay(Replay("r2", 0))  # of another gallery, which finds nothing
    with opened(path, keep_acknowledged_s=DAY_S, read_clocks=clocks) as outbox:
        clocks.run(3 * SECOND)
        assert outbox.oldest_age_s() == 10
        outbox.acknowledge(Ack("c", outbox.incarnation, tuple(range(1, 11))))
        assert outbox.oldest_age_s() == 3


def test_a_row_that_has_waited_all_along_keeps_its_age_beside_those_that_are_asked_for_again(ram_path):
    clocks = Clocks()
    with opened(ram_path / "outbox.db", keep_acknowledged_s=DAY_S, read_clocks=clocks) as outbox:
        put_and_acknowledged(outbox, 10)
        outbox.put([observed(1)])
        put_and_acknowledged(outbox, 10)
        clocks.run(HOUR)
        assert outbox.replay(Replay("r1", 0)) == 20
        assert outbox.oldest_age_s() == 3600


def test_a_request_whose_serving_is_interrupted_counts_from_its_first_coming(ram_path, monkeypatch):
    path, clocks = ram_path / "outbox.db", Clocks()
    with opened(path, keep_acknowledged_s=DAY_S, read_clocks=clocks) as outbox:
        put_and_acknowledged(outbox, 1200)
        clocks.run(HOUR)
        monkeypatch.setattr(Notes, "with_served", lambda *_: pytest.fail("interrupted"))
        with pytest.raises(pytest.fail.Exception):
            outbox.replay(Replay("r1", 0))
        monkeypatch.undo()
        clocks.run(5 * SECOND)
        assert outbox.replay(Replay("r1", 0)) == 0
        assert (outbox.depth, outbox.oldest_age_s()) == (1200, 5)


def test_what_was_seen_before_the_clock_was_set_is_sent_again_too(ram_path):
    with opened(ram_path / "outbox.db", keep_acknowledged_s=DAY_S) as outbox:
        early = replace(observed(1), captured_us=60_000_000, first_us=60_000_000, last_us=60_000_000)
        outbox.put([early, seen(2, 1_795_000_000_000_000)])
        outbox.acknowledge(Ack("c", outbox.incarnation, (1, 2)))
        assert outbox.replay(Replay("r1", 2**61)) == 1
        assert tracks(outbox) == [1]


def test_a_kept_row_that_has_changed_on_disk_is_not_sent_again(ram_path):
    path = ram_path / "outbox.db"
    with opened(path, keep_acknowledged_s=DAY_S) as outbox:
        put_and_acknowledged(outbox, 3)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE rows SET payload = ? WHERE seq = 2", (b"changed",))
    db.close()
    with opened(path, keep_acknowledged_s=DAY_S) as outbox:
        assert outbox.replay(Replay("r1", 0)) == 2
        assert tracks(outbox) == [0, 2]


def test_thousands_of_kept_rows_do_not_slow_down_looking_for_those_that_wait(ram_path):
    with opened(ram_path / "outbox.db", keep_acknowledged_s=DAY_S, synchronous="NORMAL") as outbox:
        put_and_acknowledged(outbox, 5000)
        outbox.put([observed(1, dim=8)])
        steps = [0]
        outbox.pending(0, 1)
        outbox._file._db.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 100)
        assert outbox.oldest_age_s() is not None
        assert len(outbox.pending(0, 1)) == 1
        assert steps[0] < 10  # hundreds of instructions of SQLite
        outbox._file._db.set_progress_handler(None, 0)


@pytest.mark.parametrize("seed", range(4))
def test_random_acknowledgements_replays_and_reopenings_keep_the_count(ram_path, seed):
    rng = random.Random(seed)
    path, waiting, kept = ram_path / "outbox.db", set(), set()
    options = {"keep_acknowledged_s": DAY_S, "synchronous": "NORMAL"}
    outbox = Outbox(path, **options)
    for step in range(100):
        match rng.randrange(5):
            case 0 | 1:
                count = rng.randrange(1, 30)
                first = outbox.last_seq + 1
                outbox.put([observed(step, dim=8)] * count)
                waiting.update(range(first, first + count))
            case 2:
                seqs = {seq for seq in waiting | kept if rng.random() < 0.3} | {10**15}
                outbox.acknowledge(Ack("c", outbox.incarnation, tuple(seqs)))
                kept |= seqs & waiting
                waiting -= seqs
            case 3:
                assert outbox.replay(Replay(f"r{step}", rng.choice([0, 2**60]))) in (0, len(kept))
                if outbox.depth != len(waiting):
                    waiting, kept = waiting | kept, set()
            case _:
                outbox.close()
                outbox = Outbox(path, **options)
        assert (outbox.depth, outbox.kept) == (len(waiting), len(kept))
        assert {seq for seq, _ in outbox.pending(0, 10**6)} == waiting
        assert outbox.gap_count == 0
    outbox.close()


def test_a_restored_gallery_gets_what_it_lost_without_a_restart_of_the_camera(ram_path, caplog):
    caplog.set_level(logging.INFO)
    receiver, asked = Receiver(), []

    def receive(payloads):
        answers = receiver.receive(payloads)
        if asked:
            answers = [encode_ack(replace(decode_ack(one), replay=asked[-1], gallery="north")) for one in answers]
        return answers

    outbox = Outbox(ram_path / "outbox.db", keep_acknowledged_s=DAY_S)
    delivery = Delivery(outbox, LocalTransport(receive), camera=CAMERA, galleries=(), batch_rows=8)
    delivery.start()
    outbox.put([observed(track, dim=8) for track in range(100)])
    until(lambda: outbox.depth == 0)
    receiver.stored.clear()  # an old backup was put back
    asked.append(Replay("restored-1", 0))
    outbox.put([observed(100, dim=8)])
    receiver.wait(lambda: len(receiver.stored) == 101)
    until(lambda: outbox.depth == 0)
    assert receiver.tracks() == list(range(101))
    assert delivery.stats.replayed == 100
    [line] = [line for line in caplog.messages if "restored" in line]
    assert all(part in line for part in ("'north'", "1970-01-01 00:00:00+00:00", "100 observations"))
    sent = delivery.stats.sent + delivery.stats.resent
    asked.append(Replay("restored-2", 0))  # a gallery that asks again and again
    outbox.put([observed(101, dim=8)])
    until(lambda: outbox.depth == 0)
    assert delivery.stats.sent + delivery.stats.resent == sent + 1
    assert delivery.stop(PATIENCE_S)
    outbox.close()
