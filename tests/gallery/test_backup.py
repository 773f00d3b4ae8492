"""Backups of each store: whole, private, consistent; restored without what was erased since, and never over data."""

import contextlib
import dataclasses
import errno
import json
import logging
import random
import shutil
import sqlite3
import stat
import threading

import pytest

from reid_edge.errors import OutputError, StoreError, UsageError
from reid_edge.gallery import restore as module
from reid_edge.gallery.backup import back_up
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.deletion import Retention, erase_with_receipt
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.replay import ReplayLog, replay_request, request_replay
from reid_edge.gallery.restore import restore
from reid_edge.gallery.search import query_by_feature, search
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.base import AuditEntry, StoredGap
from reid_edge.gallery.store.chain import check_chain
from reid_edge.gallery.times import time_text
from reid_edge.upstream.message import decode_ack
from reid_edge.upstream.observation import Replay
from tests.faults.damage import damage_file
from tests.gallery.stores import DIM, HOUR, MODEL, NOON, OTHER_MODEL, batch, record, unit

EVERYTHING = Selection()
NOW = NOON + 6 * HOUR


def fill(store):
    store.accept_model(MODEL, DIM, now_us=NOON)
    store.accept_model(OTHER_MODEL, None, now_us=NOON + 1)
    store.add([record(seq, camera=camera) for camera in ("door", "yard") for seq in range(1, 6)], [GAP])
    store.set_retention_hours(48)
    store.audit_append(AuditEntry(at_us=NOON, user="ann", action="search", purpose="why", detail={"ids": ["ß"]}))
    store.erase(Selection(track=5), now_us=NOON + HOUR)


GAP = StoredGap(camera="door", incarnation="e1", first_seq=7, last_seq=9, count=3, reason="lost", received_us=NOON)


def contents(store):
    with store.snapshot() as held:
        rows = {row.entry: row.feature.astype("<f2").tobytes() for piece in held.records() for row in piece}
        return rows, held.models(), held.gaps(), held.erasures(), store.retention_hours()


@pytest.mark.parametrize("into", ["sqlite", "the same"])
def test_a_backup_holds_all_and_is_put_back_into_a_new_gallery(engine, engines, tmp_path, into):
    if into == "sqlite" and engine.name == "sqlite":
        pytest.skip("the same")
    store = open_store(engine.uri())
    fill(store)
    before, audit = contents(store), store.audit_entries(99)
    written = back_up(store, tmp_path / "b.db", now_us=NOW)
    assert (written.observations, written.damaged, written.gaps, written.erasures) == (8, 0, 1, 1)
    uri = engine.uri() if into == "the same" else f"sqlite:{tmp_path / 'new.db'}"
    done = restore(tmp_path / "b.db", uri, now_us=NOW + HOUR)
    assert (done.observations, done.erased, done.backup_us, done.set_aside) == (8, 0, NOW, "")
    again = open_store(uri, create=False)
    assert contents(again) == before
    lines = again.audit_entries(99)
    assert lines[: len(audit)] == audit
    assert [line.action for line in lines[len(audit) :]] == ["backup", "restore"]
    assert check_chain(lines, expect=written.audit_head).faults == ()
    assert again.add([record(5)]).erased == 1
    assert replay_request(again) == Replay(done.replay, NOW - 48 * HOUR)
    assert replay_request(store) is None
    for each in (store, again):
        each.close()


