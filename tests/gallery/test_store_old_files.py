"""Galleries that earlier releases wrote, as dumps in ``stored/``: they must open, be searched and grow."""

import contextlib
import dataclasses
import json
import re
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from reid_edge.gallery.entries import Selection
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.base import AcceptedModel, Added, AuditEntry, StoredGap
from reid_edge.gallery.store.chain import check_chain
from tests.gallery.stores import HOUR, MODEL, NOON, OTHER_MODEL, record, unit

STORED = Path(__file__).parent / "stored"
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


def make_sqlite(uri, version):
    with contextlib.closing(sqlite3.connect(uri.partition(":")[2])) as db:
        db.executescript((STORED / f"{version}.sql").read_text())


def make_postgresql(uri, version):
    import psycopg

    with psycopg.connect(uri, autocommit=True) as db:
        db.execute((STORED / f"{version}_postgresql.sql").read_text())


def make_milvus(uri, version):
    from reid_edge.gallery.store.milvus_client import Client, DataType
    from reid_edge.gallery.store.milvus_collections import collection_fields
    from reid_edge.gallery.store.milvus_meta import META, META_FIELDS

    client = Client(uri.partition(":")[2])
    fields = {**collection_fields(16), "feature": (DataType.FLOAT_VECTOR, 16)}
    del fields["checksum"]
    for name, rows in json.loads((STORED / f"{version}_milvus.json").read_text()).items():
        client.create(name, META_FIELDS if name == META else fields)
        client.put(name, rows)
    client.close()


MAKE = {"sqlite": make_sqlite, "postgresql": make_postgresql, "milvus": make_milvus}


@pytest.fixture(
    params=[
        *(f"sqlite v{version}" for version in range(1, 5)),
        *(f"postgresql v{version}" for version in range(1, 4)),
        "milvus v1",
    ]
)
def uri(request, engines):
    name, version = request.param.split()
    engine = engines(name)
    uri = engine.uri()
    MAKE[name](uri, version)
    yield uri
    engine.give_back(uri)


@pytest.fixture
def store(uri):
    store = open_store(uri, create=False)
    yield store
    store.close()


def test_a_stored_gallery_is_searched(store):
    found = store.search(unit(16, seed=4), model_hash=MODEL, selection=Selection(), top=5)
    assert found[0].entry == DOOR[3].entry
    assert {match.entry.id for match in found} == {DOOR[0].entry.id, DOOR[3].entry.id, YARD.entry.id}
    for row in (DOOR[0], DOOR[3], YARD):
        (back,) = store.find(*row.entry.key)
        assert back.entry == row.entry
        np.testing.assert_array_equal(back.feature.astype("<f2"), row.feature.astype("<f2"))


def test_a_stored_gallery_keeps_its_models_gaps_retention_and_audit(store):
    assert store.models() == [AcceptedModel(MODEL, 16, NOON), AcceptedModel(OTHER_MODEL, None, NOON + 1)]
    assert [(one.camera, one.observations, one.lost) for one in store.cameras()] == [("door", 2, 3), ("yard", 1, 0)]
    assert store.retention_hours() == 36.5
    assert store.audit_entries(5)[0] == dataclasses.replace(SEARCH, number=1)


def test_the_audit_of_a_stored_gallery_is_chained_and_goes_on(store):
    store.audit_append(SEARCH)
    lines = store.audit_entries(5)
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert [line.action for line in lines if line.action != "chained"] == ["search", "search"]
    assert check_chain(lines).faults == ()


def test_a_stored_gallery_grows_and_keeps_out_what_was_erased(store):
    new = record(5, unit(16, seed=5), incarnation=INCARNATION, at=NOON + 5 * HOUR)
    assert store.add([*DOOR, YARD, new]) == Added(stored=1, duplicates=3, erased=2, gaps=0)
    found = store.search(new.feature, model_hash=MODEL, selection=Selection(cameras=("door",)), top=1)
    assert [match.entry for match in found] == [new.entry]
    assert [erasure.selection.track for erasure in store.erasures()] == [1]


def test_a_gallery_that_was_brought_to_this_format_is_the_same_when_it_is_opened_again(uri):
    def contents():
        with contextlib.closing(open_store(uri, create=False)) as store:
            rows = [store.find(*row.entry.key)[0] for row in (DOOR[0], DOOR[3], YARD)]
            said = [dataclasses.replace(line, at_us=0) for line in store.audit_entries(9)]
            return [(row.entry, row.feature.tobytes()) for row in rows], said, store.erasures(), store.cameras()

    assert contents() == contents()


def test_a_gallery_made_now_holds_the_same_tables_and_bytes(tmp_path):
    fill(f"sqlite:{tmp_path / 'now.db'}")
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "now.db")) as db,
        contextlib.closing(sqlite3.connect(":memory:")) as stored,
    ):
        stored.executescript((STORED / "v4.sql").read_text())
        assert statements(db) == statements(stored)
        for pragma in ("application_id", "user_version"):
            assert db.execute(f"PRAGMA {pragma}").fetchone() == stored.execute(f"PRAGMA {pragma}").fetchone()


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_an_old_file_that_was_brought_to_this_format_has_the_same_tables_as_a_new_one(tmp_path, version):
    path = tmp_path / "old.db"
    make_sqlite(f"sqlite:{path}", version)
    open_store(f"sqlite:{path}").close()
    open_store(f"sqlite:{tmp_path / 'new.db'}").close()
    assert schema(path) == schema(tmp_path / "new.db")


KNOWN = """
INSERT INTO {0}assignments VALUES ('yard', 'e1', 1, 1, 'ab', 2, 5, 1767272400000001, 'new', NULL, 'r', 'c', '', 9);
INSERT INTO {0}assignments VALUES ('door', '8f14e45fceea167a', 2, 2, 'ab', 4, 5, 1767283201000000, 'new', NULL, 'r',
    'c', '', 9);
INSERT INTO {0}person_events (at_us, kind, person, model_hash, camera, epoch, track, other, similarity, reason)
    VALUES (9, 'new', 1, 'ab', 'yard', 'e1', 1, NULL, NULL, 'r'),
    (9, 'new', 2, 'ab', 'door', '8f14e45fceea167a', 2, NULL, NULL, 'r');
"""


@pytest.mark.parametrize("name", ["sqlite", "postgresql"])
def test_what_format_3_knew_by_erased_parts_of_tracklets_goes(engines, name):
    uri = engines(name).uri()
    MAKE[name](uri, "v3")
    if name == "sqlite":
        with contextlib.closing(sqlite3.connect(uri.partition(":")[2])) as db:
            db.executescript(KNOWN.format(""))
    else:
        import psycopg

        with psycopg.connect(uri, autocommit=True) as db:
            db.execute(KNOWN.format("reid_edge."))
    with contextlib.closing(open_store(uri, create=False)) as store:
        assert [one.person for one in store.assignments()] == [2]
        assert [one.person for one in store.person_events(limit=9)] == [2]
    engines(name).give_back(uri)


def schema(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
    return [(kind, name, " ".join((sql or "").split())) for kind, name, sql in rows]


def statements(db):
    """Everything in a database, whatever the names and counts that differ each time, and the breaks of lines."""
    dump = [re.sub(r"'[0-9a-f]{32}'", "'…'", " ".join(statement.split())) for statement in db.iterdump()]
    return [one for one in dump if not re.match(r"""INSERT INTO "settings" VALUES\('(commits|gallery)'""", one)]
