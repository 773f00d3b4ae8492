import contextlib

import pytest

from reid_edge.errors import StoreError
from reid_edge.gallery.health import FORGIVEN_S, SLOW_S, CommitRecord, Health, Problem


@pytest.fixture
def commits(clock):
    return CommitRecord(clock=clock)


def failing(commits, error):
    with contextlib.suppress(type(error)), commits.one():
        raise error


@pytest.mark.parametrize("error", [StoreError("the disk is full."), RuntimeError("odd")])
def test_a_failed_commit_is_trouble_until_one_succeeds(commits, error):
    assert commits.trouble == ""
    failing(commits, error)
    assert str(error).rstrip(".") in commits.trouble
    with commits.one():
        commits.succeeded()
    assert commits.trouble == ""


def test_a_commit_that_runs_on_and_on_is_trouble_while_it_does(commits, clock):
    with commits.one():
        clock.now = SLOW_S + 1
        assert commits.trouble == "the store has not answered for 21 s"
    assert commits.trouble == ""


def test_what_stores_nothing_proves_nothing(commits):
    failing(commits, StoreError("full"))
    with commits.one():
        pass
    assert "full" in commits.trouble


def test_a_probe_is_too_small_to_excuse_a_failed_commit_at_once(commits, clock):
    failing(commits, StoreError("full"))
    commits.succeeded(probe=True)
    assert "full" in commits.trouble
    clock.now += FORGIVEN_S + 1
    commits.succeeded(probe=True)
    assert commits.trouble == ""


def test_all_problems_are_in_one_line_and_logged_once_a_minute(caplog):
    health = Health([lambda: [Problem("store", "no store")], list, lambda: [Problem("broker", "no broker")]])
    assert health.reason() == "no store; no broker"
    health.log()
    health.log()
    assert caplog.messages == ["no store", "no broker"]


def test_what_the_retention_logs_itself_is_not_logged_twice(caplog):
    health = Health([lambda: [Problem("retention", "late")]])
    health.log()
    assert health.reason() == "late"
    assert not caplog.messages
