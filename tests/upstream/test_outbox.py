import contextlib
import dataclasses
import logging
import os
import random
import re
import shutil
import sqlite3
import stat
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from reid_edge.errors import MessageError, OutboxError
from reid_edge.upstream.age_clock import PLAUSIBLE_US, AgeClock, AgeState, Reading
from reid_edge.upstream.message import decode_observation, encode_observation
from reid_edge.upstream.observation import Ack, Gap
from reid_edge.upstream.outbox import Outbox
from tests.upstream.observing import observed
from tests.upstream.outbox_processes import (
    create_without_end,
    killed,
    open_once,
    put_beyond_the_limit,
    reported,
    write_without_end,
)

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
NOW = PLAUSIBLE_US + 300 * DAY
ROOT = Path(__file__).parents[2]


class Clocks:
    """A machine's clocks, as the test sets them."""

    def __init__(self, wall_us: int = NOW) -> None:
        self.boot, self.boot_us, self.wall_us = "boot-1", 100 * SECOND, wall_us

    def __call__(self) -> Reading:
        return Reading(self.boot, self.boot_us, self.wall_us)

    def run(self, us: int) -> None:
        self.boot_us += us
        self.wall_us += us

    def reboot(self, *, off_us: int = 0, wall_us: int | None = None) -> None:
        self.boot, self.boot_us = f"boot-{random.getrandbits(32)}", 20 * SECOND
        self.wall_us = self.wall_us + off_us if wall_us is None else wall_us


@contextlib.contextmanager
def opened(path, **options):
    outbox = Outbox(path, **options)
    try:
        yield outbox
    finally:
        outbox.close()


def tracks(outbox: Outbox, after_seq: int = 0, limit: int = 10**6) -> list[int]:
    return [decode_observation(payload).track for _, payload in outbox.pending(after_seq, limit)]


def seqs(outbox: Outbox) -> list[int]:
    return [seq for seq, _ in outbox.pending(0, 10**6)]


def integrity(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchone()[0]


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


# Age.


def test_rows_expire_by_age_and_are_declared(ram_path):
    clocks = Clocks()
    with opened(ram_path / "outbox.db", retention_s=3600, read_clocks=clocks) as outbox:
        outbox.put([observed(1), observed(2)])
        clocks.run(HOUR // 2)
        outbox.put([observed(3)])
        outbox.expire()
        assert outbox.depth == 3
        clocks.run(HOUR // 2 + SECOND)
        outbox.expire()
        assert tracks(outbox) == [3]
        assert outbox.gaps() == [Gap(1, 2, 2, "expired")]
        clocks.run(HOUR)
        outbox.expire()
        assert (outbox.depth, outbox.payload_bytes) == (0, 0)


@pytest.mark.parametrize("jump_us", [56 * 365 * DAY, -56 * 365 * DAY, 365 * DAY, -365 * DAY])
@pytest.mark.parametrize("wall_us", [NOW, 5 * SECOND])
def test_setting_the_clock_ages_nothing(ram_path, jump_us, wall_us):
    clocks = Clocks(wall_us)
    with opened(ram_path / "outbox.db", retention_s=3600, read_clocks=clocks) as outbox:
        outbox.put([observed(1)])
        for _ in range(25):
            clocks.run(60 * SECOND)
            outbox.expire()
        clocks.wall_us = max(0, clocks.wall_us + jump_us)
        for _ in range(30):
            outbox.expire()
            clocks.run(60 * SECOND)
        assert outbox.depth == 1
        clocks.run(6 * 60 * SECOND)
        outbox.expire()
        assert outbox.depth == 0  # after one hour and a minute, whatever the clock says


def test_time_counts_while_the_process_is_down(ram_path):
    clocks = Clocks()
    with opened(ram_path / "outbox.db", retention_s=3600, read_clocks=clocks) as outbox:
        outbox.put([observed(1)])
    clocks.run(HOUR // 2)
    with opened(ram_path / "outbox.db", retention_s=3600, read_clocks=clocks) as outbox:
        outbox.expire()
        assert outbox.depth == 1
    clocks.run(HOUR // 2 + SECOND)
    with opened(ram_path / "outbox.db", retention_s=3600, read_clocks=clocks) as outbox:
        outbox.expire()
        assert outbox.depth == 0


def minutes(clocks: Clocks, outbox: Outbox, count: int) -> None:
    for _ in range(count):
        clocks.run(60 * SECOND)
        outbox.expire()


def test_time_switched_off_counts_once_the_clock_can_be_believed(ram_path):
    clocks = Clocks()
    path = ram_path / "outbox.db"
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 20)
        outbox.put([observed(1)])
    clocks.reboot(off_us=DAY)
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 10)
        assert outbox.depth == 1  # the clock might be wrong for the moment
        minutes(clocks, outbox, 10)
        assert outbox.depth == 0


def test_a_clock_that_starts_in_1970_and_is_put_right_counts_the_time_switched_off(ram_path):
    clocks = Clocks()
    path = ram_path / "outbox.db"
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 20)
        outbox.put([observed(1)])
    true_us = clocks.wall_us + DAY
    clocks.reboot(wall_us=0)
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 20)
        assert outbox.depth == 1
        clocks.wall_us = true_us
        minutes(clocks, outbox, 20)
        assert outbox.depth == 0


def test_a_camera_that_was_never_right_before_loses_nothing_to_the_first_right_clock(ram_path):
    clocks = Clocks(wall_us=0)
    path = ram_path / "outbox.db"
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 20)
        outbox.put([observed(1)])
    clocks.reboot(wall_us=NOW)
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 30)
        assert outbox.depth == 1