def test_a_backup_is_one_private_file_and_is_not_changed_by_a_restore(sqlite_store, tmp_path):
    fill(sqlite_store)
    folder = tmp_path / "out"
    folder.mkdir()
    back_up(sqlite_store, folder / "b.db", now_us=NOW)
    assert [file.name for file in folder.iterdir()] == ["b.db"]
    assert stat.S_IMODE((folder / "b.db").stat().st_mode) == 0o600
    before = (folder / "b.db").read_bytes()
    restore(folder / "b.db", f"sqlite:{tmp_path / 'new.db'}", now_us=NOW)
    assert (folder / "b.db").read_bytes() == before
    assert [file.name for file in folder.iterdir()] == ["b.db"]
    for file in tmp_path.glob("new.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_what_is_there_is_not_written_over(sqlite_store, tmp_path):
    fill(sqlite_store)
    back_up(sqlite_store, tmp_path / "b.db", now_us=NOW)
    with pytest.raises(OutputError, match="--force"):
        back_up(sqlite_store, tmp_path / "b.db", now_us=NOW)
    with pytest.raises(UsageError, match="--force sets it aside"):
        restore(tmp_path / "b.db", sqlite_store.name, now_us=NOW)
    with pytest.raises(UsageError, match="there is no backup"):
        restore(tmp_path / "none.db", f"sqlite:{tmp_path / 'new.db'}", now_us=NOW)
    assert sqlite_store.span(EVERYTHING).observations == 8


def test_erasures_after_the_backup_are_replayed_by_force_from_what_is_there(engine, tmp_path):
    uri = engine.uri()
    store = open_store(uri)
    fill(store)
    back_up(store, tmp_path / "b.db", now_us=NOW)
    erase_with_receipt(store, Selection(cameras=("door",)), purpose="a right", now_us=NOW)
    journal = tmp_path / "kept"
    journal.write_text(journal_of(store))
    if engine.name == "milvus":
        with pytest.raises(UsageError, match="new database"):
            restore(tmp_path / "b.db", uri, now_us=NOW, force=True)
        store.close()
        uri = engine.uri()
    else:
        with pytest.raises(UsageError, match="--force"):
            restore(tmp_path / "b.db", uri, now_us=NOW)
        store.close()
        journal = None
    done = restore(tmp_path / "b.db", uri, now_us=NOW, force=True, journals=[journal] if journal else ())
    assert (done.observations, done.erased, done.erasures) == (4, 4, 1)
    again = open_store(uri, create=False)
    assert {one.camera for one in again.cameras() if one.observations} == {"yard"}
    assert again.add([record(1)]).erased == 1
    assert again.audit_entries(1)[0].detail["erased"] == 4
    again.close()


def journal_of(store):
    from reid_edge.gallery.store.sqlite_beside import journal_text

    return journal_text(store.erasures())


def test_a_restore_that_fails_leaves_what_was_there(engine, tmp_path, monkeypatch):
    uri = engine.uri()
    store = open_store(uri)
    fill(store)
    back_up(store, tmp_path / "b.db", now_us=NOW)
    before = contents(store)
    store.close()
    if engine.name == "milvus":
        pytest.skip("Milvus cannot set aside what it holds")
    with monkeypatch.context() as patch:
        patch.setattr(
            "reid_edge.gallery.restore.audit.record", lambda *_, **__: (_ for _ in ()).throw(StoreError("no"))
        )
        with pytest.raises(StoreError, match="no"):
            restore(tmp_path / "b.db", uri, now_us=NOW, force=True)
    again = open_store(uri, create=False)
    assert contents(again) == before
    again.close()


def test_a_restore_whose_file_cannot_be_put_in_place_leaves_what_was_there(sqlite_store, tmp_path, monkeypatch):
    fill(sqlite_store)
    back_up(sqlite_store, tmp_path / "b.db", now_us=NOW)
    before = contents(sqlite_store)
    monkeypatch.setattr("reid_edge.gallery.restore.put_in_place", raising(OutputError("no space")))
    with pytest.raises(OutputError, match="no space"):
        restore(tmp_path / "b.db", sqlite_store.name, now_us=NOW, force=True)
    assert contents(sqlite_store) == before
    assert not list(tmp_path.glob("*replaced*"))


def test_a_backup_that_cannot_be_copied_is_an_error_that_says_what_to_do(sqlite_store, tmp_path, monkeypatch):
    fill(sqlite_store)
    back_up(sqlite_store, tmp_path / "b.db", now_us=NOW)
    monkeypatch.setattr("reid_edge.gallery.restore.shutil.copyfile", raising(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(StoreError, match=r"No space left.*TMPDIR"):
        restore(tmp_path / "b.db", f"sqlite:{tmp_path / 'new.db'}", now_us=NOW)
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("said", ["", "[]", '{"at_us": -1}', '{"at_us": "x"}', '{"at_us": 1e400}'])
def test_a_backup_whose_time_is_damaged_asks_cameras_for_everything(sqlite_store, tmp_path, said):
    fill(sqlite_store)
    back_up(sqlite_store, tmp_path / "b.db", now_us=NOW)
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db")) as db, db:
        db.execute("UPDATE settings SET value = ? WHERE name = 'backup'", (said,))
    uri = f"sqlite:{tmp_path / 'new.db'}"
    done = restore(tmp_path / "b.db", uri, now_us=NOW)
    assert (done.observations, done.backup_us) == (8, 0)
    with contextlib.closing(open_store(uri)) as store:
        assert replay_request(store) == Replay(done.replay, 0)


def raising(error):
    def fail(*_given, **_options):
        raise error

    return fail


def test_an_older_copy_of_the_file_does_not_bring_back_what_was_erased(sqlite_store, tmp_path):
    path = tmp_path / "gallery.db"
    fill(sqlite_store)
    sqlite_store.close()
    shutil.copy(path, tmp_path / "copy.db")
    store = open_store(f"sqlite:{path}")
    erase_with_receipt(store, Selection(cameras=("door",)), purpose="a right", now_us=NOW)
    store.close()
    shutil.copy(tmp_path / "copy.db", path)
    store = open_store(f"sqlite:{path}")
    assert {one.camera for one in store.cameras() if one.observations} == {"yard"}
    said = {line.action: line.detail for line in store.audit_entries(9)}
    assert said["commits lost"]["marked"] > said["commits lost"]["commits"]
    assert said["erase again"]["observations"] == 4
    assert check_chain(store.audit_entries(9)).faults == ()
    store.close()
    again = open_store(f"sqlite:{path}")
    assert len(again.audit_entries(99)) == len(said)  # it is said once
    again.close()


def test_a_backup_older_than_the_retention_is_not_shown_and_goes_at_the_first_deletion(sqlite_store, tmp_path):
    fill(sqlite_store)
    back_up(sqlite_store, tmp_path / "b.db", now_us=NOW)
    later = NOW + 100 * HOUR
    uri = f"sqlite:{tmp_path / 'new.db'}"
    restore(tmp_path / "b.db", uri, now_us=later)
    store = open_store(uri)
    query = query_by_feature(unit(DIM, seed=1), MODEL, image_sha256="f" * 64)
    assert search(store, query, selection=EVERYTHING, purpose="a test", now_us=later) == []
    assert Retention(store, clock=lambda: later).apply() == 8
    store.close()


def test_a_backup_while_cameras_send_holds_whole_commits_and_one_state(engine, tmp_path):
    """Each commit has three rows and a line of the audit says so: no backup may have one without the other."""
    store, writer = (open_store(uri) for uri in [engine.uri()] * 2)
    store.accept_model(MODEL, DIM, now_us=NOON)
    stop = threading.Event()
    sent = []

    def send():
        while not stop.is_set():
            first = 3 * len(sent)
            writer.add([record(seq) for seq in range(first, first + 3)])
            sent.append(first)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        while len(sent) < 3:
            pass
        for number in range(3):
            at_least = 3 * len(sent)
            written = back_up(store, tmp_path / f"{number}.db", now_us=NOW)
            with contextlib.closing(sqlite3.connect(tmp_path / f"{number}.db")) as db:
                seqs = [seq for (seq,) in db.execute("SELECT seq FROM observations ORDER BY seq")]
            assert len(seqs) == written.observations >= at_least
            if engine.name != "milvus":
                assert seqs == list(range(len(seqs)))
                assert len(seqs) % 3 == 0
    finally:
        stop.set()
        thread.join()
    for each in (store, writer):
        each.close()


def test_a_damaged_backup_is_refused_and_nothing_is_made(sqlite_store, tmp_path):
    store = sqlite_store
    Collector(store, clock=lambda: NOW).receive([batch([record(seq) for seq in range(1, 200)])])
    back_up(store, tmp_path / "b.db", now_us=NOW)
    whole = (tmp_path / "b.db").read_bytes()
    outcomes = set()
    for seed in range(40):
        (tmp_path / "b.db").write_bytes(whole)
        damage = damage_file(tmp_path / "b.db", random.Random(seed))
        uri = f"sqlite:{tmp_path / f'{seed}.db'}"
        try:
            done = restore(tmp_path / "b.db", uri, now_us=NOW)
        except StoreError:
            assert not list(tmp_path.glob(f"{seed}.db*")), damage
            outcomes.add("refused")
            continue
        outcomes.add("restored")
        again = open_store(uri)
        for seq in range(1, 200):
            for row in again.find("door", "e1", seq):
                assert row.entry == record(seq).entry, damage
                assert row.feature.tobytes() == record(seq).feature.astype("<f2").astype("<f4").tobytes(), damage
        assert done.observations <= 199
        again.close()
    assert "refused" in outcomes


def test_a_damaged_row_is_left_out_of_a_backup_and_counted(sqlite_store, tmp_path):
    fill(sqlite_store)
    sqlite_store._connection.execute("UPDATE observations SET last_us = last_us + 1 WHERE seq = 1 AND camera = 'door'")
    written = back_up(sqlite_store, tmp_path / "b.db", now_us=NOW)
    assert (written.observations, written.damaged) == (7, 1)


def test_a_backup_of_a_file_of_the_first_format_is_restored(tmp_path):
    from tests.gallery.test_store_old_files import make_sqlite

    make_sqlite(f"sqlite:{tmp_path / 'old.db'}", "v1")
    done = restore(tmp_path / "old.db", f"sqlite:{tmp_path / 'new.db'}", now_us=NOW)
    assert (done.observations, done.backup_us) == (3, 0)


def test_a_restored_gallery_that_runs_opens_the_new_file(sqlite_store, tmp_path):
    """A collector that has the old file open notices at its next call, and goes on with the new one."""
    fill(sqlite_store)
    back_up(sqlite_store, tmp_path / "b.db", now_us=NOW)
    sqlite_store.add([record(50)])
    done = restore(tmp_path / "b.db", sqlite_store.name, now_us=NOW, force=True)
    assert done.set_aside.startswith(f"{tmp_path / 'gallery.db'}.replaced-")
    with pytest.raises(StoreError, match="removed or replaced"):
        sqlite_store.add([record(51)])
    assert sqlite_store.add([record(50), record(51)]).stored == 2
    assert sqlite_store.span(EVERYTHING).observations == 10
    aside = open_store(f"sqlite:{done.set_aside}")
    assert aside.span(EVERYTHING).observations == 9
    aside.close()


def test_a_restored_gallery_asks_cameras_for_what_they_still_have(sqlite_store, tmp_path):
    fill(sqlite_store)
    back_up(sqlite_store, tmp_path / "b.db", now_us=NOW)
    uri = f"sqlite:{tmp_path / 'new.db'}"
    done = restore(tmp_path / "b.db", uri, now_us=NOW)
    store = open_store(uri)
    collector = Collector(store, clock=lambda: NOW, expire_every_s=0)
    collector.retention.apply()
    (ack,) = collector.receive([batch([record(77)])])
    assert decode_ack(ack).replay == Replay(done.replay, NOW - 48 * HOUR)
    other = Collector(sqlite_store, clock=lambda: NOW)
    other.retention.apply()
    assert decode_ack(other.receive([batch([record(77)])])[0]).replay is None
    store.close()


def test_the_log_says_once_which_camera_is_asked_since_when_and_what_came(sqlite_store, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    request_replay(sqlite_store, Replay("r1", NOW - 48 * HOUR))
    collector, seconds = Collector(sqlite_store, clock=lambda: NOW), [0.0]
    monkeypatch.setattr(collector, "replays", ReplayLog(clock=lambda: seconds[0]))
    collector.receive([batch([])])  # 'run --check'
    assert not caplog.messages
    for seq in range(70, 80):
        collector.receive([batch([record(seq)]), batch([record(seq, camera="yard")], camera="yard")])
    asked = [line for line in caplog.messages if "asked to send again" in line]
    assert len(asked) == len(caplog.messages) == 2
    assert "door" in asked[0] and time_text(NOW - 48 * HOUR) in asked[0] and "yard" in asked[1]
    seconds[0] = 61.0
    collector.replays.report()
    collector.replays.report()
    assert caplog.messages[2:] == [
        f"{one} has sent 9 observations from before it was asked to" for one in ("door", "yard")
    ]
    request_replay(sqlite_store, Replay("r2", 0))
    collector.retention.apply()
    collector.receive([batch([record(80)])])
    assert len(caplog.messages) == 5 and "door" in caplog.messages[4]


def test_a_request_that_is_damaged_is_none(sqlite_store):
    damaged = ('{"id": "r", "since_us": 1e400}', '{"id": "r", "since_us": -1}', '{"id": "../r", "since_us": 1}')
    too_large = f'{{"id": "r", "since_us": {2**63}}}'
    for text in ("", "{}", "[1]", "x", too_large, *damaged):
        sqlite_store.change_settings({"replay": text})
        assert replay_request(sqlite_store) is None
    sqlite_store.change_settings({"replay": json.dumps(dataclasses.asdict(Replay("r", 5)))})
    assert replay_request(sqlite_store) == Replay("r", 5)


def killed_with_a_log(path):
    """Leave a gallery as a kill does: with a write-ahead log that was not emptied."""
    store = open_store(f"sqlite:{path}")
    fill(store)
    store.add([record(seq, camera="late") for seq in range(1, 100)])
    log = path.with_name(f"{path.name}-wal")
    kept = path.read_bytes(), log.read_bytes()
    store.close()
    path.write_bytes(kept[0])
    log.write_bytes(kept[1])
    return log


@pytest.fixture
def small_backup(sqlite_store, tmp_path):
    fill(sqlite_store)
    back_up(sqlite_store, tmp_path / "small.db", now_us=NOW)
    return tmp_path / "small.db"


@pytest.mark.parametrize("way", ["restored where it was deleted", "restored by force", "written over it"])
def test_the_log_of_another_file_is_not_applied_to_the_one_that_takes_its_place(
    sqlite_store, small_backup, tmp_path, way
):
    path = tmp_path / "killed.db"
    log = killed_with_a_log(path)
    assert log.stat().st_size
    if way == "written over it":
        back_up(sqlite_store, path, now_us=NOW, force=True)
    else:
        if way == "restored where it was deleted":
            path.unlink()
        restore(small_backup, f"sqlite:{path}", now_us=NOW, force=True)
    with contextlib.closing(open_store(f"sqlite:{path}", create=False)) as found:
        assert found.structure() == []
        assert contents(found)[0] == contents(sqlite_store)[0]


def test_a_backup_is_not_written_over_the_gallery_itself(sqlite_store, tmp_path):
    fill(sqlite_store)
    own = tmp_path / sqlite_store.name.rpartition("/")[2]
    (tmp_path / "link.db").symlink_to(own)
    before = contents(sqlite_store)
    for name in (own.name, "link.db", *(own.name + side for side in ("-wal", "-shm", ".mark", ".erasures"))):
        with pytest.raises(OutputError, match="of the gallery itself"):
            back_up(sqlite_store, tmp_path / name, now_us=NOW, force=True)
    assert contents(sqlite_store) == before


def test_at_no_moment_of_a_restore_is_there_no_gallery(sqlite_store, tmp_path, monkeypatch):
    """After a kill, a service that starts would begin an empty one."""
    fill(sqlite_store)
    back_up(sqlite_store, tmp_path / "b.db", now_us=NOW)
    sqlite_store.close()
    held, put_in_place = [], module.put_in_place

    def looking(partial, path):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as there:
            held.append(there.execute("SELECT count(*) FROM observations").fetchone()[0])
        put_in_place(partial, path)

    monkeypatch.setattr(module, "put_in_place", looking)
    restore(tmp_path / "b.db", sqlite_store.name, now_us=NOW, force=True)
    assert held == [8]
