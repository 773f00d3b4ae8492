"""What a collector takes, refuses and acknowledges, with real batches and a real SQLite gallery."""

import contextlib
import dataclasses
import random
import sqlite3
import tempfile
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reid_edge.errors import StoreError, UsageError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.entries import LONGEST_TRACKLET_US, Selection
from reid_edge.gallery.quota import Quota
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.base import summarise
from reid_edge.upstream import observation_pb2
from reid_edge.upstream.clocks import IMPLAUSIBLE_US, Reading
from reid_edge.upstream.message import MOST_IN_GAP, decode_ack, encode_batch, encode_observation
from reid_edge.upstream.observation import Ack, Gap
from tests.commands import run_command
from tests.gallery.stores import DIM, HOUR, MODEL, NOON, OTHER_MODEL, SECOND, batch, observation, record, unit

EVERYTHING = Selection()


class Clock:
    """Where time stands still until it is moved; then as much has passed."""

    def __init__(self):
        self.now = NOON + HOUR

    def __call__(self):
        return self.now

    def read(self):
        return Reading("boot", self.now - NOON, self.now)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def collector(sqlite_store, clock):
    return Collector(sqlite_store, clock=clock, read=clock.read, expire_every_s=0)


def receive(collector, rows, **options):
    return decode_ack(collector.receive([batch(rows, **options)])[0])


def changed(row, **values):
    return dataclasses.replace(row, entry=dataclasses.replace(row.entry, **values))


def test_what_is_acknowledged_is_stored(collector, sqlite_store, tmp_path):
    rows = [record(seq) for seq in (3, 5, 8)]
    ack = receive(collector, rows, gaps=(Gap(1, 2, 2, "full"), Gap(6, 7, 1, "expired")))
    assert ack == Ack("door", "e1", (3, 5, 8), ((1, 2), (6, 7)), gallery="gallery")
    (back,) = sqlite_store.find("door", "e1", 5)
    assert back.entry == rows[1].entry
    np.testing.assert_allclose(back.feature, rows[1].feature, atol=1e-3)
    again = open_store(f"sqlite:{tmp_path / 'gallery.db'}")  # what others can see is committed
    assert again.span(EVERYTHING).observations == 3
    again.close()
    assert (collector.stats.stored, collector.stats.gaps) == (3, 2)


def test_a_batch_that_comes_again_is_acknowledged_again_and_stored_once(collector, sqlite_store):
    payload = batch([record(seq) for seq in range(1, 6)], gaps=[Gap(9, 9, 1, "lost")])
    first, second = collector.receive([payload])[0], collector.receive([payload])[0]
    assert first == second
    assert sqlite_store.span(EVERYTHING).observations == 5
    stats = collector.stats
    assert (stats.stored, stats.duplicates, stats.gaps, stats.batches) == (5, 5, 1, 2)


def test_several_batches_are_one_commit_and_answered_in_order(sqlite_store, clock):
    collector = Collector(sqlite_store, clock=clock)
    receive(collector, [record(1)])
    statements = []
    sqlite_store._connection.set_trace_callback(statements.append)
    payloads = [batch([record(1, camera=name)], camera=name) for name in ("a", "b", "c")]
    acks = [decode_ack(ack) for ack in collector.receive(payloads)]
    assert [ack.camera for ack in acks] == ["a", "b", "c"]
    assert statements.count("COMMIT") == 1


def test_what_is_no_batch_gets_no_acknowledgement_and_stops_no_other(collector):
    acks = collector.receive([b"", b"\xff" * 40, batch([record(1)])])
    assert acks[:2] == [b"", b""]
    assert decode_ack(acks[2]).seqs == (1,)
    assert collector.stats.malformed == 2


def test_the_first_model_is_accepted_and_another_refused_with_the_command_to_run(collector, sqlite_store, caplog):
    assert receive(collector, [record(1)]).seqs == (1,)
    ack = receive(collector, [record(2), record(3, model=OTHER_MODEL), record(4)])
    assert ack.seqs == (2, 4)
    (refusal,) = ack.refused
    assert refusal.seqs == (3,)
    assert f"reid-edge gallery accept-model STORE {OTHER_MODEL}" in refusal.reason
    (warning,) = caplog.messages  # only here: where the gallery lies is no business of a camera's
    assert f"reid-edge gallery accept-model {sqlite_store.name} {OTHER_MODEL}" in warning
    assert collector.stats.refused == {"model": 1}


