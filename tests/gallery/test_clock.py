"""What a wrong clock of the gallery's machine does: it deletes nothing, refuses nothing for ever, and is noticed."""

import contextlib
import logging
import os
import subprocess
import sys
import time

import hypothesis
import hypothesis.strategies as st
import pytest

from reid_edge.gallery.clock import ALONE_US, GalleryClock, kept_since_us
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.deletion import Retention, erase_with_receipt
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.store import open_store
from reid_edge.upstream.clocks import Reading
from reid_edge.upstream.message import decode_ack
from tests.faults.clocks import Clock, need_faketime
from tests.gallery.stores import DIM, HOUR, MODEL, NOON, SECOND, batch, record

DAY, MINUTE = 24 * HOUR, 60 * SECOND


class Machine:
    """A machine's clocks: the truth, and the error of the time of day."""

    def __init__(self):
        self.boot, self.boot_us, self.true_us, self.error_us = "boot-0", 100 * SECOND, NOON + HOUR, 0

    def __call__(self):
        return self.true_us + self.error_us

    def read(self):
        return Reading(self.boot, self.boot_us, self())

    def run(self, us):
        self.boot_us += us
        self.true_us += us

    def off(self, us):
        self.boot, self.boot_us = f"boot-{int(self.boot[5:]) + 1}", 20 * SECOND
        self.true_us += us

    def pause(self, us):
        """As a virtual machine whose snapshot is resumed later: its own clocks have stood still, then it is set."""
        self.true_us += us


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def gallery(sqlite_store, machine):
    return Gallery(sqlite_store, machine)


class Gallery:
    def __init__(self, store, machine):
        self.store, self.machine, self.seq = store, machine, 0
        self.start()

    def start(self):
        self.collector = Collector(self.store, clock=self.machine, read=self.machine.read, expire_every_s=0)

    def receive(self, camera="door", at=None, sender=None):
        self.seq += 1
        at = self.machine.true_us if at is None else at
        payload = batch([record(self.seq, at=at, lasts=0, camera=camera)], camera=camera)
        return decode_ack(self.collector.receive([payload], senders=[sender])[0])

    def minutes(self, count, *cameras):
        """Run so long, with a row each minute from cameras on other machines whose clocks are right."""
        acks = []
        for _ in range(count):
            self.machine.run(MINUTE)
            acks = [self.receive(camera, sender=camera) for camera in cameras]
            self.collector.retention.apply()
        return acks

    @property
    def held(self):
        return self.store.span(Selection()).observations

    @property
    def trouble(self):
        return self.collector.retention.trouble


@pytest.mark.parametrize("error_us", [4 * DAY, 365 * DAY, 2 * HOUR + 70 * HOUR])
def test_a_clock_that_is_ahead_for_a_moment_deletes_nothing_and_is_told(gallery, machine, error_us, caplog):
    for _ in range(5):
        gallery.receive(at=machine.true_us - HOUR)
    machine.error_us = error_us
    with caplog.at_level(logging.WARNING):
        assert gallery.collector.retention.apply() == 0
    assert "ahead of the time that has passed" in gallery.trouble
    assert "--clock-is-right" in caplog.text
    machine.error_us = 0
    machine.run(MINUTE)
    assert gallery.collector.retention.apply() == 0
    assert (gallery.held, gallery.trouble) == (5, "")


def test_a_restart_under_the_wrong_clock_deletes_nothing(gallery, machine):
    gallery.receive()
    machine.error_us = 4 * DAY
    for restart in (gallery.start, lambda: (machine.off(MINUTE), gallery.start())):
        restart()
        gallery.minutes(3)
        assert gallery.held == 1
    assert gallery.trouble


def test_a_gallery_of_an_earlier_release_believes_no_clock_that_is_far_from_what_it_holds(sqlite_store, machine):
    sqlite_store.accept_model(MODEL, DIM, now_us=NOON)
    sqlite_store.add([record(1, at=machine.true_us - MINUTE)])
    machine.error_us = 4 * DAY
    retention = Retention(sqlite_store, clock=machine, read=machine.read)
    assert retention.apply() == 0
    assert retention.trouble


def test_cameras_with_right_clocks_are_taken_while_the_gallery_is_wrong(gallery, machine):
    for error_us in (4 * DAY, -4 * DAY, 0):
        machine.error_us = error_us
        assert gallery.receive("yard", sender="yard").seqs
        assert gallery.receive("yard", at=machine.true_us - 3 * HOUR, sender="yard").seqs


