"""The soak's judge: what it calls lost is lost."""

from collections import Counter

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture
def ledger(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import soak_ledger

    return soak_ledger


def _rows(*seqs, incarnation="e1"):
    return {("camA", incarnation, seq): 100 + seq for seq in seqs}


def _settle(ledger, rows, there=(), gaps=(), waiting=(), erased=()):
    gaps = [ledger.Declared("camA", *gap) for gap in gaps]
    there = Counter(("camA", "e1", seq) for seq in there)
    return ledger.settle(rows, there, gaps, waiting=set(waiting), erased=set(erased))


def test_what_is_nowhere_is_lost(ledger):
    account = _settle(ledger, _rows(1, 2, 3), there=[1, 3])
    assert account.lost == [("camA", "e1", 2)]
    assert not account.good


def test_what_is_somewhere_is_not_lost(ledger):
    account = _settle(
        ledger,
        _rows(1, 2, 3, 4),
        there=[1],
        gaps=[("e1", 2, 2, 1, "full")],
        waiting=[("camA", "e1", 3)],
        erased=[("camA", "e1", 104)],
    )
    assert (account.stored, account.declared, account.waiting, account.erased) == (1, 1, 1, 1)
    assert account.good


def test_of_another_incarnation_as_many_are_declared_as_its_gaps_count(ledger):
    account = _settle(ledger, _rows(1, 2, 3), there=[1], gaps=[("e2", 1, 1, 1, "lost")])
    assert (account.declared, len(account.lost)) == (1, 1)
    assert _settle(ledger, _rows(1, 2, 3), there=[1], gaps=[("e2", 1, 2, 2, "lost")]).good
    assert not _settle(ledger, _rows(1, 2, 3), there=[1], gaps=[("e2", 1, 2, 2, "full")]).good


def test_a_gap_does_not_declare_more_than_it_counts(ledger):
    assert not _settle(ledger, _rows(1, 2, 3), there=[1], gaps=[("e1", 1, 3, 1, "lost")]).good


def test_what_was_erased_must_be_out_and_nothing_there_twice(ledger):
    assert _settle(ledger, _rows(1, 2), there=[1, 2], erased=[("camA", "e1", 101)]).back == [("camA", "e1", 1)]
    assert _settle(ledger, _rows(1), there=[1, 1]).twice == 1


def test_a_ledger_of_an_agent_that_was_killed_is_read_up_to_its_last_whole_line(ledger, tmp_path):
    (tmp_path / "ledger").write_text('["e1", 5, [1, 2]]\n["e1", 7, [3')
    assert ledger.committed("camA", [tmp_path / "ledger", tmp_path / "none"]) == {
        ("camA", "e1", 5): 1,
        ("camA", "e1", 6): 2,
    }