def test_a_model_that_a_person_accepts_is_taken_from_then_on(collector, sqlite_store, tmp_path):
    receive(collector, [record(1)])
    other = record(2, unit(64, seed=1), model=OTHER_MODEL)
    assert receive(collector, [other]).refused
    elsewhere = open_store(f"sqlite:{tmp_path / 'gallery.db'}")  # another process, where the size is not known
    elsewhere.accept_model(OTHER_MODEL, None, now_us=NOON)
    elsewhere.close()
    assert receive(collector, [other]).seqs == (2,)
    assert [(model.model_hash, model.dim) for model in sqlite_store.models()] == [(MODEL, DIM), (OTHER_MODEL, 64)]


def test_a_size_that_one_camera_lied_about_is_put_right_while_it_runs(collector, tmp_path):
    honest = record(1)

    def lie(seq):
        return decode_ack(collector.receive([batch([record(seq, unit(1))], camera="liar")])[0])

    assert lie(1).seqs == (1,)
    assert "expected 1 numbers" in receive(collector, [honest]).refused[0].reason
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    assert "holds 1 observation of" in run_command("gallery", "forget-model", uri, MODEL).stderr
    assert run_command("gallery", "erase", uri, "--camera", "liar", "--purpose", "lies", "--yes").returncode == 0
    assert run_command("gallery", "forget-model", uri, MODEL).returncode == 0
    assert run_command("gallery", "accept-model", uri, MODEL, "--numbers", "512").returncode == 0
    assert receive(collector, [honest]).seqs == (1,)
    assert "expected 512 numbers" in lie(2).refused[0].reason
    assert "have 512 numbers" in run_command("gallery", "accept-model", uri, MODEL, "--numbers", "1").stderr
    assert "does not take" in run_command("gallery", "forget-model", uri, OTHER_MODEL).stderr


def test_features_of_another_size_than_the_model_has_are_refused(collector):
    ack = receive(collector, [record(1), record(2, unit(256, seed=1)), record(3)])
    assert ack.seqs == (1, 3)
    assert "512 numbers" in ack.refused[0].reason


def test_a_refused_observation_does_not_make_its_model_the_first(collector, sqlite_store):
    receive(collector, [record(1, model=OTHER_MODEL, at=NOON + 9 * HOUR)])
    assert sqlite_store.models() == []


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"last_us": NOON + HOUR + 301 * SECOND}, "future"),
        ({"first_us": NOON + SECOND}, "time"),
        ({"captured_us": NOON + 2 * SECOND}, "time"),
        ({"first_us": 0}, "time"),
        ({"first_us": NOON + SECOND - LONGEST_TRACKLET_US - 1}, "time"),
    ],
)
def test_impossible_times_are_refused_and_stop_no_other(collector, values, kind):
    ack = receive(collector, [record(1), changed(record(2), **values), record(3)])
    assert ack.seqs == (1, 3)
    assert [refusal.seqs for refusal in ack.refused] == [(2,)]
    assert collector.stats.refused == {kind: 1}


def test_what_is_older_than_the_retention_is_refused_with_its_length(collector, sqlite_store, clock):
    sqlite_store.set_retention_hours(2)
    collector.retention.apply()
    clock.now = NOON + 2 * HOUR + 3 * SECOND
    ack = receive(collector, [record(1, at=NOON), record(2, at=NOON + 5 * SECOND)])
    assert ack.seqs == (2,)
    assert "2 hours" in ack.refused[0].reason


def test_a_row_that_cannot_be_read_is_refused_and_stops_no_other(collector):
    good = encode_observation(observation(record(1)))
    ack = decode_ack(collector.receive([encode_batch("door", "e1", [(1, good), (2, good[:-7])])])[0])
    assert ack.seqs == (1,)
    assert ack.refused[0].seqs == (2,)
    assert collector.stats.refused == {"unreadable": 1}


def test_a_batch_of_another_camera_than_its_sender_is_refused(collector, sqlite_store):
    payload = batch([record(1), record(2)])
    (ack,) = collector.receive([payload], senders=["yard"])
    assert decode_ack(ack).seqs == ()
    assert decode_ack(ack).refused[0].seqs == (1, 2)
    assert "'yard'" in decode_ack(ack).refused[0].reason
    assert sqlite_store.span(EVERYTHING).observations == 0
    (ack,) = collector.receive([payload], senders=["door"])
    assert decode_ack(ack).seqs == (1, 2)