@pytest.mark.parametrize("cameras", [("yard",), ("yard", "hall", "gate")])
def test_cameras_keep_a_wrong_clock_from_being_believed(gallery, machine, cameras):
    gallery.receive("door")
    machine.error_us = 4 * DAY
    gallery.minutes(5, *cameras)
    machine.run(2 * ALONE_US)
    gallery.minutes(1)
    assert gallery.trouble
    assert gallery.held == 1 + 5 * len(cameras)


@pytest.mark.parametrize("away", ["off", "pause"])
def test_after_a_week_away_the_cameras_confirm_the_clock_and_what_is_old_is_deleted(gallery, machine, away):
    gallery.receive()
    gallery.minutes(5)
    getattr(machine, away)(7 * DAY)
    gallery.start()
    gallery.minutes(5, "yard")
    assert gallery.held == 1 + 5
    gallery.minutes(15, "yard")
    assert gallery.held == 20
    assert gallery.trouble == ""


def test_one_camera_that_shares_the_wrong_clock_is_outvoted(gallery, machine):
    gallery.receive()
    machine.error_us = 4 * DAY
    for _ in range(30):
        machine.run(MINUTE)
        gallery.receive("bad", at=machine(), sender="bad")
        gallery.receive("yard", sender="yard")
        gallery.receive("hall", sender="hall")
        gallery.collector.retention.apply()
    assert gallery.store.span(Selection(cameras=("door",))).observations == 1


def test_a_camera_in_this_process_confirms_nothing(gallery, machine):
    """It has the same clock."""
    gallery.receive()
    machine.error_us = 4 * DAY
    for _ in range(30):
        machine.run(MINUTE)
        gallery.receive("inside", at=machine())
        gallery.collector.retention.apply()
    assert gallery.store.span(Selection(cameras=("door",))).observations == 1


def test_without_cameras_a_steady_clock_is_believed_after_a_day_over_restarts(gallery, machine):
    gallery.receive()
    machine.off(7 * DAY)
    for _ in range(4):
        gallery.start()
        machine.run(ALONE_US // 4)
        gallery.collector.retention.apply()
        machine.off(0)
    assert gallery.held == 0


def test_a_month_of_right_time_does_not_vouch_for_the_next_boot(gallery, machine):
    gallery.minutes(1)
    machine.run(30 * DAY)
    gallery.minutes(1)
    gallery.receive()
    machine.off(MINUTE)
    machine.error_us = 4 * DAY
    gallery.start()
    gallery.minutes(30)
    assert gallery.held == 1


def test_a_suspended_machine_has_counted_the_time(gallery, machine):
    gallery.receive()
    gallery.minutes(1)
    machine.run(4 * DAY)  # the kernel's count goes on while it is suspended
    gallery.minutes(1)
    assert (gallery.held, gallery.trouble) == (0, "")


def test_a_clock_that_goes_back_refuses_nothing_for_ever(gallery, machine):
    machine.error_us = 4 * DAY
    gallery.start()
    gallery.minutes(1)
    gallery.collector.retention.clock.believe()  # a person was wrong
    machine.error_us = 0
    machine.run(MINUTE)
    assert gallery.receive("yard", sender="yard").seqs
    gallery.minutes(20, "yard")
    assert gallery.trouble == ""
    assert kept_since_us(gallery.store, machine()) == machine() - 72 * HOUR


def test_a_count_from_after_2099_gives_way_at_once(gallery, machine):
    machine.error_us = 100 * 365 * DAY
    gallery.start()  # the whole machine, and so its count, is a century ahead
    gallery.collector.retention.clock.believe()
    assert gallery.receive().seqs == ()
    machine.error_us = 0
    assert gallery.receive().seqs and kept_since_us(gallery.store, machine()) < machine.true_us
    assert gallery.collector.retention.clock.trouble == ""
    gallery.start()
    assert gallery.collector.retention.clock.now().believed_us == machine.true_us


def test_a_person_is_believed_at_once_and_by_the_collector_that_runs(gallery, machine):
    gallery.receive()
    machine.pause(4 * DAY)
    gallery.minutes(1)
    assert gallery.held == 1
    machine.run(SECOND)
    GalleryClock(gallery.store, wall=machine, read=machine.read).believe()  # another process
    gallery.minutes(1)
    assert (gallery.held, gallery.trouble) == (0, "")


def test_a_damaged_count_is_as_good_as_none(gallery, machine):
    gallery.receive()
    gallery.minutes(1)
    gallery.store.change_settings({f"clock/{machine.boot}": "\x00{"})
    machine.error_us = 4 * DAY
    gallery.start()
    gallery.minutes(1)
    assert gallery.held == 1


@pytest.mark.parametrize("slow_us", [10 * MINUTE, 55 * MINUTE])
def test_what_was_erased_under_a_slow_clock_stays_out_when_it_is_set(gallery, machine, slow_us):
    machine.error_us = -slow_us
    gallery.start()
    gallery.minutes(1)
    with read_by(machine):
        erase_with_receipt(gallery.store, Selection(cameras=("door",)), purpose="a test", now_us=machine())
    seen_us = machine.true_us - SECOND
    machine.run(MINUTE)
    machine.error_us = 0
    gallery.minutes(1)
    assert gallery.receive(at=seen_us).seqs
    assert gallery.held == 0
    assert gallery.receive(at=seen_us + 20 * MINUTE).seqs == ()  # of the future
    machine.run(HOUR)
    assert gallery.receive(at=seen_us + 20 * MINUTE).seqs
    assert gallery.held == 1


def test_an_erasure_by_a_clock_that_is_behind_the_count_is_made_by_the_count(gallery, machine):
    gallery.minutes(1)
    erase_with_receipt(gallery.store, Selection(cameras=("door",)), purpose="a test", now_us=machine.true_us - 3 * HOUR)
    gallery.receive("door")
    assert gallery.held == 0


def test_a_receipt_says_what_it_cannot_promise(gallery, machine):
    gallery.minutes(1)
    with read_by(machine):
        certain = erase_with_receipt(gallery.store, Selection(track=1), purpose="a test", now_us=machine())
        machine.error_us = -4 * DAY
        doubtful = erase_with_receipt(gallery.store, Selection(track=1), purpose="a test", now_us=machine())
    assert certain.not_promised == ""
    assert certain.kept_out_until_us == machine.true_us + 10 * MINUTE
    assert "erase again when it is right" in doubtful.not_promised
    assert doubtful.kept_out_until_us == certain.kept_out_until_us


@contextlib.contextmanager
def read_by(machine):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GalleryClock.__init__, "__kwdefaults__", {"wall": machine, "read": machine.read})
        yield


