"""``gallery identify`` that is killed (SIGKILL) while it commits: all of its changes are there, or none."""

import signal
import sqlite3
import subprocess
import sys

import pytest

from reid_edge.gallery.people import identify
from reid_edge.gallery.store import open_store
from reid_edge.gallery.times import now_us
from tests.gallery.people_scenes import errors, filled
from tests.gallery.stores import HOUR

#: A process that is killed before it writes a table of people, or once all is committed.
PROGRAM = """
import os, signal, sys
from reid_edge.gallery.people import identify
from reid_edge.gallery.store import open_store
from reid_edge.gallery.times import now_us

store = open_store(f"sqlite:{sys.argv[1]}")
left, write = [int(sys.argv[2])], store._many

def killed_at_last(db, *arguments):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return write(db, *arguments)

store._many = killed_at_last
identify(store, now_us=now_us())
os.kill(os.getpid(), signal.SIGKILL)
"""
#: Tables that a change of people writes one after another: assignments, decisions twice, events.
TABLES = 4


@pytest.mark.parametrize("written", range(TABLES + 1))
def test_identify_that_is_killed_has_changed_everything_or_nothing(tmp_path, written):
    path = tmp_path / "gallery.db"
    store = open_store(f"sqlite:{path}")
    scene, rows = filled(store, at=now_us() - 2 * HOUR, visits=2)
    store.close()
    killed = subprocess.run([sys.executable, "-c", PROGRAM, path, str(written)], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    store = open_store(f"sqlite:{path}")
    all_of_it = written == TABLES
    assert len(store.assignments()) == len(rows) * all_of_it
    assert len(store.person_events(limit=10_000)) == len(rows) * all_of_it
    assert store.people_state().revision == 1 * all_of_it
    identify(store, now_us=now_us())  # goes on
    assert errors(store, scene) == (0, 0)
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()
