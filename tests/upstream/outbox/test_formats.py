"""Outboxes that earlier releases wrote are opened and delivered as those releases would have."""

import contextlib
import gzip
import sqlite3
from pathlib import Path

import pytest

from reid_edge.errors import OutboxError
from reid_edge.upstream.outbox import Outbox, tables
from reid_edge.upstream.outbox.database import SCHEMA_VERSION
from reid_edge.upstream.outbox.records import is_intact
from tests.upstream.observing import observed
from tests.upstream.outbox.make import delivered
from tests.upstream.outboxes import HOUR, SECOND, Clocks, opened

FORMATS = sorted(Path(__file__).parent.glob("v*"))


@pytest.fixture(params=["closed.db", "killed.db"])
def stored(request, tmp_path):
    def restored(folder: Path) -> Path:
        for packed in folder.glob(f"{request.param}*.gz"):
            (tmp_path / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
        return tmp_path / request.param

    return restored


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_a_stored_outbox_is_delivered_byte_for_byte(stored, folder):
    path = stored(folder)
    assert delivered(path) == [batch.read_bytes() for batch in sorted(folder.glob("batch_*.bin"))]
    assert delivered(path) == []


@pytest.mark.parametrize("folder", FORMATS, ids=lambda folder: folder.name)
def test_a_stored_outbox_goes_on_where_it_stopped(stored, folder):
    outbox = Outbox(stored(folder))
    try:
        assert outbox.set_aside == []
        assert outbox.dropped == {"full": 2, "expired": 0, "lost": 3}
        assert (outbox.depth, outbox.gap_count) == (7, 2)
        outbox.put([observed(12)])
        assert outbox.depth == 8
        assert outbox.last_seq > 14
    finally:
        outbox.close()


def test_an_outbox_of_format_1_is_migrated_in_place_and_later_rows_are_checked_whole(stored):
    path = stored(FORMATS[0])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        before = connection.execute("SELECT seq, age_us, crc, payload FROM rows").fetchall()
        next_seq, incarnation = connection.execute("SELECT next_seq, epoch FROM state").fetchone()
    with opened(path) as outbox:
        assert outbox.incarnation == incarnation
        outbox.put([observed(12)])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        rows = connection.execute("SELECT seq, age_us, crc, payload, acked_us FROM rows").fetchall()
        state = connection.execute("SELECT checked_from, given, waiting, in_gaps, destination, replay FROM state")
        assert state.fetchone() == (next_seq, 13, 8, 5, "", "")
    assert [row[:4] for row in rows[:-1]] == before
    assert all(is_intact(row, incarnation, next_seq) for row in rows)
    assert not any(is_intact(row, incarnation, checked_from=0) for row in rows[:-1])
    assert is_intact(rows[-1], incarnation, checked_from=0)


def test_a_migration_that_is_cut_off_leaves_the_file_as_it_was(stored, monkeypatch):
    path = stored(FORMATS[0])

    def cut_off(*_):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch, pytest.raises(OutboxError, match="Free space"):
        patch.setattr(tables, "save_state", cut_off)
        Outbox(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert delivered(path) == [batch.read_bytes() for batch in sorted(FORMATS[0].glob("batch_*.bin"))]


@pytest.mark.parametrize("damage", ["age_us = 1 << 60", "steady_wall_us = 1, steady_age_us = 0, steady_boot = 'other'"])
def test_ages_of_format_1_that_cannot_be_expire_nothing(stored, damage):
    path = stored(FORMATS[0])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE state SET {damage}")
        connection.commit()
    clocks = Clocks()
    with opened(path, retention_s=3600, read_clocks=clocks) as outbox:
        for _ in range(20):
            outbox.expire()
            clocks.run(60 * SECOND)
        assert outbox.depth == 7
        clocks.run(HOUR)
        outbox.expire()
        assert outbox.depth == 0


def test_every_format_is_stored():
    assert [folder.name for folder in FORMATS] == [f"v{version}" for version in range(1, SCHEMA_VERSION + 1)]