EVENTS = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 600)),
    st.tuples(st.just("set"), st.sampled_from([0, 1, -1]), st.integers(1, 60 * 24 * 400)),
    st.tuples(st.just("off"), st.integers(0, 60 * 24 * 10)),
    st.tuples(st.just("pause"), st.integers(0, 60 * 24 * 10)),
    st.tuples(st.just("start")),
)


@hypothesis.settings(max_examples=int(os.environ.get("REID_EDGE_CLOCK_EXAMPLES", "10")))
@hypothesis.given(events=st.lists(EVENTS, max_size=25))
def test_whatever_the_clock_does_nothing_young_is_deleted_while_a_right_camera_sends(events, tmp_path_factory):
    """And when the clock is right again, what is old goes within the hour."""
    machine = Machine()
    store = open_store(f"sqlite:{tmp_path_factory.mktemp('clock') / 'g.db'}")
    gallery = Gallery(store, machine)
    store.set_retention_hours(24)
    taken = {}

    def minute():
        (ack,) = gallery.minutes(1, "yard")
        taken.update(dict.fromkeys(ack.seqs, machine.true_us))
        found = store.search(record(1).feature, model_hash=MODEL, selection=Selection(), top=9999)
        held = {match.entry.seq for match in found}
        assert {seq for seq, at in taken.items() if at > machine.true_us - 24 * HOUR} <= held
        return held

    for kind, *values in events:
        if kind == "set":
            machine.error_us = values[0] * values[1] * MINUTE
        elif kind == "start":
            gallery.start()
        elif kind == "run":
            machine.run(values[0] * MINUTE)
        else:
            getattr(machine, kind)(values[0] * MINUTE)
            gallery.start()
        minute()
    machine.error_us = 0
    for _ in range(40):
        held = minute()
    assert all(taken[seq] >= machine.true_us - 25 * HOUR for seq in held)
    store.close()


def test_a_process_under_a_faked_clock_deletes_nothing(gallery, tmp_path):
    """The kernel's count is not faked with it."""
    need_faketime()
    ahead = Clock(tmp_path / "clock")
    ahead.set("+4d")
    store = open_store(f"sqlite:{tmp_path / 'real.db'}")
    script = "from reid_edge.__main__ import main; main()"
    now = time.time_ns() // 1000
    Collector(store).receive([batch([record(seq, at=now - HOUR) for seq in range(1, 6)])])
    done = subprocess.run(
        [sys.executable, "-c", script, "gallery", "expire", store.name],
        env=os.environ | ahead.environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert b"96 hours ahead" in done.stderr
    assert store.span(Selection()).observations == 5
    store.close()