def test_a_clock_wrong_by_a_year_for_a_moment_after_a_reboot_ages_nothing(ram_path):
    clocks = Clocks()
    path = ram_path / "outbox.db"
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 20)
        outbox.put([observed(1)])
    clocks.reboot(off_us=365 * DAY)
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        minutes(clocks, outbox, 14)
        clocks.wall_us -= 365 * DAY
        minutes(clocks, outbox, 30)
        assert outbox.depth == 1


def test_the_age_clock_never_goes_back():
    rng = random.Random(5)
    clocks = Clocks()
    state = AgeState()
    last = 0
    for _ in range(300):
        clock = AgeClock(state, clocks)
        for _ in range(rng.randrange(1, 30)):
            clocks.run(rng.randrange(0, 10 * 60 * SECOND))
            if rng.random() < 0.1:
                clocks.wall_us = rng.choice([0, NOW, NOW + rng.randrange(DAY), NOW + 400 * DAY])
            clock.settle()
            assert clock.now_us() >= last
            last = clock.now_us()
        state = clock.state()
        if rng.random() < 0.5:
            clocks.reboot(off_us=rng.randrange(DAY))


def test_the_age_of_the_oldest_row_survives_a_set_clock(ram_path):
    clocks = Clocks()
    with opened(ram_path / "outbox.db", read_clocks=clocks) as outbox:
        assert outbox.oldest_us is None
        outbox.put([observed(1)])
        clocks.run(100 * SECOND)
        clocks.wall_us = 0
        age_us = time.time_ns() // 1000 - outbox.oldest_us
        assert abs(age_us - 100 * SECOND) < 5 * SECOND


def test_the_real_clocks_tick(ram_path):
    with opened(ram_path / "outbox.db", retention_s=0.05) as outbox:
        outbox.put([observed(1)])
        deadline = time.monotonic() + 5
        while outbox.depth and time.monotonic() < deadline:
            outbox.expire()
        assert outbox.depth == 0


# The disk.


