import dataclasses
import re
import threading

import pytest

from reid_edge.errors import MessageError, OutboxError
from reid_edge.upstream.message import encode_observation
from reid_edge.upstream.observation import Ack, Gap
from reid_edge.upstream.outbox import Outbox
from tests.upstream.observing import observed
from tests.upstream.outboxes import SECOND, Clocks, opened, seqs, tracks

# What it holds.


def test_what_was_put_comes_back_in_order_and_byte_for_byte(tmp_path):
    with opened(tmp_path / "outbox.db") as outbox:
        outbox.put([observed(1), observed(2)])
        outbox.put([observed(3)], "int8")
        rows = outbox.pending(0, 10)
        assert [seq for seq, _ in rows] == [1, 2, 3]
        assert [payload for _, payload in rows] == [
            encode_observation(observed(1)),
            encode_observation(observed(2)),
            encode_observation(observed(3), "int8"),
        ]
        assert outbox.pending(1, 1) == rows[1:2]
        assert outbox.fetch([3, 1, 99]) == [rows[0], rows[2]]
        assert (outbox.depth, outbox.payload_bytes, outbox.last_seq) == (3, sum(len(payload) for _, payload in rows), 3)


def test_it_is_there_after_closing_and_numbers_are_never_given_again(tmp_path):
    given = set()
    for opening in range(4):
        with opened(tmp_path / "outbox.db") as outbox:
            incarnation = outbox.incarnation
            assert tracks(outbox) == list(range(opening))
            outbox.put([observed(opening)])
            assert outbox.last_seq > max(given, default=0)
            given.add(outbox.last_seq)
            assert sorted(given) == seqs(outbox)
    with opened(tmp_path / "other.db") as other:
        assert re.fullmatch(r"[0-9a-f]{16}", incarnation)
        assert other.incarnation != incarnation


def test_an_older_copy_put_back_gives_no_number_twice(tmp_path):
    path, copy = tmp_path / "outbox.db", tmp_path / "copy.db"
    with opened(path) as outbox:
        outbox.put([observed(1)])
    copy.write_bytes(path.read_bytes())
    given = []
    for _ in range(3):
        path.write_bytes(copy.read_bytes())
        with opened(path) as outbox:
            outbox.put([observed(2)])
            given.append(outbox.last_seq)
    assert len(set(given)) == 3


def test_an_acknowledgement_deletes_what_it_names_and_nothing_else(tmp_path):
    with opened(tmp_path / "outbox.db") as outbox:
        outbox.put([observed(track) for track in range(1, 11)])
        outbox.acknowledge(Ack("c", outbox.incarnation, (5, 3, 4, 4, 9, 77)))
        assert seqs(outbox) == [1, 2, 6, 7, 8, 10]
        assert outbox.depth == 6
        assert outbox.payload_bytes == sum(len(payload) for _, payload in outbox.pending(0, 99))
        outbox.acknowledge(Ack("c", "another incarnation", (1, 2)))
        outbox.acknowledge(Ack("c", outbox.incarnation, (5,)))
        assert seqs(outbox) == [1, 2, 6, 7, 8, 10]


def test_observations_that_cannot_be_sent_are_not_kept_in_part(tmp_path):
    with opened(tmp_path / "outbox.db") as outbox:
        with pytest.raises(MessageError):
            outbox.put([observed(1), dataclasses.replace(observed(2), crops=0)])
        assert outbox.depth == 0
        outbox.put([])
        assert outbox.last_seq == 0


def test_listeners_hear_of_every_put(tmp_path):
    heard = []
    with opened(tmp_path / "outbox.db") as outbox:
        outbox.listen(lambda: heard.append(outbox.depth))
        outbox.put([observed(1)])
        outbox.put([])
        outbox.put([observed(2), observed(3)])
    assert heard == [1, 3]


