"""The journal of erasures on a disk that has no room."""

import os
import resource

import pytest

from reid_edge.errors import OutputError
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.store import sqlite_beside
from reid_edge.gallery.store.erasures import new_erasure
from reid_edge.gallery.store.sqlite_beside import ErasureJournal, Mark, MarkFile
from tests.gallery.stores import NOON

FIRST, SECOND = (new_erasure(Selection(cameras=(camera,)), now_us=NOON) for camera in ("door", "yard"))


def test_a_journal_of_which_the_disk_takes_half_a_line_is_an_error_and_goes_on_later(tmp_path):
    journal = ErasureJournal(tmp_path / "journal")
    journal.append([FIRST])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "journal").stat().st_size + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.append([SECOND])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert journal.read() == [FIRST]
    journal.append([SECOND])
    assert journal.read() == [FIRST, SECOND]


def test_a_journal_that_cannot_be_shortened_stays_as_it_is(tmp_path, monkeypatch):
    def full(*_given, **_options):
        raise OutputError("no space")

    journal = ErasureJournal(tmp_path / "journal")
    journal.append([FIRST, SECOND])
    monkeypatch.setattr(sqlite_beside, "write_whole", full)
    journal.keep(lambda erasure: erasure == SECOND)
    assert journal.read() == [FIRST, SECOND]
    monkeypatch.undo()
    journal.keep(lambda erasure: erasure == SECOND)
    assert journal.read() == [SECOND]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_a_journal_and_a_mark_that_root_makes_are_the_gallerys_owners(tmp_path):
    gallery = tmp_path / "gallery.db"
    gallery.touch()
    os.chown(gallery, 65534, 65534)
    ErasureJournal(sqlite_beside.journal_path(gallery)).append([FIRST])
    MarkFile(sqlite_beside.mark_path(gallery)).write(Mark("abc", 1))
    assert {each.stat().st_uid for each in tmp_path.iterdir()} == {65534}
