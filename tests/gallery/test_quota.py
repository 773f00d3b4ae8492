"""What one camera may bring, by a clock that only the test moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reid_edge.errors import UsageError
from reid_edge.gallery.quota import BURST_HOURS, RETURNING_S, SHOWN_S, Account, Accounts, Bucket, Quota


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@given(st.lists(st.tuples(st.floats(0, 7200), st.integers(1, 50_000)), max_size=60))
def test_no_more_can_be_taken_than_a_burst_and_what_has_come_since(steps):
    bucket, now, taken = Bucket(1000, 0.0), 0.0, 0
    for seconds, count in steps:
        now += seconds
        taken += count if bucket.take(count, now) else 0
        assert taken <= 1000 * BURST_HOURS + 1000 * now / 3600 + 1e-6


def test_what_is_given_back_can_be_taken_again():
    bucket = Bucket(1, 0.0)
    assert bucket.take(BURST_HOURS, 0.0)
    assert not bucket.take(1, 0.0)
    bucket.give_back(1)
    assert bucket.take(1, 0.0)
    bucket.give_back(1000)
    assert not bucket.take(BURST_HOURS + 1, 0.0)


def test_a_camera_over_its_quota_is_shown_for_a_while():
    clock = Clock()
    accounts = Accounts(Quota(rows=1), clock=clock)
    assert accounts.of("door").take("rows", BURST_HOURS, clock.now)
    assert list(accounts.over()) == []
    assert not accounts.of("door").take("rows", 1, clock.now)
    assert accounts.of("yard").take("rows", 1, clock.now)
    assert list(accounts.over()) == [("door", "rows")]
    clock.now += SHOWN_S
    assert list(accounts.over()) == []


@pytest.mark.parametrize("order", ["aaaabbbb", "aaabaabb"[:5], "abcdefgh", "aab" + "b" * 50, "ab" + "cd"])
def test_an_outbox_that_is_replaced_is_no_second_camera(order):
    account = Account(Quota(), 0.0)
    for each in order:
        assert account.comes_from(each, 0.0)
    assert account.twins is None


def test_two_outboxes_that_take_turns_are_two_cameras():
    account = Account(Quota(), 0.0)
    for second, each in enumerate("abababab"):
        account.comes_from(each, float(second))
    assert account.twins is not None
    assert set(account.twins[:2]) == {"a", "b"}


def test_turns_that_are_far_apart_are_somebody_who_goes_back_and_forth():
    account = Account(Quota(), 0.0)
    for turn, each in enumerate("abababab"):
        account.comes_from(each, turn * RETURNING_S)
    assert account.twins is None


def test_outboxes_and_models_without_end_are_refused_and_known_ones_are_not():
    account = Account(Quota(outboxes=1, models=1), 0.0)
    taken = [account.comes_from(f"e{number}", 0.0) for number in range(50)]
    assert taken == [True] * BURST_HOURS + [False] * (50 - BURST_HOURS)
    assert account.comes_from(f"e{BURST_HOURS - 1}", 0.0)
    named = [account.names_model(f"{number}", 0.0) for number in range(50)]
    assert named.count(True) == BURST_HOURS
    assert account.names_model("0", 0.0)
    assert set(account.over) == {"outboxes", "models"}


def test_memory_is_bounded_however_many_names_come():
    accounts = Accounts(Quota())
    for number in range(10_500):
        accounts.of(f"c{number}")
    assert len(accounts._accounts) == 10_000
    account = Account(Quota(outboxes=1e9), 0.0)
    for number in range(1000):
        account.comes_from(f"e{number}", 0.0)
    assert len(account._incarnations) == 200


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_quota_of_nothing_is_refused(value):
    with pytest.raises(UsageError, match="--quota-rows must be at least 1"):
        Quota(rows=value)
