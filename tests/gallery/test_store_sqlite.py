"""What the SQLite gallery promises beyond what every store does: privacy of the file, durability, memory."""

import contextlib
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from reid_edge.errors import StoreError
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.deletion import Retention
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.store import open_store, sqlite_transactions
from reid_edge.gallery.store import sqlite as sqlite_module
from reid_edge.gallery.store.base import AuditEntry
from reid_edge.gallery.store.sqlite import SqliteStore
from reid_edge.gallery.store.sqlite_features import SPAN, FeatureBlocks
from reid_edge.upstream.message import decode_ack
from tests.gallery.stores import DIM, HOUR, MODEL, NOON, batch, record, unit

EVERYTHING = Selection()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gallery.db"


@pytest.fixture
def store(path):
    store = open_store(f"sqlite:{path}")
    store.accept_model(MODEL, DIM, now_us=NOON)
    yield store
    store.close()


def bytes_on_disk(path):
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


def stored_bytes(row):
    return row.feature.astype("<f2").tobytes()


def seqs(store, query=None):
    query = unit(DIM, seed=999) if query is None else query
    found = store.search(query, model_hash=MODEL, selection=EVERYTHING, top=10_000)
    return sorted(match.entry.seq for match in found)


def test_the_files_are_for_their_owner_alone(store, path):
    store.add([record(1)])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "gallery.db-wal" in modes


@pytest.mark.parametrize("forget", ["erase", "expire"])
def test_what_is_forgotten_is_in_no_byte_of_any_file(store, path, forget):
    """In random order, so that pages are split, merged and used again."""
    rng = np.random.default_rng(0)
    rows = [record(seq, at=NOON + seq * HOUR, track=int(rng.integers(150))) for seq in range(1200)]
    for start in range(0, 1200, 60):
        store.add(rows[start : start + 60])
    on_disk = bytes_on_disk(path)
    assert all(stored_bytes(row) in on_disk for row in rows)
    if forget == "erase":
        for track in rng.permutation(150)[:100]:
            assert store.erase(Selection(track=int(track)), now_us=NOON).leftovers == "none"
    else:
        for hour in range(0, 800, 40):
            store.expire(NOON + hour * HOUR)
    left = set(seqs(store))
    assert 200 < len(left) < 600
    on_disk = bytes_on_disk(path)
    remnants = [row.entry.seq for row in rows if any(part in on_disk for part in thirds(stored_bytes(row)))]
    assert remnants == sorted(left)


