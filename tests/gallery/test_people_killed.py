"""``gallery identify`` that is killed at random moments: all of its changes are there, or none."""

import random
import signal
import sqlite3
import subprocess
import sys

import pytest

from reid_edge.gallery.store import open_store
from reid_edge.gallery.times import now_us
from tests.gallery.people_scenes import errors, filled
from tests.gallery.stores import HOUR

#: A process that says when it begins to change people, commits, and says so again.
PROGRAM = """
import sys
from reid_edge.gallery.people import identify
from reid_edge.gallery.store import open_store
from reid_edge.gallery.times import now_us

store = open_store(f"sqlite:{sys.argv[1]}")
change = store.change_people

def told(*arguments, **options):
    print("commits", flush=True)
    return change(*arguments, **options)

store.change_people = told
identify(store, now_us=now_us(), again=True)
print("done", flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_identify_that_is_killed_has_changed_everything_or_nothing(tmp_path, seed):
    path, luck = tmp_path / "gallery.db", random.Random(seed)
    store = open_store(f"sqlite:{path}")
    scene, rows = filled(store, at=now_us() - 2 * HOUR, visits=2)
    store.close()
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "commits\n"
        try:
            process.wait(luck.uniform(0, 0.03))  # a commit takes about so long
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        said = process.communicate()[0]
        store = open_store(f"sqlite:{path}")
        state, assignments = store.people_state(), store.assignments()
        events = store.person_events(limit=10_000)
        assert (state.revision > 0) == (len(assignments) == len(rows)) == (len(events) >= len(rows))
        assert assignments == [] or errors(store, scene) == (0, 0)
        assert "done" not in said or assignments
        assert all(one.person < state.next_person for one in assignments)
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.close()