def test_what_was_erased_is_acknowledged_so_that_the_camera_deletes_it_and_not_stored(collector, sqlite_store, clock):
    rows = [record(seq) for seq in range(1, 4)]
    receive(collector, rows[:2])
    sqlite_store.erase(Selection(cameras=("door",)), now_us=clock.now)
    assert receive(collector, rows).seqs == (1, 2, 3)
    assert sqlite_store.span(EVERYTHING).observations == 0
    assert collector.stats.erased == 3


def test_retention_is_applied_on_the_way(collector, sqlite_store, clock):
    receive(collector, [record(1)])
    clock.now = NOON + 80 * HOUR
    receive(collector, [record(2, at=NOON + 79 * HOUR)])
    assert sqlite_store.span(EVERYTHING).observations == 1
    assert collector.retention.expired == 1


def test_retention_is_applied_while_nothing_comes(sqlite_store, clock):
    collector = Collector(sqlite_store, clock=clock, read=clock.read, expire_every_s=0.01)
    receive(collector, [record(1)])
    clock.now = NOON + 80 * HOUR
    expired = threading.Event()
    expire = sqlite_store.expire
    sqlite_store.expire = lambda *given: (expire(*given), expired.set())[0]
    with collector.retention.running():
        assert expired.wait(10)
    assert sqlite_store.span(EVERYTHING).observations == 0


def test_what_was_committed_is_acknowledged_whatever_the_deletion_raises(collector, sqlite_store):
    def expire(*_given):
        raise RuntimeError("nobody expected this")

    sqlite_store.expire = expire
    assert decode_ack(collector.receive([batch([record(1)])])[0]).seqs == (1,)
    assert "nobody expected this" in collector.retention.trouble


def test_a_store_that_fails_stores_nothing_and_recovers(collector, sqlite_store, tmp_path):
    receive(collector, [record(1)])
    other = sqlite3.connect(tmp_path / "gallery.db", isolation_level=None)
    sqlite_store._connection.execute("PRAGMA busy_timeout = 1")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        collector.receive([batch([record(2)])])
    other.execute("ROLLBACK")
    other.close()
    assert (collector.stats.stored, collector.stats.batches) == (1, 1)
    assert receive(collector, [record(2)]).seqs == (2,)


