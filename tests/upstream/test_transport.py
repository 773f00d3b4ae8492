"""Acknowledgements that wait to be read."""

import threading
import time

from reid_edge.upstream.transport import MOST_ACK_BYTES, MOST_ACKS, AckQueue


def test_acknowledgements_come_in_order_and_once():
    acks = AckQueue()
    for payload in (b"1", b"2", b"3"):
        acks.put(payload)
    assert acks.take(0.0) == [b"1", b"2", b"3"]
    assert acks.take(0.0) == []


def test_one_that_comes_ends_the_waiting():
    acks, began_s = AckQueue(), time.monotonic()
    threading.Timer(0.1, lambda: acks.put(b"1")).start()
    assert acks.take(30.0) == [b"1"]
    assert time.monotonic() - began_s < 20


def test_a_gallery_that_answers_more_than_it_was_asked_fills_no_memory():
    acks = AckQueue()
    megabyte = bytes(1_000_000)
    for _ in range(100):
        acks.put(megabyte)
    taken = acks.take(0.0)
    assert 1 <= len(taken) <= MOST_ACK_BYTES / len(megabyte)
    for _ in range(MOST_ACKS + 100):
        acks.put(b"1")
    acks.wake()
    assert len(acks.take(0.0)) == MOST_ACKS