def test_threads_may_use_it_at_once(ram_path):
    failures = []
    with opened(ram_path / "outbox.db", synchronous="NORMAL") as outbox:

        def work(number: int) -> None:
            try:
                for turn in range(40):
                    outbox.put([observed(1000 * number + turn, dim=8)])
                    found = outbox.pending(0, 5)
                    if turn % 2:
                        outbox.acknowledge(Ack("c", outbox.incarnation, (found[0][0],)))
                    outbox.expire()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert outbox.last_seq == 160
        assert outbox.depth == len(seqs(outbox))
        assert 80 <= outbox.depth < 160
        assert outbox.payload_bytes == sum(len(payload) for _, payload in outbox.pending(0, 999))


def test_closed_is_closed(ram_path):
    outbox = Outbox(ram_path / "outbox.db")
    outbox.close()
    outbox.close()
    with pytest.raises(OutboxError, match="is closed"):
        outbox.put([observed(1)])
    with pytest.raises(OutboxError, match="is closed"):
        outbox.pending(0, 1)


# Bounds and gaps.


def test_rows_are_bounded_and_the_oldest_go(ram_path):
    with opened(ram_path / "outbox.db", max_rows=10) as outbox:
        for track in range(1, 26):
            outbox.put([observed(track)])
        assert tracks(outbox) == list(range(16, 26))
        assert outbox.dropped == {"full": 15, "expired": 0, "lost": 0}
        assert outbox.gaps() == [Gap(1, 15, 15, "full")]


def test_bytes_are_bounded(ram_path):
    size = len(encode_observation(observed(1)))
    with opened(ram_path / "outbox.db", max_bytes=5 * size + 1) as outbox:
        outbox.put([observed(track) for track in range(1, 4)])
        outbox.put([observed(track) for track in range(4, 10)])
        assert tracks(outbox) == [5, 6, 7, 8, 9]
        assert outbox.payload_bytes == 5 * size
        assert outbox.gaps() == [Gap(1, 4, 4, "full")]


def test_a_put_larger_than_the_outbox_keeps_its_newest(ram_path):
    with opened(ram_path / "outbox.db", max_rows=3) as outbox:
        outbox.put([observed(track) for track in range(1, 9)])
        assert tracks(outbox) == [6, 7, 8]
        assert outbox.gaps() == [Gap(1, 5, 5, "full")]


def test_smaller_bounds_hold_from_the_next_put(ram_path):
    with opened(ram_path / "outbox.db") as outbox:
        outbox.put([observed(track) for track in range(1, 51)])
    with opened(ram_path / "outbox.db", max_rows=5) as outbox:
        outbox.put([observed(51)])
        assert tracks(outbox) == [47, 48, 49, 50, 51]
        assert outbox.gaps() == [Gap(1, 46, 46, "full")]


def test_a_gap_counts_only_what_was_not_delivered(ram_path):
    with opened(ram_path / "outbox.db", max_rows=6) as outbox:
        outbox.put([observed(track) for track in range(1, 7)])
        outbox.acknowledge(Ack("c", outbox.incarnation, (2, 3)))
        outbox.put([observed(track) for track in range(7, 13)])
        assert outbox.gaps() == [Gap(1, 6, 4, "full")]


def test_a_gap_that_was_sent_does_not_grow_and_leaves_only_when_acknowledged(ram_path):
    path = ram_path / "outbox.db"
    with opened(path, max_rows=2) as outbox:
        outbox.put([observed(track) for track in range(1, 5)])
        sent = outbox.gaps()
        assert sent == [Gap(1, 2, 2, "full")]
        outbox.put([observed(5)])  # after it was sent
        assert outbox.gaps() == sent
    with opened(path, max_rows=2) as outbox:
        incarnation = outbox.incarnation
        assert outbox.gaps() == sent
        outbox.acknowledge(Ack("c", incarnation, (), ((1, 3),)))  # nobody can have stored that
        outbox.acknowledge(Ack("c", "another incarnation", (), ((1, 2),)))
        assert outbox.gaps() == sent
        outbox.acknowledge(Ack("c", incarnation, (), ((1, 2),)))
        assert outbox.gaps() == [Gap(3, 3, 1, "full")]
        outbox.acknowledge(Ack("c", incarnation, (), ((3, 3),)))
        assert outbox.gaps() == []
        assert outbox.gap_count == 0
        assert outbox.dropped["full"] == 3