def test_threads_are_served_one_after_another(collector, sqlite_store):
    payloads = [batch([record(10 * number + each) for each in range(1, 11)]) for number in range(8)]
    threads = [threading.Thread(target=collector.receive, args=([payload] * 2,)) for payload in payloads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sqlite_store.span(EVERYTHING).observations == 80
    assert (collector.stats.stored, collector.stats.duplicates) == (80, 80)


def test_what_is_from_the_future_has_two_causes(sqlite_store):
    collector = Collector(sqlite_store, clock=lambda: NOON)
    ack = decode_ack(collector.receive([batch([record(1, at=NOON + HOUR)])])[0])
    assert "clock is ahead, or its video file" in ack.refused[0].reason


def test_what_is_from_after_2099_is_refused_whatever_the_gallery_s_own_clock_says(sqlite_store):
    collector = Collector(sqlite_store, clock=lambda: IMPLAUSIBLE_US + HOUR)
    for at, is_refused in ((IMPLAUSIBLE_US - 1, False), (IMPLAUSIBLE_US, True)):
        ack = decode_ack(collector.receive([batch([record(1, at=at, lasts=0)])])[0])
        assert ["clock is ahead" in refused.reason for refused in ack.refused] == [True] * is_refused


def test_an_acknowledgement_says_which_gallery_has_committed(sqlite_store, clock):
    collector = Collector(sqlite_store, name="north", clock=clock)
    assert receive(collector, [record(1)]).gallery == "north"
    (ack,) = collector.receive([batch([record(2)])], shared_as="south")
    assert decode_ack(ack).gallery == "south"
    with pytest.raises(UsageError, match="name of a gallery"):
        Collector(sqlite_store, name="a/b")


def test_a_batch_for_this_gallery_among_others_is_stored(collector, sqlite_store):
    assert receive(collector, [record(1)], galleries=("other", "gallery")).seqs == (1,)
    assert sqlite_store.cameras()[0].gaps == 0


def test_a_batch_for_other_galleries_is_not_stored_and_one_growing_gap_tells_of_it(collector, sqlite_store, caplog):
    for first in range(1, 100, 10):
        rows = [record(seq) for seq in range(first, first + 10)]
        payload = batch(rows, galleries=("other",), gaps=[Gap(500, 500, 1, "lost")])
        assert collector.receive([payload] * 2, shared_as="gallery") == [b"", b""]
        ack = receive(collector, rows, galleries=("other",))
        assert (ack.seqs, ack.gaps) == ((), ())
        assert ack.refused[0].seqs == tuple(range(first, first + 10))
        assert "upstream.galleries" in ack.refused[0].reason
    assert sqlite_store.span(EVERYTHING).observations == 0
    (camera,) = sqlite_store.cameras()
    assert (camera.camera, camera.gaps, camera.lost, camera.elsewhere) == ("door", 0, 0, 100)
    assert (collector.stats.elsewhere, collector.stats.observations_elsewhere, collector.stats.gaps) == (30, 100, 0)
    assert collector.stats.refused == {"destination": 300}
    assert collector.stats.malformed == 0
    assert len(caplog.messages) == 1
    assert "--name" in caplog.messages[0]


def test_the_gap_of_rows_for_other_galleries_goes_on_after_a_restart(sqlite_store, clock):
    for _ in range(2):
        collector = Collector(sqlite_store, clock=clock)
        receive(collector, [record(seq) for seq in range(1, 11)], galleries=("other",))
    receive(collector, [record(seq) for seq in range(11, 16)], galleries=("other",))
    (camera,) = sqlite_store.cameras()
    assert (camera.gaps, camera.lost, camera.elsewhere) == (0, 0, 15)
    assert collector.stats.observations_elsewhere == 5


def test_a_camera_without_galleries_is_an_older_one_and_stored(collector):
    assert receive(collector, [record(1)], galleries=()).seqs == (1,)


def small_row(seq, model=None, **changes):
    """A row of 70 bytes: the smallest that can be read."""
    when = NOON + HOUR // 2
    fields = {
        "model_hash": model or bytes.fromhex(MODEL), "track": 1, "captured_us": when, "first_us": when, "last_us": when,
        "box": (0, 0, 1, 1), "crops": 1, "enc": 2, "dim": 1, "feature": np.float16(1).tobytes(), **changes,
    }  # fmt: skip
    return seq, observation_pb2.Observation(**fields).SerializeToString()


def raw_batch(rows=(), gaps=(), camera="door", incarnation="e1"):
    message = observation_pb2.Batch(version=1, camera=camera, epoch=incarnation)
    for seq, row in rows:
        message.rows.add(seq=seq, observation=row)
    for seq in gaps:
        message.gaps.add(first_seq=seq, last_seq=seq, count=1, reason=1)
    return message.SerializeToString()


@pytest.mark.parametrize("payload", [raw_batch(map(small_row, range(1, 2002))), raw_batch(gaps=range(1, 514))])
def test_a_batch_of_more_than_any_camera_sends_is_not_taken(collector, sqlite_store, payload, caplog):
    assert collector.receive([payload]) == [b""]
    assert sqlite_store.cameras() == []
    assert "at most 2000 rows and 512 gaps" in caplog.text


@pytest.mark.parametrize("count", [MOST_IN_GAP, 2**63 - 1])
def test_a_camera_that_declares_more_than_can_be_summed_up_spoils_no_summary(collector, sqlite_store, count):
    gaps = [encode_batch("door", f"e{number}", [], [Gap(1, 2**63 - 1, count, "lost")]) for number in range(1, 4)]
    receive(collector, [record(1)], camera="yard")
    collector.receive(gaps)
    assert [(one.camera, one.observations) for one in sqlite_store.cameras()][-1] == ("yard", 1)
    assert summarise(sqlite_store).lost == (3 * count if count == MOST_IN_GAP else 0)


def test_an_acknowledgement_is_small_whatever_is_refused(collector):
    receive(collector, [record(1)])
    rows = [small_row(seq, model=seq.to_bytes(32, "big")) for seq in range(2, 2002)]
    (ack,) = collector.receive([raw_batch(rows)])
    assert len(ack) < 20_000
    assert sorted(seq for refusal in decode_ack(ack).refused for seq in refusal.seqs) == list(range(2, 2002))


def test_one_batch_of_many_models_asks_the_store_once(collector, sqlite_store):
    receive(collector, [record(1)])
    asked = []
    models = sqlite_store.models
    sqlite_store.models = lambda: (asked.append(1), models())[1]
    collector.receive([raw_batch([small_row(seq, model=seq.to_bytes(32, "big")) for seq in range(2, 500)])])
    assert len(asked) == 1


def test_a_camera_over_its_quota_is_refused_with_the_reason_and_others_are_not(sqlite_store, clock, caplog):
    collector = Collector(sqlite_store, clock=clock, quota=Quota(rows=1, gaps=1))
    ack = receive(collector, [record(seq) for seq in range(1, 21)], gaps=[Gap(n, n, 1, "lost") for n in range(50, 70)])
    assert (len(ack.seqs), len(ack.gaps)) == (10, 10)
    assert ack.refused[0].seqs == tuple(range(11, 21))
    assert "--quota-rows" in ack.refused[0].reason
    assert collector.stats.refused == {"quota": 10}
    assert list(collector.accounts.over()) == [("door", "rows"), ("door", "gaps")]
    assert len(caplog.messages) == 2
    assert receive(collector, [record(1, camera="yard")], camera="yard").seqs == (1,)


def test_megabytes_are_a_quota_too(sqlite_store, clock):
    collector = Collector(sqlite_store, clock=clock, quota=Quota(megabytes=1))
    for _ in range(30):
        ack = receive(collector, [record(seq) for seq in range(1, 501)])
    assert "--quota-megabytes" in ack.refused[0].reason
    assert 7_500 < sum(len(ack.seqs) for ack in [ack]) + collector.stats.stored + collector.stats.duplicates < 8_700


def test_what_could_not_be_stored_counts_against_no_quota(sqlite_store, clock, monkeypatch):
    collector = Collector(sqlite_store, clock=clock, quota=Quota(rows=1, gaps=1))

    def failing(*_):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_store, "add", failing)
        for _ in range(30):
            with pytest.raises(StoreError):
                receive(collector, [record(1)], gaps=[Gap(5, 5, 1, "lost")])
    assert "the disk is full" in collector.commits.trouble
    assert len(receive(collector, [record(seq) for seq in range(1, 11)]).seqs) == 10
    assert collector.commits.trouble == ""


