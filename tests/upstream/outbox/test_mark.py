"""The mark of an outbox: what its file lacks of it is declared, and damage to the mark itself harms nothing."""

import contextlib
import os
import random
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from reid_edge.upstream.observation import Ack
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.outbox.mark import Mark, MarkFile, mark_path
from tests.faults.damage import damage_file
from tests.upstream.observing import observed
from tests.upstream.outboxes import integrity, opened, tracks

MARK = Mark("00112233aabbccdd", 7, 6, 4, 99, 2, 0, "mqtts://gallery")


def lost(outbox: Outbox) -> int:
    return sum(gap.count for gap in outbox.gaps() if gap.reason == "lost")


def killed_with(path: Path, puts: int) -> Path:
    """Leave an outbox as a kill does: its rows are in the log alone, ten to a put."""
    here = path.with_name("alive.db")
    with opened(here) as outbox:
        for put in range(puts):
            outbox.put([observed(10 * put + number) for number in range(1, 11)])
        for suffix in ("", "-wal", ".mark"):
            shutil.copy(f"{here}{suffix}", f"{path}{suffix}")
    return path


# What the file lacks.


@pytest.mark.parametrize("left", [0.0, 0.3, 0.7])
def test_rows_that_a_shortened_log_lacks_are_declared_under_their_numbers(ram_path, caplog, left):
    path = killed_with(ram_path / "outbox.db", puts=12)
    log = path.with_name("outbox.db-wal")
    os.truncate(log, int(log.stat().st_size * left))
    with opened(path) as outbox:
        there = tracks(outbox)
        assert there == list(range(1, len(there) + 1))
        assert len(there) < 120
        (gap,) = outbox.gaps()
        assert (gap.first_seq, gap.last_seq) == (len(there) + 1, 120)
        assert (gap.count, gap.reason) == (120 - len(there), "lost")
        assert outbox.last_seq > 120
        assert outbox.set_aside == []
    assert f"{120 - len(there)} observations missing" in caplog.text
    with opened(path) as outbox:
        assert lost(outbox) == 120 - len(there)  # not declared twice


def test_a_deleted_log_is_declared(ram_path):
    path = killed_with(ram_path / "outbox.db", puts=3)
    path.with_name("outbox.db-wal").unlink()
    with opened(path) as outbox:
        assert (outbox.depth, lost(outbox)) == (0, 30)


def test_what_an_older_copy_lacks_is_declared_but_for_what_was_delivered(ram_path):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(1)])
    older = path.read_bytes()
    with opened(path) as outbox:
        outbox.put([observed(track) for track in range(2, 12)])
        outbox.acknowledge(Ack("c", outbox.incarnation, tuple(seq for seq, _ in outbox.pending(0, 8))))
    path.write_bytes(older)
    with opened(path) as outbox:
        assert tracks(outbox) == [1]
        assert lost(outbox) == 3


def test_a_file_that_is_gone_is_declared_by_the_next(ram_path, caplog):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(track) for track in range(1, 6)])
        incarnation = outbox.incarnation
    path.unlink()
    with opened(path) as outbox:
        assert outbox.incarnation != incarnation
        assert lost(outbox) == 5
    assert "is gone, with 5 observations" in caplog.text
    with opened(path) as outbox:
        assert lost(outbox) == 5


def test_another_outbox_in_its_place_declares_what_waited_in_the_one_before(ram_path):
    path, other = ram_path / "outbox.db", ram_path / "other.db"
    for one, count in ((path, 5), (other, 2)):
        with opened(one) as outbox:
            outbox.put([observed(track) for track in range(1, count + 1)])
    other.replace(path)
    for _ in range(2):
        with opened(path) as outbox:
            assert (outbox.depth, lost(outbox)) == (2, 5)


def test_rows_that_vanish_from_a_sound_file_are_declared(ram_path):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(track) for track in range(1, 11)])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM rows WHERE seq IN (3, 4)")
        connection.commit()
    with opened(path) as outbox:
        assert tracks(outbox) == [1, 2, *range(5, 11)]
        assert lost(outbox) == 2
        assert outbox.set_aside == []


def test_what_could_not_be_put_is_declared_after_a_kill_too(ram_path):
    path, here = ram_path / "outbox.db", ram_path / "alive.db"
    with opened(here) as outbox:
        outbox.put([observed(1)])
        outbox.lose(4)
        for suffix in ("", "-wal", ".mark"):
            shutil.copy(f"{here}{suffix}", f"{path}{suffix}")
    for _ in range(2):
        with opened(path) as outbox:
            assert (tracks(outbox), lost(outbox)) == ([1], 4)


@pytest.mark.parametrize("changed", ["epoch", "next_seq", "given", "age_us", "boot", "waiting", "destination"])
def test_a_changed_state_is_noticed_and_the_rows_go_on(ram_path, changed):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(track) for track in range(1, 11)])
        incarnation = outbox.incarnation
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE state SET {changed} = {changed} || '1'")
        connection.commit()
    with opened(path) as outbox:
        assert outbox.incarnation == incarnation
        assert tracks(outbox) == list(range(1, 11))
        assert lost(outbox) == 0
        assert len(outbox.set_aside) == 1
    assert integrity(path) == "ok"