def test_gaps_of_a_year_without_network_stay_few_and_lose_no_count(ram_path):
    clocks = Clocks()
    with opened(ram_path / "outbox.db", max_rows=2, retention_s=60, synchronous="NORMAL", read_clocks=clocks) as outbox:
        for turn in range(200):
            outbox.put([observed(3 * turn + extra, dim=4) for extra in range(3)])  # one is dropped: full
            if turn % 2:
                clocks.run(61 * SECOND)
                outbox.expire()
        assert outbox.gap_count <= 128
        declared = 0
        while gaps := outbox.gaps():
            for gap in gaps:
                assert gap.count <= gap.last_seq - gap.first_seq + 1
                declared += gap.count
            outbox.acknowledge(Ack("c", outbox.incarnation, (), tuple((gap.first_seq, gap.last_seq) for gap in gaps)))
        assert declared == sum(outbox.dropped.values()) == 600 - outbox.depth
        assert min(outbox.dropped["full"], outbox.dropped["expired"]) > 100


def test_what_could_not_be_put_is_declared(ram_path):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(1)])
        outbox.lose(5)
        outbox.put([observed(2)])
        assert seqs(outbox) == [1, 7]
        assert outbox.gaps() == [Gap(2, 6, 5, "lost")]
        outbox.acknowledge(Ack("c", outbox.incarnation, (), ((2, 6),)))
        outbox.lose(3)
    with opened(path) as outbox:  # without another put
        assert outbox.gaps() == [Gap(8, 10, 3, "lost")]
        assert outbox.dropped["lost"] == 8


@pytest.mark.parametrize(
    "options", [{"max_rows": 0}, {"max_bytes": -1}, {"retention_s": 0}, {"retention_s": float("nan")}]
)
def test_bounds_must_be_positive(ram_path, options):
    with pytest.raises(OutboxError, match="must be positive"):
        Outbox(ram_path / "outbox.db", **options)
    assert list(ram_path.iterdir()) == []


@pytest.mark.parametrize("retention_s", [1e300, float("inf"), 10 * 366 * 86400])
def test_a_retention_beyond_ten_years_is_refused(ram_path, retention_s):
    with pytest.raises(OutboxError, match="ten years"):
        Outbox(ram_path / "outbox.db", retention_s=retention_s)
    assert list(ram_path.iterdir()) == []


def test_a_full_outbox_keeps_the_oldest_rows_if_it_is_to_refuse_the_newest(ram_path):
    with opened(ram_path / "outbox.db", max_rows=3, when_full="refuse-newest") as outbox:
        outbox.put([observed(track, dim=4) for track in range(5)])
        outbox.put([observed(5, dim=4)])
        assert (tracks(outbox), outbox.dropped["full"]) == ([0, 1, 2], 3)
        outbox.acknowledge(Ack("c", outbox.incarnation, (2,)))
        outbox.put([observed(6, dim=4), observed(7, dim=4)])
        assert (tracks(outbox), seqs(outbox)) == ([0, 2, 6], [1, 3, 7])
        assert sum(gap.count for gap in outbox.gaps()) == 4
        assert outbox.dropped_recently() == {"full": 4}


def test_refusing_the_newest_holds_to_bytes_too(ram_path):
    size = len(encode_observation(observed(1)))
    with opened(ram_path / "outbox.db", max_bytes=3 * size, when_full="refuse-newest") as outbox:
        for track in range(5):
            outbox.put([observed(track)])
        assert tracks(outbox) == [0, 1, 2]
        assert outbox.gaps() == [Gap(4, 5, 2, "full")]