def test_outboxes_without_end_do_not_fill_the_gallery(sqlite_store, clock):
    collector = Collector(sqlite_store, clock=clock, quota=Quota(outboxes=1))
    acks = [receive(collector, [record(1, incarnation=f"e{n}")], incarnation=f"e{n}") for n in range(30)]
    assert [bool(ack.seqs) for ack in acks] == [True] * 10 + [False] * 20
    assert "--quota-outboxes" in acks[-1].refused[0].reason


def test_two_cameras_under_one_name_are_said_to_be(collector, caplog):
    for seq in range(1, 5):
        for incarnation in ("one", "two"):
            receive(collector, [record(seq, incarnation=incarnation)], incarnation=incarnation)
    assert [twins[0] for twins in collector.accounts.twins()] == ["door"]
    assert len(caplog.messages) == 1
    assert "two cameras seem to have the name 'door'" in caplog.text
    assert "camera.name" in caplog.text


def test_a_check_beside_the_camera_is_no_second_camera(collector):
    for seq in range(1, 9):
        receive(collector, [record(seq)])
        receive(collector, [], incarnation="check")
    assert not list(collector.accounts.twins())


@pytest.mark.parametrize("sender", ["", "a b", "x" * 65, "a\n", "ä"])
def test_a_sender_whose_name_is_no_name_is_not_answered(collector, sender):
    assert collector.receive([batch([record(1)])], senders=[sender]) == [b""]


def test_counts_can_be_read_and_other_threads_end_while_a_commit_hangs(collector, sqlite_store, monkeypatch):
    monkeypatch.setattr("reid_edge.gallery.collector.WAIT_S", 0.2)
    going_on, begun = threading.Event(), threading.Event()
    add = sqlite_store.add
    monkeypatch.setattr(sqlite_store, "add", lambda *rows: (begun.set(), going_on.wait(20), add(*rows))[2])
    hanging = threading.Thread(target=collector.receive, args=([batch([record(1)])],))
    hanging.start()
    assert begun.wait(20)
    assert collector.stats.stored == 0
    with pytest.raises(StoreError, match="busy with another commit"):
        collector.receive([batch([record(2)])])
    assert collector.commits.running_s > 0
    going_on.set()
    hanging.join()
    assert collector.stats.stored == 1


@settings(max_examples=60)
@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_no_bytes_raise_anything(data, seed):
    """Random bytes, and a real batch with random bytes in it: answered or not, but never an exception."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(open_store(f"sqlite:{folder}/g.db")) as store:
        collector = Collector(store, clock=lambda: NOON + HOUR)
        chance = random.Random(seed)
        good = bytearray(batch([record(seq, unit(4, seed=seq)) for seq in range(1, 4)], galleries=("gallery",)))
        for _ in range(chance.randint(1, 8)):
            good[chance.randrange(len(good))] = chance.randrange(256)
        for ack in collector.receive([data, bytes(good), bytes(good[: chance.randrange(len(good))])]):
            assert not ack or decode_ack(ack)
