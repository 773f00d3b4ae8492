import time

import pytest

from reid_edge.upstream.batch_limit import BatchLimit


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_what_was_refused_lowers_what_is_set():
    limit = BatchLimit(100_000)
    assert limit.bytes == 100_000
    assert limit.refused(50_000)
    assert limit.bytes == 25_000
    assert limit.refused(90_000), "of before"
    assert limit.bytes == 12_500


def test_a_refused_size_is_halved_down_to_where_size_is_no_reason_any_more():
    limit = BatchLimit(100_000)
    sizes = []
    while limit.refused(limit.bytes):
        sizes.append(limit.bytes)
    assert sizes == [50_000, 25_000, 12_500, 6_250, 3_125, 2_048]


def test_larger_batches_are_tried_again_after_a_while_and_more_rarely_each_time(clock):
    limit = BatchLimit(100_000)
    limit.refused(100_000)
    clock[0] += 599
    assert limit.bytes == 50_000
    clock[0] += 2
    assert limit.bytes == 100_000
    limit.refused(100_000)
    clock[0] += 1100
    assert limit.bytes == 50_000
    clock[0] += 200
    assert limit.bytes == 100_000
    clock[0] += 1e9
    assert limit.bytes == 100_000