def test_only_this_user_can_read_it(tmp_path):
    path = tmp_path / "new" / "outbox.db"
    before = os.umask(0)
    try:
        with opened(path) as outbox:
            outbox.put([observed(1)])
            modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert "outbox.db-wal" in modes
    assert set(modes.values()) == {0o600}
    path.chmod(0o644)
    with opened(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_deleted_features_are_overwritten_in_the_file_and_its_log(tmp_path):
    def found(needle: bytes) -> list[str]:
        return [path.name for path in tmp_path.iterdir() if needle in path.read_bytes()]

    with opened(tmp_path / "outbox.db") as outbox:
        outbox.put([observed(track) for track in range(1, 41)])
        needles = [decode_observation(p).feature[100:140].astype("<f2").tobytes() for _, p in outbox.pending(0, 40)]
        outbox.expire()
        assert all(found(needle) for needle in needles)
        outbox.acknowledge(Ack("c", outbox.incarnation, tuple(range(1, 38))))
        outbox.expire()
        assert [index + 1 for index, needle in enumerate(needles) if found(needle)] == [38, 39, 40]


def test_files_stay_small_while_rows_come_and_go(ram_path):
    with opened(ram_path / "outbox.db", synchronous="NORMAL") as outbox:
        largest = 0
        for turn in range(400):
            outbox.put([observed(1)] * 64)
            outbox.acknowledge(Ack("c", outbox.incarnation, tuple(range(outbox.last_seq - 63, outbox.last_seq + 1))))
            if turn % 20 == 0:
                largest = max(largest, sum(path.stat().st_size for path in ram_path.iterdir()))
        assert outbox.last_seq == 25_600  # 29 MB
        assert largest < 10e6


def test_a_second_process_is_turned_away(tmp_path):
    path = tmp_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(1)])
        with pytest.raises(OutboxError, match=r"in use, by another process.*its own outbox file"):
            Outbox(path)
        assert re.match("OutboxInUseError: .*in use", reported(open_once, path))
        assert outbox.pending(0, 1)
    assert reported(open_once, path) == ""


def test_after_kill_9_at_any_instant_every_committed_row_is_there_or_accounted_for(ram_path):
    rng = random.Random(0)
    path = ram_path / "outbox.db"
    committed: set[int] = set()
    acknowledged: set[int] = set()
    incarnations, puts = set(), 0
    for _ in range(14):
        for what, *numbers in killed(write_without_end, path, rng.choice([0, 1, 20, 60]), rng.uniform(0, 0.03)):
            (committed if what == "put" else acknowledged).update(numbers)
            puts += what == "put"
        with opened(path, max_rows=40) as outbox:
            assert outbox.set_aside == []
            incarnations.add(outbox.incarnation)
            held = set(seqs(outbox))
            dropped = outbox.dropped
        with contextlib.closing(sqlite3.connect(path)) as connection:
            gaps = connection.execute("SELECT first_seq, last_seq, count FROM gaps").fetchall()
        committed |= held  # a put may have been committed just before it could be reported
        gone = committed - held - acknowledged
        assert dropped == {"full": len(gone), "expired": 0, "lost": 0}
        assert sum(count for _, _, count in gaps) == len(gone)
        assert all(any(first <= seq <= last for first, last, _ in gaps) for seq in gone)
        acknowledged -= held  # announced, and killed before it was done
    assert integrity(path) == "ok"
    assert len(incarnations) == 1
    assert puts > 50
    assert gone


def test_kill_9_while_the_file_is_made_leaves_nothing_half_made(ram_path):
    rng = random.Random(1)
    made = 0
    for round_ in range(6):
        folder = ram_path / str(round_)
        numbers = set(killed(create_without_end, folder, round_ % 3, rng.uniform(0, 0.03)))
        made += len(numbers)
        names = {path.name.split(".")[0] for path in folder.glob("*.db*")}
        for number in map(int, names):
            with opened(folder / f"{number}.db") as outbox:
                assert outbox.set_aside == []
                assert outbox.depth in ({1} if number in numbers else {0, 1})
        assert not list(folder.glob("*.new*"))
    assert made


