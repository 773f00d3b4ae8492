"""The ages of rows on machines whose clock is set, wrong or starts in 1970."""

import random
import time

import pytest

from reid_edge.upstream.observation import Gap
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.outbox.age_clock import AgeClock, AgeState
from tests.upstream.observing import observed
from tests.upstream.outboxes import DAY, HOUR, NOW, SECOND, Clocks, opened, tracks


def test_rows_expire_by_age_and_are_declared(ram_path):
    clocks = Clocks()
    with opened(ram_path / "outbox.db", retention_s=3600, read_clocks=clocks) as outbox:
        outbox.put([observed(1), observed(2)])
        clocks.run(HOUR // 2)
        outbox.put([observed(3)])
        outbox.expire()
        assert outbox.depth == 3
        clocks.run(HOUR // 2 + SECOND)
        outbox.expire()
        assert tracks(outbox) == [3]
        assert outbox.gaps() == [Gap(1, 2, 2, "expired")]
        clocks.run(HOUR)
        outbox.expire()
        assert (outbox.depth, outbox.payload_bytes) == (0, 0)


@pytest.mark.parametrize("jump_us", [56 * 365 * DAY, -56 * 365 * DAY, 365 * DAY, -365 * DAY])
@pytest.mark.parametrize("wall_us", [NOW, 5 * SECOND])
def test_setting_the_clock_ages_nothing(ram_path, jump_us, wall_us):
    clocks = Clocks(wall_us)
    with opened(ram_path / "outbox.db", retention_s=3600, read_clocks=clocks) as outbox:
        outbox.put([observed(1)])
        for _ in range(25):
            clocks.run(60 * SECOND)
            outbox.expire()
        clocks.wall_us = max(0, clocks.wall_us + jump_us)
        for _ in range(30):
            outbox.expire()
            clocks.run(60 * SECOND)
        assert outbox.depth == 1
        clocks.run(6 * 60 * SECOND)
        outbox.expire()
        assert outbox.depth == 0  # after one hour and a minute, whatever the clock says


def test_time_counts_while_the_process_is_down(ram_path):
    clocks = Clocks()
    with opened(ram_path / "outbox.db", retention_s=3600, read_clocks=clocks) as outbox:
        outbox.put([observed(1)])
    clocks.run(HOUR // 2)
    with opened(ram_path / "outbox.db", retention_s=3600, read_clocks=clocks) as outbox:
        outbox.expire()
        assert outbox.depth == 1
    clocks.run(HOUR // 2 + SECOND)
    with opened(ram_path / "outbox.db", retention_s=3600, read_clocks=clocks) as outbox:
        outbox.expire()
        assert outbox.depth == 0


def minutes(clocks: Clocks, outbox: Outbox, count: int) -> None:
    for _ in range(count):
        clocks.run(60 * SECOND)
        outbox.expire()


def test_time_switched_off_counts_once_the_clock_can_be_believed(ram_path):
    clocks = Clocks()
    path = ram_path / "outbox.db"
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 20)
        outbox.put([observed(1)])
    clocks.reboot(off_us=DAY)
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 10)
        assert outbox.depth == 1  # the clock might be wrong for the moment
        minutes(clocks, outbox, 10)
        assert outbox.depth == 0


def test_a_clock_that_starts_in_1970_and_is_put_right_counts_the_time_switched_off(ram_path):
    clocks = Clocks()
    path = ram_path / "outbox.db"
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 20)
        outbox.put([observed(1)])
    true_us = clocks.wall_us + DAY
    clocks.reboot(wall_us=0)
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 20)
        assert outbox.depth == 1
        clocks.wall_us = true_us
        minutes(clocks, outbox, 20)
        assert outbox.depth == 0


def test_a_camera_that_was_never_right_before_loses_nothing_to_the_first_right_clock(ram_path):
    clocks = Clocks(wall_us=0)
    path = ram_path / "outbox.db"
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 20)
        outbox.put([observed(1)])
    clocks.reboot(wall_us=NOW)
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 30)
        assert outbox.depth == 1


def test_a_clock_wrong_by_a_year_for_a_moment_after_a_reboot_ages_nothing(ram_path):
    clocks = Clocks()
    path = ram_path / "outbox.db"
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 20)
        outbox.put([observed(1)])
    clocks.reboot(off_us=365 * DAY)
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 14)
        clocks.wall_us -= 365 * DAY
        minutes(clocks, outbox, 30)
        assert outbox.depth == 1


def test_the_age_clock_never_goes_back():
    rng = random.Random(5)
    clocks = Clocks()
    state = AgeState()
    last = 0
    for _ in range(300):
        clock = AgeClock(state, clocks)
        for _ in range(rng.randrange(1, 30)):
            clocks.run(rng.randrange(0, 10 * 60 * SECOND))
            if rng.random() < 0.1:
                clocks.wall_us = rng.choice([0, NOW, NOW + rng.randrange(DAY), NOW + 400 * DAY])
            clock.settle()
            assert clock.now_us() >= last
            last = clock.now_us()
        state = clock.state()
        if rng.random() < 0.5:
            clocks.reboot(off_us=rng.randrange(DAY))


def test_the_age_of_the_oldest_row_survives_a_set_clock(ram_path):
    clocks = Clocks()
    with opened(ram_path / "outbox.db", read_clocks=clocks) as outbox:
        assert outbox.oldest_age_s() is None
        outbox.put([observed(1)])
        clocks.run(100 * SECOND)
        clocks.wall_us = 0
        assert outbox.oldest_age_s() == pytest.approx(100)


def test_the_real_clocks_tick(ram_path):
    with opened(ram_path / "outbox.db", retention_s=0.05) as outbox:
        outbox.put([observed(1)])
        deadline = time.monotonic() + 5
        while outbox.depth and time.monotonic() < deadline:
            outbox.expire()
        assert outbox.depth == 0
