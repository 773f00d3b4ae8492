import logging

import pytest

from reid_edge.backoff import Backoff, exponential_pause_s
from reid_edge.errors import TransportError

LOG = logging.getLogger("reid_edge.test")


@pytest.fixture
def clock(monkeypatch):
    """Seconds of the monotonic clock, which the test sets."""
    now = [1000.0]
    monkeypatch.setattr("reid_edge.backoff.time.monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("failures", range(12))
def test_a_pause_doubles_up_to_the_longest_and_loses_up_to_a_half(failures):
    whole = min(30.0, 0.5 * 2**failures)
    pauses = [exponential_pause_s(failures, 0.5, 30.0) for _ in range(50)]
    assert whole / 2 <= min(pauses) < max(pauses) <= whole


def test_failures_without_end_overflow_nothing():
    assert exponential_pause_s(10**6, 0.5, 30.0) <= 30.0


def test_failures_in_a_row_make_the_pause_longer_until_a_success(clock):
    backoff = Backoff(LOG, transient_s=(1.0, 16.0))
    longest = []
    for _ in range(6):
        longest.append(backoff.failed("no route"))
        clock[0] += longest[-1]
    assert all(top / 2 <= pause <= top for pause, top in zip(longest, (1, 2, 4, 8, 16, 16), strict=True))
    backoff.succeeded()
    assert backoff.reason == ""
    assert backoff.failed("no route") <= 1.0
    assert (backoff.failures, backoff.alerts) == (7, 0)


def test_failures_during_a_pause_do_not_make_it_longer(clock):
    backoff = Backoff(LOG, transient_s=(1.0, 16.0))
    first = backoff.failed("no route")
    clock[0] += first / 2
    assert backoff.failed("no route") == pytest.approx(first / 2)


def test_a_pause_is_as_long_as_the_other_end_asks(clock):
    assert Backoff(LOG).failed("busy", at_least_s=100.0) == 100.0


def test_nothing_may_be_sent_during_a_pause(clock):
    backoff = Backoff(LOG)
    backoff.check()
    clock[0] += backoff.failed("no route.") / 2
    with pytest.raises(TransportError, match=r"^no route\.$"):
        backoff.check()
    clock[0] += 30
    backoff.check()


def test_each_kind_of_failure_is_logged_once_and_what_a_person_has_to_fix_as_an_error(clock, caplog):
    backoff = Backoff(LOG)
    for _ in range(3):
        backoff.failed("no route")
    clock[0] += 60
    assert backoff.failed("bad certificate", permanent=True) >= 15.0
    assert backoff.alerts == 1
    assert [(record.levelno, record.message.split(";")[0]) for record in caplog.records] == [
        (logging.WARNING, "no route"),
        (logging.ERROR, "bad certificate"),
    ]