def test_a_file_that_may_not_grow_is_an_error_to_survive(ram_path):
    path = ram_path / "outbox.db"
    there, (depth, kept), failures, set_aside = reported(put_beyond_the_limit, path)
    assert there == (kept, kept)
    assert depth == kept > 500
    assert all("for writing" in failure for failure in failures)
    assert set_aside == []
    assert integrity(path) == "ok"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB that is nothing but the test's."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_an_error_to_survive_and_loses_nothing_that_was_committed(small_disk):
    path = small_disk / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(track) for track in range(1, 101)])
        (small_disk / "other").write_bytes(b"x" * 2_000_000)
        track, failures = 101, 0
        while failures < 10:
            try:
                outbox.put([observed(track)])
                track += 1
            except OutboxError as error:
                failures += 1
                assert re.search(r"full.*Free space on its disk; writing works again then", str(error))
                with contextlib.suppress(OutboxError):
                    outbox.expire()
                with contextlib.suppress(OutboxError):
                    outbox.acknowledge(Ack("c", outbox.incarnation, ()))
        assert tracks(outbox) == list(range(1, track))
        outbox.lose(failures)
        (small_disk / "other").unlink()
        outbox.put([observed(track)])
        assert tracks(outbox) == list(range(1, track + 1))
        assert [(gap.count, gap.reason) for gap in outbox.gaps()] == [(10, "lost")]
        assert outbox.set_aside == []
    assert integrity(path) == "ok"
    with opened(path) as outbox:
        assert tracks(outbox) == list(range(1, track + 1))


def test_no_room_for_a_new_outbox_leaves_nothing_behind(small_disk):
    (small_disk / "other").write_bytes(b"x" * (3 * 2**20 - 4096))
    with pytest.raises(OutboxError, match="Free space"):
        Outbox(small_disk / "outbox.db")
    assert {path.name for path in small_disk.iterdir()} <= {"other", "outbox.db.lock"}
    (small_disk / "other").unlink()
    with opened(small_disk / "outbox.db") as outbox:
        outbox.put([observed(1)])


