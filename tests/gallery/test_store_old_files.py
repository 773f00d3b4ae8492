"""Galleries that earlier releases wrote, as SQL dumps in ``stored/``: they must open, be searched and grow."""

import contextlib
import dataclasses
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from reid_edge.gallery.entries import Selection
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.base import AcceptedModel, Added, AuditEntry, StoredGap
from tests.gallery.stores import HOUR, MODEL, NOON, OTHER_MODEL, record, unit

STORED = Path(__file__).parent / "stored" / "v1.sql"
INCARNATION = "8f14e45fceea167a"
DOOR = [
    record(seq, unit(16, seed=seq), incarnation=INCARNATION, track=seq // 2, at=NOON + seq * HOUR)
    for seq in range(1, 5)
]
YARD = record(1, unit(16, seed=9), camera="yard", lasts=HOUR)
SEARCH = AuditEntry(at_us=NOON, user="ann", action="search", purpose="lost child", detail={"ids": ["door/e1/1"]})


def fill(uri):
    """What was done to the stored gallery."""
    store = open_store(uri)
    store.accept_model(MODEL, 16, now_us=NOON)
    store.accept_model(OTHER_MODEL, None, now_us=NOON + 1)
    gap = StoredGap(
        camera="door",
        incarnation=INCARNATION,
        first_seq=9,
        last_seq=12,
        count=3,
        reason="expired",
        received_us=NOON + HOUR,
    )
    store.add([*DOOR, YARD], [gap])
    store.erase(Selection(cameras=("door",), track=1), now_us=NOON + 4 * HOUR)
    store.set_retention_hours(36.5)
    store.audit_append(SEARCH)
    store.close()


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "gallery.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(STORED.read_text())
    store = open_store(f"sqlite:{path}", create=False)
    yield store
    store.close()


def test_a_stored_gallery_is_searched(store):
    found = store.search(unit(16, seed=4), model_hash=MODEL, selection=Selection(), top=5)
    assert found[0].entry == DOOR[3].entry
    assert {match.entry.id for match in found} == {DOOR[0].entry.id, DOOR[3].entry.id, YARD.entry.id}
    for row in (DOOR[0], DOOR[3], YARD):
        (back,) = store.find(*row.entry.key)
        assert back.entry == row.entry
        np.testing.assert_array_equal(back.feature, row.feature.astype("<f2"))


def test_a_stored_gallery_keeps_its_models_gaps_retention_and_audit(store):
    assert store.models() == [AcceptedModel(MODEL, 16, NOON), AcceptedModel(OTHER_MODEL, None, NOON + 1)]
    assert [(one.camera, one.observations, one.lost) for one in store.cameras()] == [("door", 2, 3), ("yard", 1, 0)]
    assert store.retention_hours() == 36.5
    assert store.audit_entries(5) == [dataclasses.replace(SEARCH, number=1)]


def test_a_stored_gallery_grows_and_keeps_out_what_was_erased(store):
    new = record(5, unit(16, seed=5), incarnation=INCARNATION, at=NOON + 5 * HOUR)
    assert store.add([*DOOR, YARD, new]) == Added(stored=1, duplicates=3, erased=2, gaps=0)
    found = store.search(new.feature, model_hash=MODEL, selection=Selection(cameras=("door",)), top=1)
    assert [match.entry for match in found] == [new.entry]
    store.audit_append(SEARCH)
    assert [entry.number for entry in store.audit_entries(5)] == [1, 2]


def test_a_gallery_made_now_holds_the_same_tables_and_bytes(tmp_path):
    fill(f"sqlite:{tmp_path / 'now.db'}")
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "now.db")) as db,
        contextlib.closing(sqlite3.connect(":memory:")) as stored,
    ):
        stored.executescript(STORED.read_text())
        assert statements(db) == statements(stored)
        for pragma in ("application_id", "user_version"):
            assert db.execute(f"PRAGMA {pragma}").fetchone() == stored.execute(f"PRAGMA {pragma}").fetchone()


def statements(db):
    """Everything in a database; how a CREATE statement is broken into lines makes no difference."""
    return [" ".join(statement.split()) for statement in db.iterdump()]
