"""The simulator of power cuts cuts what was not synced, and nothing else."""

import random
import sys

import pytest

from tests.faults.powercut import VARIANTS, states
from tests.faults.recording import Operation, need_strace, record

_WRITER = """
import os, sys
from tests.faults.recording import Marks
folder, marks = sys.argv[1], Marks(sys.argv[2])
def synced_folder():
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
with open(folder + "/whole", "wb") as file:
    file.write(b"a" * 3000)
    file.flush(); os.fsync(file.fileno())
synced_folder()
marks.say("whole")
with open(folder + "/whole", "r+b") as file:
    file.seek(1000); file.write(b"b" * 1000); file.flush()
with open(folder + "/new", "xb") as file:
    file.write(b"c"); file.flush(); os.fsync(file.fileno())
os.rename(folder + "/new", folder + "/renamed")
os.unlink(folder + "/whole")
synced_folder()
marks.say("renamed")
"""


@pytest.fixture(scope="module")
def operations(tmp_path_factory):
    need_strace()
    base = tmp_path_factory.mktemp("recorded")
    (base / "folder").mkdir()
    command = [sys.executable, "-c", _WRITER, base / "folder", base / "marks"]
    return record([command], folder=base / "folder", marks=base / "marks")


def _after(operations, seed, variants=VARIANTS):
    """(Last promise, files by name) of each state."""
    for state in states(operations, random.Random(seed), cuts=len(operations) * 2, variants=variants):
        promise = state.marks[-1] if state.marks else ""
        yield promise, {path.rsplit("/", 1)[1]: content for path, content in state.files.items()}


@pytest.mark.parametrize("seed", range(20))
def test_what_was_synced_is_there_and_what_was_not_is_any_mixture(operations, seed):
    for promise, files in _after(operations, seed):
        assert promise != "renamed" or files == {"renamed": b"c"}
        if promise == "whole" and "whole" in files:
            content = files["whole"]
            assert content[:1000] + content[2000:] == b"a" * 2000
            assert set(content) <= set(b"ab")
        if promise == "whole" and not {"whole", "renamed"} & files.keys():
            assert files in ({}, {"new": b"c"})  # its deletion came through first


def test_every_way_to_be_cut_short_is_met(operations):
    met = [files for seed in range(20) for _, files in _after(operations, seed)]
    changed = [files["whole"] for files in met if "whole" in files]
    assert b"a" * 3000 in changed
    assert b"a" * 1000 + b"b" * 1000 + b"a" * 1000 in changed
    assert b"a" * 1024 + b"b" * 512 + b"a" * 1464 in changed  # one sector of the write
    assert {} in met
    assert any("new" in files for files in met)
    assert any({"whole", "renamed"} <= files.keys() for files in met)


def test_of_a_file_that_was_replaced_nothing_is_mixed_into_the_new_one():
    done = [
        Operation("open", "/f/x", handle=1, creates=True),
        Operation("write", handle=1, data=b"old"),
        Operation("sync", handle=1),
        Operation("sync", "/f"),
        Operation("unlink", "/f/x"),
        Operation("open", "/f/x", handle=2, creates=True),
        Operation("write", handle=1, data=b"late"),
        Operation("write", handle=2, data=b"n"),
        Operation("mark"),
    ]
    met = {state.files.get("/f/x") for seed in range(50) for state in states(done, random.Random(seed), cuts=9)}
    new = {None, b"", b"\0", b"n"}
    assert new | {b"old", b"late"} <= met
    assert not any(b"n" in old for old in met - new)


@pytest.mark.parametrize("call", ["os.posix_fallocate(f, 0, 10)", "os.writev(f, [b'x'])", "mmap.mmap(f, 10)[0]"])
def test_a_call_that_is_not_modelled_is_not_overlooked(tmp_path, call):
    need_strace()
    (tmp_path / "folder").mkdir()
    script = f"import mmap, os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); os.write(f, bytes(10)); {call}"
    command = [sys.executable, "-c", script, tmp_path / "folder" / "file"]
    with pytest.raises(NotImplementedError, match="not modelled"):
        record([command], folder=tmp_path / "folder", marks=tmp_path / "marks")