def test_a_read_only_disk_is_an_error_that_says_what_to_do(small_disk):
    path = small_disk / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(1)])
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for one in (path, small_disk / "new.db", small_disk / "folder" / "new.db"):
        with pytest.raises(OutboxError, match=r"[Rr]ead-only.*not mounted read-only"):
            Outbox(one)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    with opened(path) as outbox:
        assert tracks(outbox) == [1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_of_another_user_is_an_error_that_says_what_to_do(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutboxError, match="folder that this user can write"):
        Outbox(tmp_path / "outbox.db")


# Damage.


def filled(path: Path, count: int = 400) -> str:
    with opened(path) as outbox:
        outbox.put([observed(track) for track in range(1, count + 1)])
        return outbox.incarnation


def zeroed(path):
    path.write_bytes(b"")


def garbage_header(path):
    with path.open("r+b") as file:
        file.write(b"garbage" * 20)


def another_file(path):
    path.write_bytes(b"\x89PNG" + bytes(5000))


def truncated(path):
    os.truncate(path, path.stat().st_size // 2)


def garbage_pages(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 8192 * 8192)
        file.write(np.random.default_rng(0).bytes(3 * 8192))


def no_state(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM state")
        connection.commit()


def numbers_given_twice(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE state SET next_seq = 5")
        connection.commit()


@pytest.mark.parametrize(
    "damage", [zeroed, garbage_header, another_file, truncated, garbage_pages, no_state, numbers_given_twice]
)
def test_a_damaged_file_is_set_aside_reported_and_replaced(ram_path, caplog, damage):
    path = ram_path / "outbox.db"
    incarnation = filled(path)
    damage(path)
    content = path.read_bytes()
    with opened(path) as outbox:
        (aside,) = outbox.set_aside
        assert re.fullmatch(r"outbox\.db\.corrupt-\d{8}T\d{6}Z", aside.name)
        assert aside.read_bytes() == content
        assert outbox.incarnation != incarnation
        assert outbox.depth == 0
        outbox.put([observed(1)])
        assert tracks(outbox) == [1]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.search(rf"damaged.*{aside.name}.*Check the disk", record.getMessage())
    assert integrity(path) == "ok"


def overwrite(path: Path, first_page: int, pages: int) -> None:
    with path.open("r+b") as file:
        file.seek(first_page * 8192)
        file.write(np.random.default_rng(0).bytes(pages * 8192))


def test_damage_found_while_running_replaces_the_file_and_declares_the_loss(ram_path, caplog):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(track) for track in range(1, 4001)])  # 4.6 MB: more than SQLite keeps in memory
        outbox.expire()
        incarnation = outbox.incarnation
        overwrite(path, 20, path.stat().st_size // 8192 - 20)
        found = []
        for _ in range(10):
            found.extend(outbox.pending(found[-1][0] if found else 0, 500))
            if outbox.set_aside:
                break
        assert outbox.incarnation != incarnation
        assert (outbox.depth, outbox.payload_bytes, outbox.pending(0, 10)) == (0, 0, [])
        outbox.put([observed(5)])
        assert tracks(outbox) == [5]
        assert outbox.gaps() == [Gap(1, 4000, 4000, "lost")]
    assert "damaged" in caplog.text


def test_a_put_that_finds_the_damage_is_kept_in_the_new_file(ram_path):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(track) for track in range(1, 4001)])
        outbox.acknowledge(Ack("c", outbox.incarnation, tuple(range(1, 2001))))
        outbox.expire()
        outbox.pending(0, 4000)  # so that SQLite has other pages in memory than the free ones, which come first
        overwrite(path, 4, 200)
        for track in range(4001, 4100):
            outbox.put([observed(track)])
            if outbox.set_aside:
                break
        assert outbox.set_aside
        assert tracks(outbox) == [track]
        assert [gap.reason for gap in outbox.gaps()] == ["lost"]
        outbox.acknowledge(Ack("c", "the incarnation before", (1, 2, 3)))
        assert tracks(outbox) == [track]


def remove_file(path):
    path.unlink()


def remove_file_and_log(path):
    path.unlink()
    path.with_name("outbox.db-wal").unlink()


def remove_folder(path):
    shutil.rmtree(path.parent)


def move_folder_away(path):
    path.parent.rename(path.parent.with_name("elsewhere"))


def put_another_outbox_there(path):
    other = path.with_name("other.db")
    filled(other, 3)
    other.replace(path)


@pytest.mark.parametrize(
    "removal", [remove_file, remove_file_and_log, remove_folder, move_folder_away, put_another_outbox_there]
)
@pytest.mark.parametrize("noticed_by", ["put", "expire"])
def test_an_outbox_that_is_removed_while_it_runs_is_begun_anew_and_the_loss_declared(
    ram_path, caplog, removal, noticed_by
):
    path = ram_path / "state" / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(track) for track in range(1, 6)])
        incarnation = outbox.incarnation
        removal(path)
        if noticed_by == "expire":
            outbox.expire()
            assert outbox.depth == 0
        outbox.put([observed(6)])
        assert outbox.incarnation != incarnation
        assert tracks(outbox) == [6]
        (gap,) = outbox.gaps()
        assert (gap.count, gap.reason) == (5, "lost")
        assert len(outbox.set_aside) == (removal is put_another_outbox_there)
        with pytest.raises(OutboxError, match="in use"):
            Outbox(path)
    assert "5 observations that waited in it are lost" in caplog.text
    with opened(path) as outbox:
        assert tracks(outbox) == [6]
        assert outbox.dropped["lost"] == 5
    assert integrity(path) == "ok"


def test_an_outbox_that_took_the_place_is_set_aside_whole(ram_path):
    path = ram_path / "outbox.db"
    other = ram_path / "elsewhere" / "outbox.db"
    with opened(path) as outbox, opened(other) as stopped:
        outbox.put([observed(1)])
        stopped.put([observed(track) for track in (7, 8)])
        for suffix in ("", "-wal"):  # as after kill -9: its rows are in its log alone
            shutil.copy(f"{other}{suffix}", f"{path}{suffix}.copy")
            Path(f"{path}{suffix}.copy").replace(f"{path}{suffix}")
        outbox.put([observed(2)])
        assert tracks(outbox) == [2]
        (aside,) = outbox.set_aside
    with contextlib.closing(sqlite3.connect(aside)) as connection:
        assert connection.execute("SELECT count(*) FROM rows").fetchone() == (2,)


