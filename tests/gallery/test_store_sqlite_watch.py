"""What becomes of a gallery's SQLite file while it is open is noticed at once or within minutes."""

import contextlib
import random
import subprocess
import sys

import pytest

from reid_edge.errors import StoreError
from reid_edge.gallery.backup import back_up
from reid_edge.gallery.restore import restore
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store import sqlite as sqlite_module
from reid_edge.gallery.store.snapshots import check
from tests.faults.damage import damage_file
from tests.gallery.stores import DIM, MODEL, NOON, record, unit

FEATURES = unit(2_000, DIM, seed=3)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gallery.db"


@pytest.fixture
def store(path):
    """A gallery of 2,000 observations that is open, with all of them in its file, and none in its log."""
    with contextlib.closing(open_store(f"sqlite:{path}")) as filling:
        filling.accept_model(MODEL, DIM, now_us=NOON)
        filling.add([record(seq, feature) for seq, feature in enumerate(FEATURES, 1)])
        back_up(filling, path.with_name("backup.db"), now_us=NOON)
    with contextlib.closing(open_store(f"sqlite:{path}")) as store:
        yield store


def overwrite(path, offset, content):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def noise(count, seed=1):
    return random.Random(seed).randbytes(count)


def test_a_file_that_is_overwritten_with_noise_takes_nothing_more_until_it_is_restored(store, path):
    assert store.add([record(3000)]).stored == 1
    overwrite(path, 0, noise(path.stat().st_size))
    for _ in range(3):
        with pytest.raises(StoreError, match=r"was overwritten while it was open.*restore BACKUP"):
            store.add([record(3001)])
    with pytest.raises(StoreError, match="was overwritten"):
        store.models()
    restore(path.with_name("backup.db"), f"sqlite:{path}", now_us=NOON, force=True)
    with pytest.raises(StoreError, match="removed or replaced"):
        store.add([record(3001)])
    assert store.add([record(3001)]).stored == 1
    assert store.damaged.trouble == ""
    assert check(store) == ""


@pytest.mark.parametrize("length", [0, 50, 40_000])
def test_a_file_that_is_cut_off_takes_nothing_more(store, path, length):
    with path.open("r+b") as file:
        file.truncate(length)
    for _ in range(2):
        with pytest.raises(StoreError, match="was cut off while it was open"):
            store.add([record(3001)])


def test_noise_behind_the_header_is_noticed_by_the_next_look_and_nothing_more_is_stored(store, path):
    overwrite(path, 4096, noise(path.stat().st_size - 4096))
    store.look()
    assert "cannot be read" in store.damaged.trouble
    for _ in range(2):
        with pytest.raises(StoreError, match=r"newest part .*nothing is stored\. .*restore BACKUP"):
            store.add([record(3001)])


def test_damage_of_old_rows_is_found_by_looks_in_turn_and_new_ones_are_stored(store, path, monkeypatch):
    monkeypatch.setattr(sqlite_module, "LOOK_S", 0.0)
    store.look()
    assert store.damaged.trouble == ""
    feature = FEATURES[50].astype("<f2").tobytes()
    overwrite(path, path.read_bytes().index(feature[:64]), noise(8))
    for _ in range(8):
        monkeypatch.setattr(sqlite_module, "LOOK_S", 0.001)
        store.look()
    assert "1 damaged observation left out" in store.damaged.trouble
    assert store.add([record(3001)]).stored == 1


def test_a_log_that_is_removed_is_noticed_and_costs_nothing_that_was_acknowledged(store, path):
    assert store.add([record(3000)]).stored == 1
    path.with_name("gallery.db-wal").unlink()
    with pytest.raises(StoreError, match=r"log of the gallery .* was removed"):
        store.add([record(3001)])
    assert store.add([record(3001)]).stored == 1
    held = f"from reid_edge import open_store; print(open_store('sqlite:{path}').find('door', 'e1', SEQ).__len__())"
    for seq in (2000, 3000, 3001):
        code = held.replace("SEQ", str(seq))
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"
    assert store.damaged.trouble == ""


def test_a_file_that_is_removed_is_told_of_for_a_day_or_until_it_is_restored(store, path, monkeypatch):
    for file in path.parent.glob("gallery.db*"):
        file.unlink()
    with pytest.raises(StoreError, match="removed or replaced"):
        store.models()
    assert store.models() == []  # it was made anew
    assert "removed while it was open" in store.damaged.trouble
    assert "restore BACKUP" in store.damaged.trouble
    restore(path.with_name("backup.db"), f"sqlite:{path}", now_us=NOON, force=True)
    with pytest.raises(StoreError, match="removed or replaced"):
        store.models()
    assert len(store.models()) == 1
    assert store.damaged.trouble == ""


def test_another_gallery_in_the_place_is_told_of(store, path):
    other = path.with_name("other.db")
    open_store(f"sqlite:{other}").close()
    other.replace(path)
    with pytest.raises(StoreError, match="removed or replaced"):
        store.models()
    store.models()
    assert "another file is in the place" in store.damaged.trouble


@pytest.mark.parametrize("seed", range(12))
def test_whatever_is_damaged_under_an_open_gallery_is_told_within_some_looks(store, path, seed):
    """Of random damages each is noticed, or has changed nothing of what is stored."""
    damage = damage_file(path, random.Random(seed))
    failed = ""
    for _ in range(3):
        try:
            store.look()
        except StoreError as error:
            failed = str(error)
    if failed or store.damaged.trouble:
        return
    with contextlib.closing(open_store(f"sqlite:{path}", create=False)) as again:
        found = sum(map(len, _records(again)))
        assert (found, again.damaged.trouble) == (2_000, ""), f"seed {seed}: {damage}"


def _records(store):
    with store.snapshot() as held:
        yield from held.records()


def test_looking_every_minute_costs_little(store):
    for _ in range(20):  # other programs may take the processor away from one
        store._looking._after = 0
        store.look()
        if store._looking._after == 0:
            return  # 2,000 observations were read in one look
    raise AssertionError("not even 2,000 observations are read in one look")
