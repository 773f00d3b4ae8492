"""reid_edge.camera.sources.clock: capture times while the wall clock is set, jumps, is slewed, or starts in 1970."""

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.camera.sources.clock import BELIEVED_US, STEP_US, CaptureClock
from reid_edge.upstream.clocks import IMPLAUSIBLE_US, PLAUSIBLE_US

SECOND = 10**9
YEAR = 365 * 86400 * SECOND
NOW = round(datetime.datetime(2026, 11, 27, tzinfo=datetime.timezone.utc).timestamp()) * SECOND


class Clocks:
    """A wall clock that can be set, and one that cannot."""

    def __init__(self, wall: int = NOW) -> None:
        self.wall = wall
        self.monotonic = 1000 * SECOND

    def capture_clock(self) -> CaptureClock:
        return CaptureClock(wall_ns=lambda: self.wall, monotonic_ns=lambda: self.monotonic)

    def run(self, clock, seconds, *, every_ms=40):
        """Times of the frames of so many seconds, and how far each is from the wall clock, microseconds."""
        times, errors, self.steady = [], [], []
        for _ in range(round(seconds * 1000 / every_ms)):
            self.wall += every_ms * 10**6
            self.monotonic += every_ms * 10**6
            times.append(clock.now_us())
            errors.append(times[-1] - self.wall // 1000)
            self.steady.append(times[-1] - clock.correction_us)
        return np.array(times), np.array(errors)


@pytest.fixture
def clocks():
    return Clocks()


def test_time_is_the_walls(clocks):
    _, errors = clocks.run(clocks.capture_clock(), 10)
    assert not errors.any()


@pytest.mark.parametrize("years", [1, -0.5], ids=["ahead", "back"])
@pytest.mark.parametrize("lasts_s", [1, 50])
def test_a_clock_that_is_wrong_for_a_moment_stamps_nothing_wrong(clocks, years, lasts_s):
    clock = clocks.capture_clock()
    times, _ = clocks.run(clock, 2)
    for change in (years, -years):
        clocks.wall += round(change * YEAR)
        more, errors = clocks.run(clock, lasts_s)
        times = np.concatenate([times, more])
    assert (np.diff(times) == 40_000).all()
    assert not errors.any()
    assert clock.correction_us == clock.ahead_us == 0


@pytest.mark.parametrize("years", [1, -0.5], ids=["ahead", "back"])
def test_a_clock_that_was_wrong_for_long_is_right_a_minute_after_it_was_set(clocks, years):
    clock = clocks.capture_clock()
    clocks.wall += round(years * YEAR)
    clocks.run(clock, 300)
    assert clock.correction_us == pytest.approx(years * YEAR / 1000, abs=1e5)
    assert clock.found_us == 0  # both are times that may be right
    clocks.wall -= round(years * YEAR)
    times, errors = clocks.run(clock, 90)
    assert (np.diff(times[:1400]) == 40_000).all()  # 56 s: evenly in the old time
    assert not errors[1510:].any()
    assert clock.correction_us == pytest.approx(0, abs=1e5)


def test_while_a_clock_is_not_believed_it_says_how_far_it_is_ahead(clocks):
    clock = clocks.capture_clock()
    clocks.wall -= 3600 * SECOND
    clocks.run(clock, 5)
    assert clock.ahead_us == -3_600_000_000


@pytest.mark.parametrize("start", [-60 * YEAR, 100 * SECOND, 140 * YEAR], ids=["1910", "1970", "2109"])
def test_a_machine_without_a_battery_has_the_right_time_as_soon_as_it_is_set(start):
    clocks = Clocks(wall=start)
    clock = clocks.capture_clock()
    times, _ = clocks.run(clock, 30)
    begin_us = max(0, start // 1000)  # no observation can be from before 1970
    assert begin_us <= times[0] and times[-1] < begin_us + 100_000_000
    clocks.wall = NOW
    times, errors = clocks.run(clock, 1)
    assert not errors.any()
    assert clock.correction_us == clock.found_us == pytest.approx(NOW // 1000 - begin_us, abs=2e8)
    clocks.wall += 3600 * SECOND  # and is set once more
    clocks.run(clock, 70)
    assert clock.found_us == clock.correction_us == pytest.approx(NOW // 1000 - begin_us + 3600e6, abs=2e8)


def test_of_two_times_that_cannot_be_right_the_first_goes_on(clocks):
    clocks.wall = 100 * SECOND
    clock = clocks.capture_clock()
    for wall in (140 * YEAR, 5 * YEAR, -YEAR):
        clocks.wall = wall
        clocks.run(clock, 300)
    assert clock.now_us() == 100_000_000 + 900_000_000 and clock.correction_us == clock.found_us == 0
    clocks.wall = NOW
    assert clock.now_us() == NOW // 1000 and clock.found_us == NOW // 1000 - 1_000_000_000


@pytest.mark.parametrize("wall", [-YEAR, 0, 140 * YEAR])
def test_a_time_that_cannot_be_right_is_never_believed_after_one_that_can(clocks, wall):
    clock = clocks.capture_clock()
    clocks.wall = wall
    times, _ = clocks.run(clock, 600)
    assert times[-1] == NOW // 1000 + 600_000_000
    assert clock.correction_us == 0


def test_a_small_step_back_and_a_leap_second_are_caught_up_with_at_half_speed(clocks):
    clock = clocks.capture_clock()
    clocks.run(clock, 1)
    clocks.wall -= SECOND
    times, errors = clocks.run(clock, 4)
    steps = np.diff(times)
    assert (steps[:48] == 20_000).all() and (steps[52:] == 40_000).all()
    assert not errors[51:].any()
    assert clock.correction_us == 0


def test_a_slewed_clock_is_followed(clocks):
    clock = clocks.capture_clock()
    for _ in range(2000):  # 500 ppm, as NTP slews at most, either way
        clocks.wall += 20_000
        _, ahead = clocks.run(clock, 0.04)
    for _ in range(4000):
        clocks.wall -= 20_000
        _, behind = clocks.run(clock, 0.04)
    assert abs(ahead[-1]) <= 20 and abs(behind[-1]) <= 20


def test_a_machine_that_slept_has_the_right_time_at_once(clocks):
    clock = clocks.capture_clock()
    clocks.run(clock, 1)
    clocks.wall += 8 * 3600 * SECOND
    clocks.monotonic += 8 * 3600 * SECOND  # CLOCK_BOOTTIME goes on
    _, errors = clocks.run(clock, 1)
    assert not errors.any() and clock.correction_us == 0


def test_a_clock_that_is_set_over_and_over_is_believed_once_it_stays(clocks):
    clock = clocks.capture_clock()
    for step in (100, 50, 7, -30, 12):
        clocks.wall += step * SECOND
        _, errors = clocks.run(clock, 40)
        assert errors[-1]
    _, errors = clocks.run(clock, 21)
    assert not errors[-1]


EVENT = st.tuples(
    st.one_of(st.integers(-3 * YEAR, 3 * YEAR), st.integers(-5 * SECOND, 5 * SECOND), st.sampled_from([0, NOW, -NOW])),
    st.sampled_from([0.04, 0.5, 3, 59, 61, 200]),
)


@given(events=st.lists(EVENT, max_size=12), start=st.sampled_from([NOW, 0, NOW + 2 * YEAR, 140 * YEAR]))
def test_however_the_wall_clock_is_set_times_go_on_and_are_right_within_two_minutes(events, start):
    clocks = Clocks(wall=start)
    clock = clocks.capture_clock()
    steady = [clock.now_us()]
    for jump, seconds in events:
        clocks.wall = max(0, clocks.wall + jump)
        clocks.run(clock, seconds, every_ms=40 if seconds < 5 else 500)
        steady += clocks.steady
    # On the scale that corrections do not change, time never runs backwards, and hardly faster than it passes.
    assert (np.diff(steady) > 0).all()
    assert (np.diff(steady) <= 500_000 + STEP_US).all()
    _, errors = clocks.run(clock, BELIEVED_US / 1e6 + 10, every_ms=500)
    if PLAUSIBLE_US + 100_000_000 <= clocks.wall // 1000 < IMPLAUSIBLE_US:
        assert errors[-1] == 0