def test_closing_an_outbox_that_was_removed_says_how_many_are_lost(ram_path, caplog):
    path = ram_path / "state" / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(1), observed(2)])
        remove_folder(path)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "removed while in use: 2 observations" in record.getMessage()
    with opened(path) as outbox:
        assert [(gap.count, gap.reason) for gap in outbox.gaps()] == [(2, "lost")]


def test_closing_an_empty_outbox_that_was_removed_leaves_nothing_behind(ram_path, caplog):
    path = ram_path / "state" / "outbox.db"
    with opened(path):
        remove_folder(path)
    assert list(ram_path.iterdir()) == []
    assert not caplog.records


def test_an_outbox_that_another_took_over_is_left_to_it(ram_path):
    path = ram_path / "state" / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(1)])
        remove_folder(path)
        with opened(path) as other:
            other.put([observed(2)])
            for _ in range(2):
                with pytest.raises(OutboxError, match="in use"):
                    outbox.put([observed(3)])
            assert path.with_name("outbox.db-wal").stat().st_size > 0
            other.put([observed(4)])
            assert tracks(other) == [2, 4]
        outbox.put([observed(5)])
        assert tracks(outbox) == [2, 4, 5]
        assert outbox.dropped["lost"] == 1


def test_a_row_whose_bytes_changed_is_lost_alone_and_declared(ram_path, caplog):
    path = ram_path / "outbox.db"
    filled(path, 30)
    content = path.read_bytes()
    for track in (7, 8, 20):
        place = content.index(observed(track).feature[50:80].astype("<f2").tobytes())
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"\x55")
    with opened(path) as outbox:
        assert outbox.pending(6, 2) == outbox.pending(8, 2)  # 7 and 8 are gone: it looks further
        assert tracks(outbox) == [track for track in range(1, 31) if track not in (7, 8, 20)]
        assert outbox.dropped["lost"] == 3
        assert outbox.depth == 27
        assert sum(gap.count for gap in outbox.gaps()) == 3
        assert outbox.set_aside == []
    assert "has changed on disk" in caplog.text


def test_damaged_files_do_not_pile_up_and_expire_like_rows(ram_path):
    path = ram_path / "outbox.db"
    for _ in range(3):
        filled(path, 20)
        garbage_header(path)
    with opened(path, retention_s=3600) as outbox:
        outbox.expire()
        (aside,) = ram_path.glob("*.corrupt-*")
        os.utime(aside, (time.time() - 3700,) * 2)
        outbox.expire()
        assert not list(ram_path.glob("*.corrupt-*"))


def test_another_programs_database_is_left_alone(ram_path):
    path = ram_path / "gallery.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE people (name)")
    content = path.read_bytes()
    with pytest.raises(OutboxError, match="another program's SQLite database"):
        Outbox(path)
    assert path.read_bytes() == content
    (ram_path / "folder").mkdir()
    with pytest.raises(OutboxError):
        Outbox(ram_path / "folder")


def test_a_later_releases_outbox_is_left_alone(ram_path):
    path = ram_path / "outbox.db"
    filled(path, 3)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(OutboxError, match=r"format 2.*reads 1.*later release"):
        Outbox(path)
    assert not list(ram_path.glob("*.corrupt-*"))


def test_a_database_that_another_program_has_open_is_no_damage(ram_path):
    path = ram_path / "outbox.db"
    filled(path, 3)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT * FROM rows").fetchone()
        with pytest.raises(OutboxError, match=r"locked.*close it there"):
            Outbox(path)
    with opened(path) as outbox:
        assert outbox.depth == 3
