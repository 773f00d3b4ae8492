"""``gallery identify`` that is killed (SIGKILL) while it commits: all of its changes are there, or none.

Milvus has no transactions: there some of it may be there, and the next ``identify`` goes on from it.
"""

import contextlib
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

#: A process that is killed before it writes a piece of a change of people, or once all is written.
PROGRAM = """
import os, signal, sys
from reid_edge.gallery.people import identify
from reid_edge.gallery.store import open_store
from reid_edge.gallery.times import now_us

uri, left = sys.argv[1], [int(sys.argv[2])]
store = open_store(uri)
if uri.startswith("milvus"):
    from reid_edge.gallery.store import milvus_people
    milvus_people.ROWS = 70
    writer, name = store._people._meta._client, "put"
else:
    writer, name = store, "_many"
write, change = getattr(writer, name), store.change_people

def killed_at_last(*arguments):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return write(*arguments)

def change_people(*arguments, **options):
    setattr(writer, name, killed_at_last)
    change(*arguments, **options)

store.change_people = change_people
identify(store, now_us=now_us())
os.kill(os.getpid(), signal.SIGKILL)
"""
#: Tables that a change of people writes one after another: assignments, decisions twice, events.
TABLES = 4
#: Pieces that a change of 180 tracklets, each with an assignment and an event, has in Milvus: both ends, and 70 rows at
#: a time.
PIECES = 2 + -(-360 // 70)


def killed_after(uri, written):
    """Fill a gallery, and have people identified by a process that is killed after so many writes."""
    with contextlib.closing(open_store(uri)) as store:
        scene, rows = filled(store, at=now_us() - 2 * HOUR, visits=2)
    killed = subprocess.run([sys.executable, "-c", PROGRAM, uri, str(written)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    return scene, rows


@pytest.fixture(params=["sqlite", "postgresql"])
def uri(request, engines):
    engine = engines(request.param)
    uri = engine.uri()
    yield uri
    engine.give_back(uri)


@pytest.mark.parametrize("written", range(TABLES + 1))
def test_identify_that_is_killed_has_changed_everything_or_nothing(uri, written):
    scene, rows = killed_after(uri, written)
    with contextlib.closing(open_store(uri)) as store:
        all_of_it = written == TABLES
        assert len(store.assignments()) == len(rows) * all_of_it
        assert len(store.person_events(limit=10_000)) == len(rows) * all_of_it
        assert store.people_state().revision == 1 * all_of_it
        identify(store, now_us=now_us())  # goes on
        assert errors(store, scene) == (0, 0)
    if uri.startswith("sqlite:"):
        path = uri.removeprefix("sqlite:")
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("written", [1, 2, 4, PIECES - 1, PIECES])
def test_in_milvus_identify_goes_on_from_what_a_killed_one_has_written(engines, written):
    uri = engines("milvus").uri()
    scene, rows = killed_after(uri, written)
    with contextlib.closing(open_store(uri)) as store:
        assert (store.people_state().revision == 1) == (written == PIECES)
        there = len(store.assignments())
        assert there == min(35 * max(written - 1, 0), len(rows)) == len(store.person_events(limit=10_000))
        identify(store, now_us=now_us())  # goes on
        assert errors(store, scene) == (0, 0)
        events = store.person_events(limit=10_000)
        assert {one.tracklet for one in events} == {row.entry.tracklet for row in rows}
        assert len(events) == len({one.number for one in events}) == len(rows)
