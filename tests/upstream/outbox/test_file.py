"""The file of an outbox: its disk, other processes, power cuts, damage and removal."""

import contextlib
import logging
import os
import random
import re
import shutil
import sqlite3
import stat
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from reid_edge.errors import OutboxError
from reid_edge.upstream.message import decode_observation
from reid_edge.upstream.observation import Ack
from reid_edge.upstream.outbox import Outbox
from tests.upstream.observing import observed
from tests.upstream.outbox.processes import (
    create_without_end,
    killed,
    open_once,
    put_beyond_the_limit,
    reported,
    write_without_end,
)
from tests.upstream.outboxes import integrity, opened, seqs, tracks

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
    assert {path.name for path in small_disk.iterdir()} <= {"other", "outbox.db.lock", "outbox.db.mark"}
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


@pytest.mark.parametrize("damage", [zeroed, garbage_header, another_file])
def test_a_file_of_which_nothing_is_intact_is_set_aside_reported_and_declared(ram_path, caplog, damage):
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
        assert [(gap.count, gap.reason) for gap in outbox.gaps()] == [(400, "lost")]
        outbox.put([observed(1)])
        assert tracks(outbox) == [1]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.search(rf"damaged.*{aside.name}.*copied: 0\. Declared as lost: 400\. Check the disk", record.getMessage())
    assert integrity(path) == "ok"


@pytest.mark.parametrize(
    ("damage", "least"), [(truncated, 150), (garbage_pages, 350), (no_state, 400), (numbers_given_twice, 400)]
)
def test_what_is_intact_of_a_damaged_file_goes_on_under_its_incarnation(ram_path, caplog, damage, least):
    path = ram_path / "outbox.db"
    incarnation = filled(path)
    before = rows_of(path)
    damage(path)
    with opened(path) as outbox:
        assert outbox.incarnation == incarnation
        assert least <= outbox.depth <= 400
        assert set(outbox.pending(0, 500)) <= before
        assert outbox.dropped["lost"] == sum(gap.count for gap in outbox.gaps()) == 400 - outbox.depth
        assert outbox.last_seq > 400
        assert len(outbox.set_aside) == 1
    assert f"copied: {outbox.depth}. Declared as lost: {400 - outbox.depth}." in caplog.text
    assert integrity(path) == "ok"


def rows_of(path: Path) -> set[tuple[int, bytes]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("SELECT seq, payload FROM rows"))


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
        assert outbox.incarnation == incarnation
        left = outbox.depth
        assert left == len(outbox.pending(0, 4001)) < 500
        (gap,) = outbox.gaps()
        assert 4000 - left <= gap.count <= 4000  # which of the rows should be there cannot be told
        assert gap.reason == "lost"
        outbox.put([observed(5)])
        assert tracks(outbox)[-1] == 5
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
        there = tracks(outbox)
        assert there[-1] == track
        assert there[:-1] == sorted(set(there[:-1])) and set(there[:-1]) < set(range(2001, track))
        (gap,) = outbox.gaps()
        assert (gap.count, gap.reason) == (track - 2000 - len(there), "lost")
        outbox.acknowledge(Ack("c", "another incarnation", tuple(range(2001, 4000))))
        assert tracks(outbox) == there


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
    assert "with 5 observations waiting in it: lost" in caplog.text
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
    assert "removed while in use, with 2 observations" in record.getMessage()
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
        assert outbox.pending(6, 2) == outbox.pending(8, 2)
        assert tracks(outbox) == [track for track in range(1, 31) if track not in (7, 8, 20)]
        assert outbox.dropped["lost"] == 3
        assert outbox.depth == 27
        assert sum(gap.count for gap in outbox.gaps()) == 3
        assert outbox.set_aside == []
    assert "3 observations missing" in caplog.text


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
        connection.execute("ALTER TABLE rows ADD COLUMN later INTEGER")
        connection.execute("PRAGMA user_version = 3")
    with pytest.raises(OutboxError, match=r"format 3.*reads 2.*later release"):
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


def test_damage_that_comes_into_sqlites_own_error_text_is_damage(tmp_path, caplog):
    """Python cannot decode such a text, and raises what is no error of SQLite's."""
    path = tmp_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(1), observed(2)])
    content = path.read_bytes()
    at = content.index(b"CREATE TABLE rows") + len("CREATE TABLE rows (seq ")
    path.write_bytes(content[:at] + b"\xff(\xfe" + content[at + 3 :])
    with pytest.raises(UnicodeDecodeError), contextlib.closing(sqlite3.connect(path)) as plain:
        plain.execute("SELECT * FROM rows")
    with opened(path) as outbox:
        assert outbox.depth + sum(gap.count for gap in outbox.gaps()) == 2
    assert "damaged" in caplog.text