def thirds(data):
    return [data[start : start + len(data) // 3] for start in range(0, len(data) - len(data) // 3 + 1, len(data) // 3)]


def test_an_erasure_that_a_reader_holds_up_says_so(store, path):
    store.add([record(1)])
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM observations").fetchone()
    store._connection.execute("PRAGMA busy_timeout = 1")
    erased = store.erase(Selection(track=1), now_us=NOON)
    assert len(erased.keys) == 1
    assert "gallery expire" in erased.leftovers
    reader.execute("COMMIT")
    reader.close()
    store.add([record(2, at=NOON - HOUR)])
    store.expire(NOON - HOUR // 2)
    assert stored_bytes(record(1)) not in bytes_on_disk(path)


def test_the_audit_can_only_be_added_to(store, path):
    store.audit_append(AuditEntry(at_us=1, user="ann", action="search", purpose="why", detail={}))
    other = sqlite3.connect(path)
    for statement in (
        "DELETE FROM audit",
        "UPDATE audit SET purpose = 'none'",
        "REPLACE INTO audit SELECT * FROM audit",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="only be added to"):
            other.execute(statement)
    other.close()
    assert store.audit_entries(5)[0].purpose == "why"


def test_what_was_acknowledged_survives_kill_9(path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.gallery.stores import MODEL, DIM, record\n"
        "from reid_edge.gallery.store import open_store\n"
        "store = open_store('sqlite:' + sys.argv[2]); store.accept_model(MODEL, DIM, now_us=1)\n"
        "for start in range(0, 10**6, 7):\n"
        "    store.add([record(seq) for seq in range(start, start + 7)]); print(start + 7, flush=True)\n"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", script, str(root), str(path)], stdout=subprocess.PIPE, text=True)
    acknowledged = [int(next(process.stdout)) for _ in range(40)][-1]
    process.send_signal(signal.SIGKILL)
    acknowledged = max([acknowledged, *map(int, process.stdout.read().split())])
    process.wait()
    store = open_store(f"sqlite:{path}", create=False)
    found = seqs(store)
    assert set(range(acknowledged)) <= set(found)
    assert len(found) % 7 == 0
    assert store._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()


def test_every_commit_is_on_disk_before_it_is_acknowledged(store):
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert store._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_full_disk_stores_nothing_and_recovers(store):
    store.add([record(1)])
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        store.add([record(seq) for seq in range(2, 60)])
    assert seqs(store) == [1]
    store._connection.execute("PRAGMA max_page_count = 1000000")
    assert store.add([record(2)]).stored == 1


@pytest.mark.parametrize("content", [b"hello, this is no database at all" * 99, b""])
def test_another_file_is_left_alone_unless_it_is_empty(path, content):
    path.write_bytes(content)
    if content:
        with pytest.raises(StoreError, match="cannot be used"):
            open_store(f"sqlite:{path}")
        assert path.read_bytes() == content
    else:
        open_store(f"sqlite:{path}").close()


def test_a_database_of_something_else_is_left_alone(path):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE recipes (name)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="something else"):
        open_store(f"sqlite:{path}")
    assert path.read_bytes() == before


def test_a_gallery_of_a_later_release_is_refused(store, path):
    store._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match=r"format 99.*Upgrade"):
        open_store(f"sqlite:{path}")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"the folder .*none does not exist. Make it"):
        open_store(f"sqlite:{tmp_path / 'none' / 'gallery.db'}")


def test_a_folder_is_no_gallery(tmp_path):
    with pytest.raises(StoreError, match=r"is a folder; a gallery is a file: sqlite:.*gallery\.db"):
        open_store(f"sqlite:{tmp_path}")


def test_memory_is_a_file_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store("sqlite::memory:").close()
    assert (tmp_path / ":memory:").stat().st_size > 0


@pytest.mark.parametrize("how", ["removed", "replaced", "removed within the call"])
def test_nothing_is_acknowledged_into_a_file_that_is_gone(tmp_path, path, monkeypatch, how):
    store = open_store(f"sqlite:{path}")
    collector = Collector(store, clock=lambda: NOON + HOUR)
    assert decode_ack(collector.receive([batch([record(1)])])[0]).seqs == (1,)
    remove = lambda: [file.unlink() for file in tmp_path.glob("gallery.db*")]  # noqa: E731
    if how == "removed within the call":
        allow = sqlite_module.not_erased
        monkeypatch.setattr(
            sqlite_module, "not_erased", lambda *given: (remove(), monkeypatch.undo(), allow(*given))[-1]
        )
    else:
        remove()
    if how == "replaced":
        SqliteStore(path, create=True).close()
    with pytest.raises(StoreError, match="removed or replaced"):
        collector.receive([batch([record(2)])])
    assert decode_ack(collector.receive([batch([record(2)])])[0]).seqs == (2,)
    store.close()
    again = open_store(f"sqlite:{path}", create=False)
    assert seqs(again) == [2]
    again.close()


def test_a_reader_does_not_make_a_gallery_that_is_gone(path, store):
    reader = open_store(f"sqlite:{path}", create=False)
    for file in path.parent.glob("gallery.db*"):
        file.unlink()
    with pytest.raises(StoreError, match="removed or replaced"):
        reader.models()
    with pytest.raises(StoreError, match="there is no gallery"):
        reader.models()
    assert not path.exists()
    reader.close()


def test_neither_a_check_nor_a_backup_makes_a_gallery_that_is_gone(path, store):
    for file in path.parent.glob("gallery.db*"):
        file.unlink()
    with pytest.raises(StoreError, match="unable to open"):
        store.structure()
    with pytest.raises(StoreError, match="unable to open"), store.snapshot():
        pass
    assert not path.exists()


def test_a_stop_does_not_wait_for_another_process_that_keeps_the_file(path, store, monkeypatch):
    monkeypatch.setattr("reid_edge.gallery.repeating.STOP_S", 0.1)
    monkeypatch.setattr(sqlite_transactions, "CLOSE_S", 0.1)
    keeper = Retention(store, every_s=0.01)
    waiting = threading.Event()
    tick = keeper.clock.tick
    monkeypatch.setattr(keeper.clock, "tick", lambda: (waiting.set(), tick())[-1])
    other = sqlite3.connect(path, isolation_level=None)
    with keeper.running():
        other.execute("BEGIN IMMEDIATE")
        waiting.clear()
        assert waiting.wait(10)
        began = time.monotonic()
    store.close()
    assert time.monotonic() - began < 2
    other.execute("ROLLBACK")
    other.close()
    with pytest.raises(StoreError, match="closed"):
        store.models()


@pytest.mark.parametrize("memory_bytes", [0, 100 * DIM * 4, 1 << 30])
def test_searches_of_everything_follow_every_change(path, memory_bytes):
    """Whatever fits into memory, and whoever changes the file."""
    store, other = (SqliteStore(path, create=True, memory_bytes=size) for size in (memory_bytes, 1 << 30))
    store.accept_model(MODEL, DIM, now_us=NOON)
    rng = np.random.default_rng(0)
    expected = set()
    query = unit(DIM, seed=5)
    for step in range(30):
        actor = (store, other)[int(rng.integers(2))]
        if step % 4 == 3:
            gone = Selection(track=int(rng.choice(sorted(expected))))
            actor.erase(gone, now_us=NOON)
            expected -= {gone.track}
        else:
            new = range(step * 10, step * 10 + 10)
            actor.add([record(seq, at=NOON + HOUR) for seq in new])
            expected |= set(new)
        for each in (store, other):
            assert seqs(each, query) == sorted(expected)
    best = store.search(query, model_hash=MODEL, selection=EVERYTHING, top=1)[0]
    cosines = {seq: float(record(seq).feature @ query) for seq in expected}
    assert best.entry.seq == max(cosines, key=cosines.get)
    store.close()
    other.close()


def test_blocks_are_read_once_and_again_when_their_rows_change():
    numbers = np.array([3, 5, SPAN + 1, 3 * SPAN + 2])
    features = unit(4, 8, seed=1)
    loads = []

    def load(start, stop):
        loads.append(start // SPAN)
        chosen = (numbers >= start) & (numbers < stop) & alive
        return numbers[chosen], features[chosen]

    alive = np.array([True, True, True, True])
    blocks = FeatureBlocks(1 << 20)
    for _ in range(3):
        np.testing.assert_allclose(blocks.scores(1, numbers, features[0], load), features @ features[0], rtol=1e-6)
    assert loads == [0, 1, 3]
    alive = np.array([True, False, True, True])
    expected = (features @ features[0])[alive]
    np.testing.assert_allclose(blocks.scores(1, numbers[alive], features[0], load), expected, rtol=1e-6)
    assert loads == [0, 1, 3, 0]


def test_rows_are_listed_again_if_some_have_come_or_gone_and_not_for_a_line_of_the_audit(store, path):
    store.add([record(seq) for seq in (1, 2, 3)])
    assert seqs(store) == [1, 2, 3]
    listed = store._listed
    store.audit_append(AuditEntry(at_us=NOON, user="ann", action="search", purpose="a test", detail={}))
    assert seqs(store) == [1, 2, 3] and store._listed is listed
    with contextlib.closing(open_store(f"sqlite:{path}")) as other:  # as another process
        other.erase(record(3).entry.whole_tracklet, now_us=NOON)
        other.add([record(4)])  # as many as before
    assert seqs(store) == [1, 2, 4]
