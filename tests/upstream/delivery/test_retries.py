"""Rows to send again, with the test's clock."""

import re

from reid_edge.upstream.delivery.retries import InFlight, Refusals


def test_rows_are_due_after_the_timeout_while_acknowledgements_come():
    in_flight = InFlight(10)
    in_flight.add((1, 2), 0)
    in_flight.add((3, 4), 5)
    assert in_flight.acknowledged((2,), 6) == []
    assert in_flight.due(9.9, 64) == ()
    assert in_flight.next_due_s(9.9) == 10
    assert in_flight.due(10, 64) == (1,)
    in_flight.add((1,), 10)
    assert in_flight.due(15, 64) == (3, 4)
    assert len(in_flight) == 4 - 1


def test_small_batches_are_sent_again_as_one():
    in_flight = InFlight(10)
    in_flight.add((99,), 0)
    in_flight.acknowledged((99,), 9)
    for seq in range(10):
        in_flight.add((seq,), 1)
    assert in_flight.due(11, 8) == tuple(range(8))
    assert in_flight.due(11, 8) == (8, 9)


def test_a_silent_gallery_gets_one_probe_ever_more_rarely():
    in_flight = InFlight(10)
    for number in range(100):
        in_flight.add((2 * number, 2 * number + 1), 0)
    probes = []
    now = 0.0
    while now < 1000:
        if seqs := in_flight.due(now, 2):
            probes.append(now)
            in_flight.add(seqs, now)
        now += 1
    assert probes == [10, 20, 40, 80, 160, 320, 480, 640, 800, 960]
    in_flight.acknowledged((0,), 1000)
    assert in_flight.due(1009, 2) == ()  # what lies in a broker's queue gets its time
    assert len([1 for _ in range(200) if in_flight.due(1010, 2)]) == 100


def test_rows_that_were_not_sent_are_due_at_once_but_for_those_acknowledged_meanwhile():
    in_flight = InFlight(10)
    in_flight.add((1, 2, 3), 0)
    in_flight.failed((1, 2, 3))
    assert in_flight.next_due_s(0) == 0
    in_flight.acknowledged((2,), 0)
    assert in_flight.due(0, 64) == (1, 3)


def test_latency_is_that_of_the_batch():
    in_flight = InFlight(10)
    in_flight.add((1, 2), 0)
    in_flight.add((3, 4), 1)
    assert in_flight.acknowledged((1, 2), 3) == [3]
    assert in_flight.acknowledged((3, 4, 1), 3) == [2]
    assert in_flight.acknowledged((3,), 4) == []
    assert len(in_flight) == 0
    assert in_flight.next_due_s(5) == float("inf")


def test_of_each_reason_one_batch_is_tried_ever_more_rarely_and_in_turn():
    refusals = Refusals(10)
    refusals.add(range(6), "a", 0)
    refusals.add([100], "b", 5)
    tried = []
    for now in range(200):
        while seqs := refusals.due(now, 2):
            tried.append((now, seqs))
            refusals.add(seqs, "b" if 100 in seqs else "a", now)
    assert [one for one in tried if 100 not in one[1]] == [(10, (0, 1)), (30, (2, 3)), (70, (4, 5)), (150, (0, 1))]
    assert [one for one in tried if 100 in one[1]] == [(15, (100,)), (35, (100,)), (75, (100,)), (155, (100,))]
    assert len(refusals) == 7


def test_once_one_is_taken_the_others_follow():
    refusals = Refusals(10)
    refusals.add(range(6), "a", 0)
    assert refusals.due(10, 2) == (0, 1)
    assert refusals.due(10, 2) == ()
    refusals.acknowledged((0, 1))
    assert refusals.next_due_s(10) == 10
    assert refusals.due(10, 2) == (2, 3)
    assert refusals.due(10, 2) == (4, 5)
    refusals.add((2,), "a", 11)
    assert refusals.next_due_s(11) > 11
    refusals.acknowledged((3, 4, 5))
    assert len(refusals) == 1


def test_reasons_without_end_take_no_memory_without_end():
    refusals = Refusals(10)
    for number in range(1000):
        refusals.add([number], f"row {number} is bad", 0)
    assert len(refusals) == 1000
    assert len(re.findall("_Group", repr(vars(refusals)))) <= 17
    refusals.forget_before(990)
    assert len(refusals) == 10


def test_a_flapping_connection_to_a_silent_gallery_sends_nothing_again():
    in_flight = InFlight(10)
    in_flight.add((1, 2), 0)
    in_flight.lost()
    assert in_flight.due(0, 64) == ()
    in_flight.acknowledged((1,), 5)
    in_flight.lost()
    assert in_flight.due(5, 64) == (2,)