@pytest.mark.parametrize("changed", ["seq = seq + 100", "age_us = age_us + 1", "payload = NULL", "acked_us = 1"])
def test_a_row_with_another_column_is_lost_and_declared(ram_path, changed):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(track) for track in range(1, 11)])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'payload BLOB NOT NULL', 'payload BLOB')")
        connection.commit()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE rows SET {changed} WHERE seq = 4")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'payload BLOB', 'payload BLOB NOT NULL')")
        connection.commit()
    with opened(path) as outbox:
        assert tracks(outbox) == [1, 2, 3, *range(5, 11)]
        assert lost(outbox) == 1


# The mark's own file.


def test_the_newest_mark_is_read_back(tmp_path):
    path = tmp_path / "outbox.db"
    for count in range(5):
        marks = MarkFile(path)
        marks.open()
        assert marks.mark == (replace(MARK, given=6 + count - 1) if count else None)
        marks.write(replace(MARK, given=6 + count), sync=True)
        marks.close()
    assert mark_path(path).stat().st_size == 16384
    assert mark_path(path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("sync", [True, False])
def test_whatever_happens_to_one_place_the_newest_mark_is_there(tmp_path, sync):
    path = tmp_path / "outbox.db"
    for seed in range(60):
        mark_path(path).unlink(missing_ok=True)
        marks = MarkFile(path)
        marks.open()
        marks.write(replace(MARK, given=1), sync=True)
        for given in range(2, 2 + seed % 3):
            marks.write(replace(MARK, given=given), sync=sync)
        newest = marks.mark
        marks.close()
        damage = damage_file(mark_path(path), random.Random(seed), ["bit", "zeroed", "duplicated"])
        again = MarkFile(path)
        again.open()
        assert again.mark == newest, f"seed {seed}: {damage}"
        again.close()


def test_a_mark_of_one_copy_is_read_and_gets_another(tmp_path):
    path = tmp_path / "outbox.db"
    marks = MarkFile(path)
    marks.open()
    marks.write(MARK, sync=True)
    marks.close()
    os.truncate(mark_path(path), 8192)
    again = MarkFile(path)
    again.open()
    assert again.mark == MARK
    again.write(replace(MARK, given=99), sync=True)
    assert mark_path(path).stat().st_size == 12288
    again.close()


def test_whatever_is_torn_in_one_slot_the_mark_before_is_there(tmp_path):
    luck, path = random.Random(1), tmp_path / "outbox.db"
    for _ in range(40):
        mark_path(path).unlink(missing_ok=True)
        marks = MarkFile(path)
        marks.open()
        for given in range(1, luck.randrange(3, 9)):
            marks.write(replace(MARK, given=given), sync=True)
            content = mark_path(path).read_bytes()
        for unsynced in range(luck.randrange(3)):
            marks.write(replace(MARK, given=given, rows=unsynced), sync=False)
        marks.close()
        torn = bytearray(mark_path(path).read_bytes())
        changed = [place for place in range(0, 8192, 512) if torn[place : place + 512] != content[place : place + 512]]
        place = changed[0] if changed else luck.choice([0, 4096])
        for copy in (0, 8192):
            torn[copy + place : copy + place + 50] = luck.randbytes(50)
        mark_path(path).write_bytes(torn)
        again = MarkFile(path)
        again.open()
        assert again.mark is not None
        assert again.mark.given in (given, given - 1)
        again.close()


@pytest.mark.parametrize("content", [b"", b"\x00" * 8192, b"garbage" * 1000, b"00000000 {}\n" * 500])
def test_an_outbox_with_a_damaged_mark_or_none_goes_on(ram_path, content):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(1)])
    mark_path(path).write_bytes(content)
    with opened(path) as outbox:
        assert (tracks(outbox), lost(outbox)) == ([1], 0)
        outbox.put([observed(2)])
    marks = MarkFile(path)
    marks.open()
    assert marks.mark is not None
    assert marks.mark.rows == 2
    marks.close()


@pytest.mark.parametrize("name", ["outbox.db.mark", "outbox.db.lock", "outbox.db.new", "outbox.db-wal"])
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_lies_in_the_way_of_its_files_is_moved_aside(ram_path, caplog, name, kind):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(1)])
    place = ram_path / name
    place.unlink(missing_ok=True)
    if kind == "folder":
        (place / "content").mkdir(parents=True)
    else:
        place.symlink_to("/etc/hostname")
    with opened(path) as outbox:
        outbox.put([observed(2)])
        assert tracks(outbox) == [1, 2]
        assert (ram_path / f"{name}").is_symlink() is False
    assert f"{name} is no file of the outbox" in caplog.text
    assert len(list(ram_path.glob(f"{name}.in-the-way-*"))) == 1
