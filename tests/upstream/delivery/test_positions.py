"""What several galleries have acknowledged, with the test's clock."""

import random

import pytest

from reid_edge.upstream.delivery.positions import Positions


def test_a_row_is_complete_once_every_gallery_has_it():
    positions = Positions(("a", "b"), 10, 60)
    positions.sending((1, 2, 3), 0)
    a, b = positions.of("a"), positions.of("b")
    assert positions.acknowledged(a, (1, 2), 1)[0] == []
    assert positions.acknowledged(b, (2, 3), 1)[0] == [2]
    assert positions.acknowledged(a, (2, 3), 1)[0] == [3]
    assert positions.acknowledged(b, (1, 1), 1)[0] == [1]
    assert positions.lacking == {"a": 0, "b": 0}
    assert all(seq not in positions for seq in (1, 2, 3))


def test_what_one_gallery_lacks_takes_no_room_and_is_sent_again():
    positions = Positions(("a", "b"), 10, 60)
    for seq in range(100):
        positions.sending((seq,), 0)
        positions.acknowledged(positions.of("a"), (seq,), 0)
    assert positions.in_flight == 0
    assert positions.lacking == {"a": 0, "b": 100}
    assert positions.due(10, 64, room=False) == tuple(range(64))
    positions.sending(tuple(range(64)), 10)
    assert positions.in_flight == 0
    assert positions.next_due_s(10, room=True) == 20  # b is silent: a probe, and no more
    positions.acknowledged(positions.of("b"), tuple(range(64)), 15)
    assert positions.lacking == {"a": 0, "b": 36}


def test_rows_lost_on_the_way_to_both_are_sent_once_more_not_twice():
    positions = Positions(("a", "b"), 10, 60)
    positions.sending((1, 2), 0)
    for name in "ab":
        positions.acknowledged(positions.of(name), (1,), 1)
    positions.sending((3, 4), 2)
    positions.lost()
    again = []
    while seqs := positions.due(2, 64, room=True):
        again += seqs
        positions.sending(seqs, 2)
    assert sorted(again) == [2, 3, 4]


def test_numbers_that_were_never_sent_count_for_nothing():
    positions = Positions(("a",), 10, 60)
    positions.sending((1, 2), 0)
    only = positions.of("a")
    assert positions.acknowledged(only, range(200_000), 1)[0] == [1, 2]
    assert positions.acknowledged(only, (1, 2), 1)[0] == []
    assert positions.refuse(only, range(200_000), "no", 1) == 0
    assert positions.refused == 0
    positions.sending_gaps([(5, 9)])
    assert positions.gaps_acknowledged(only, [(5, 8), (1, 2)]) == []
    assert positions.gaps_acknowledged(only, [(5, 9), (5, 9)]) == [(5, 9)]


def test_a_gap_is_complete_once_every_gallery_has_it():
    positions = Positions(("a", "b"), 10, 60)
    positions.sending_gaps([(1, 3)])
    assert positions.gaps_acknowledged(positions.of("a"), [(1, 3)]) == []
    positions.sending_gaps([(1, 3)])
    assert positions.gaps_acknowledged(positions.of("b"), [(1, 3)]) == [(1, 3)]


@pytest.mark.parametrize(
    ("galleries", "name", "counts"),
    [
        (("a",), "a", True),
        (("a",), "", True),  # of an earlier release
        (("a",), "b", False),
        (("a", "b"), "", False),
        ((), "b", True),
    ],
)
def test_whose_acknowledgement_counts(galleries, name, counts):
    assert (Positions(galleries, 10, 60).of(name) is not None) == counts


def test_one_gallery_refuses_what_another_takes():
    positions = Positions(("a", "b"), 10, 60)
    a, b = positions.of("a"), positions.of("b")
    positions.sending((1, 2), 0)
    assert positions.refuse(a, (1,), "no", 1) == 1
    positions.acknowledged(b, (1, 2), 1)
    assert (positions.refused, positions.held_back) == (1, 1)
    assert positions.acknowledged(a, (2,), 2)[0] == [2]
    assert positions.due(61, 64, room=True) == (1,)
    positions.sending((1,), 61)
    assert positions.acknowledged(b, (1,), 62)[0] == []
    assert positions.acknowledged(a, (1,), 62)[0] == [1]
    assert positions.refused == 0


@pytest.mark.parametrize("seed", range(20))
def test_every_row_is_complete_once_whatever_comes_in_whatever_order(seed):
    rng = random.Random(seed)
    names = "abc"[: rng.randrange(1, 4)]
    positions = Positions(names, 5, 5)
    sent, done, now = list(range(1, 200)), [], 0.0
    has = {name: set() for name in names}
    todo = list(sent)
    while len(done) < len(sent):
        now += 1
        assert now < 20_000
        seqs = positions.due(now, 8, room=True) or tuple(todo[:8])
        if seqs:
            todo = [seq for seq in todo if seq not in seqs]
            positions.sending(seqs, now)
            if rng.random() < 0.1:
                positions.failed(seqs)
        for name in names:
            if not seqs or rng.random() < 0.4:
                continue  # lost
            position = positions.of(name)
            if rng.random() < 0.1:
                positions.refuse(position, rng.sample(seqs, len(seqs) // 2), "no", now)
                continue
            has[name].update(seqs)
            complete, _ = positions.acknowledged(position, [*seqs, *rng.sample(sent, 5)], now)
            done += complete
    assert sorted(done) == sent
    assert positions.in_flight == positions.refused == 0
