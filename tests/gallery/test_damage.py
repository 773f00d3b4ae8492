"""A gallery's files, damaged as disks do it: errors are typed, answers are what was stored, losses are noticed.

For longer: ``REID_EDGE_DAMAGES=1000 pytest -n 0 tests/gallery/test_damage.py``.
"""

import collections
import contextlib
import os
import random
import shutil
import sqlite3
import sys

import pytest

from reid_edge.errors import ReidEdgeError, StoreError
from reid_edge.gallery.audit import verify
from reid_edge.gallery.backup import back_up
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.deletion import Retention, change_retention, erase_with_receipt
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.search import query_by_feature, search
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.base import summarise
from reid_edge.gallery.store.snapshots import check
from tests.faults.damage import damage_file
from tests.gallery.stores import DIM, HOUR, MODEL, NOON, batch, record, unit

DAMAGES = int(os.environ.get("REID_EDGE_DAMAGES", "15"))
NOW = NOON + 2 * HOUR
SEQS = range(1, 201)
ERASED = range(150, 156)
FILES = ("gallery.db", "gallery.db-wal", "gallery.db.erasures", "gallery.db.mark")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of a gallery whose last commits are in the write-ahead log alone, as after a power cut."""
    folder = tmp_path_factory.mktemp("whole")
    store = open_store(f"sqlite:{folder / 'gallery.db'}")
    collector = Collector(store, clock=lambda: NOW)
    for start in range(1, 201, 10):
        collector.receive([batch([record(seq, camera="door") for seq in range(start, start + 10)])])
        if start == 101:
            store._forget()
    for seq in ERASED:
        store.erase(Selection(track=seq), now_us=NOW)
    store.set_retention_hours(60)
    store.add([record(500 + seq) for seq in range(20)])
    for _ in range(5):
        search(store, QUERY, selection=Selection(), purpose="a test", now_us=NOW)
    copy = tmp_path_factory.mktemp("copy")
    for name in FILES:
        shutil.copy(folder / name, copy / name)
    store.close()
    return copy


QUERY = query_by_feature(unit(DIM, seed=3), MODEL, image_sha256="f" * 64)
EXPECTED = {*SEQS, *range(500, 520)} - {*ERASED}


def used(path):
    """Use a gallery in every way; return the rows that were found, and whether something was said to be wrong."""
    store = open_store(f"sqlite:{path}")
    with contextlib.closing(store):
        held = {}
        for seq in (*SEQS, *range(500, 520)):
            held.update({row.entry.seq: row for row in store.find("door", "e1", seq)})
        found = search(store, QUERY, selection=Selection(), purpose="a test", now_us=NOW, top=100)
        search(store, QUERY, selection=Selection(cameras=("door",)), purpose="a test", now_us=NOW)
        summarise(store)
        lines = store.audit_entries(9999)
        report = verify(store)
        said = any(line.action in ("commits lost", "file replaced") for line in lines)
        wrong = check(store)
        for one in found:
            assert one.best == record(one.best.seq).entry
        assert store.add([record(9000)]).stored == 1
        back = store.add([record(seq) for seq in ERASED])
        assert store.retention_hours() == 60 or said
        Retention(store, clock=lambda: NOW).apply()
        erase_with_receipt(store, Selection(track=7), purpose="a test", now_us=NOW)
        return held, bool(said or wrong or report.faults), back.erased == len(ERASED)


def test_an_intact_copy_is_whole(whole, tmp_path):
    for name in FILES:
        shutil.copy(whole / name, tmp_path / name)
    held, wrong, kept_out = used(tmp_path / "gallery.db")
    assert (set(held), wrong, kept_out) == (EXPECTED, False, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_damage_ends_in_typed_errors_right_answers_and_noticed_losses(whole, tmp_path, name):
    outcomes = collections.Counter()
    for seed in range(DAMAGES):
        folder = tmp_path / str(seed)
        shutil.copytree(whole, folder)
        damage = f"seed {seed}: {damage_file(folder / name, random.Random(f'{name} {seed}'))}"
        try:
            held, wrong, kept_out = used(folder / "gallery.db")
        except ReidEdgeError as error:
            assert isinstance(error, StoreError), damage
            outcomes["an error"] += 1
        else:
            for seq, row in held.items():
                assert row.entry == record(seq).entry, damage
                assert row.feature.tobytes() == record(seq).feature.astype("<f2").astype("<f4").tobytes(), damage
            assert set(held) == EXPECTED or wrong, damage
            assert kept_out or wrong, damage
            outcomes["noticed" if wrong else "no harm"] += 1
        shutil.rmtree(folder)
    sys.stdout.write(f"{name}: {DAMAGES} damages: {dict(outcomes)}\n")


def test_lost_commits_are_in_the_audit_once(whole, tmp_path):
    for name in FILES:
        shutil.copy(whole / name, tmp_path / name)
    os.truncate(tmp_path / "gallery.db-wal", (tmp_path / "gallery.db-wal").stat().st_size // 2)
    for _ in range(2):
        store = open_store(f"sqlite:{tmp_path / 'gallery.db'}")
        lines = [line for line in store.audit_entries(99) if line.action == "commits lost"]
        assert len(lines) == 1
        assert lines[0].detail["marked"] > lines[0].detail["commits"]
        assert store.add([record(seq) for seq in ERASED]).erased == len(ERASED)
        store.close()


@pytest.mark.parametrize(
    "erased",
    [Selection(track=5), Selection(cameras=("door",)), Selection(until_us=NOW)],
    ids=["track", "camera", "time"],
)
def test_an_older_log_does_not_bring_back_what_was_erased(tmp_path, erased):
    path, log = tmp_path / "gallery.db", tmp_path / "gallery.db-wal"
    store = open_store(f"sqlite:{path}")
    store.accept_model(MODEL, DIM, now_us=NOON)
    store.add([record(seq) for seq in range(1, 30)])
    older = log.read_bytes()
    store.erase(erased, now_us=NOW)
    store.close()
    log.write_bytes(older)
    for _ in range(2):
        with contextlib.closing(open_store(f"sqlite:{path}", create=False)) as store:
            assert store.span(erased).observations == 0
            assert [line.action for line in store.audit_entries(9)].count("commits lost") == 1
            assert len(store.erasures()) == 1


def test_a_damaged_row_is_left_out_counted_and_shown_and_a_backup_says_so(sqlite_store, tmp_path):
    sqlite_store.accept_model(MODEL, DIM, now_us=NOON)
    sqlite_store.add([record(seq) for seq in range(1, 6)])
    with contextlib.closing(sqlite3.connect(tmp_path / "gallery.db")) as db:
        db.execute("UPDATE observations SET feature = zeroblob(1024) WHERE seq = 2")
        db.execute("UPDATE observations SET x1 = 0.25 WHERE seq = 3")
        db.execute("UPDATE observations SET feature = 'text' WHERE seq = 4")
        db.commit()
    for selection in (Selection(), Selection(cameras=("door",))):
        found = search(sqlite_store, QUERY, selection=selection, purpose="a test", now_us=NOON)
        assert sorted(one.best.seq for one in found) == [1, 5]
    assert len(sqlite_store.damaged) == 3
    assert "3 damaged observations left out" in check(sqlite_store)
    assert "gallery restore BACKUP" in sqlite_store.damaged.trouble
    assert back_up(sqlite_store, tmp_path / "b.db", now_us=NOON).damaged == 3


@pytest.mark.parametrize("selection", [Selection(), Selection(cameras=("door",))])
def test_a_damaged_feature_takes_no_place_of_an_intact_one(sqlite_store, tmp_path, selection):
    sqlite_store.accept_model(MODEL, DIM, now_us=NOON)
    sqlite_store.add([record(seq) for seq in range(1, 6)])
    with contextlib.closing(sqlite3.connect(tmp_path / "gallery.db")) as db:
        db.execute("UPDATE observations SET feature = ? WHERE seq = 2", (b"\xff\x7b" * DIM,))  # the largest numbers
        db.commit()
    query = abs(record(1).feature)
    (best,) = sqlite_store.search(query, model_hash=MODEL, selection=selection, top=1)
    assert best.entry.seq == max((1, 3, 4, 5), key=lambda seq: float(record(seq).feature @ query))


def test_a_row_whose_text_is_not_utf_8_is_left_out_and_can_be_erased(sqlite_store, tmp_path):
    sqlite_store.accept_model(MODEL, DIM, now_us=NOON)
    sqlite_store.add([record(seq) for seq in range(1, 6)])
    with contextlib.closing(sqlite3.connect(tmp_path / "gallery.db")) as db, db:
        db.execute("UPDATE observations SET camera = CAST(? AS TEXT) WHERE seq = 2", (b"do\xffr",))
    found = sqlite_store.search(record(2).feature, model_hash=MODEL, selection=Selection(), top=10)
    assert sorted(match.entry.seq for match in found) == [1, 3, 4, 5]
    assert len(sqlite_store.damaged) == 1
    assert [one.camera for one in sqlite_store.cameras()] == ["door", "do\ufffdr"]
    assert back_up(sqlite_store, tmp_path / "b.db", now_us=NOON).damaged == 1
    assert len(sqlite_store.erase(Selection(since_us=0), now_us=NOON + HOUR).keys) == 5


def test_a_retention_that_is_damaged_deletes_nothing_and_can_be_set_again(sqlite_store, tmp_path):
    sqlite_store.set_retention_hours(72)
    with contextlib.closing(sqlite3.connect(tmp_path / "gallery.db")) as db:
        db.execute("UPDATE settings SET value = '12.0' WHERE name = 'retention_hours'")
        db.commit()
    with pytest.raises(StoreError, match="set it again"):
        sqlite_store.retention_hours()
    change_retention(sqlite_store, 72)
    assert sqlite_store.retention_hours() == 72
