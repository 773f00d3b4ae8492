import os
import stat
import subprocess
import sys
import time

import pytest

from reid_edge.errors import OutboxInUseError, OutputError
from reid_edge.files import open_locked, partial_of, remove_abandoned, write_whole


def test_a_lock_is_held_until_it_is_closed(tmp_path):
    path = tmp_path / "lock"
    with open_locked(path, busy="in use"), pytest.raises(OutputError, match="in use"):
        open_locked(path, busy="in use")
    open_locked(path, busy="in use").close()


def test_the_caller_says_which_error_a_held_lock_is(tmp_path):
    with open_locked(tmp_path / "lock", busy=""), pytest.raises(OutboxInUseError, match="close the other"):
        open_locked(tmp_path / "lock", busy="close the other", error=OutboxInUseError)


def test_a_private_lock_file_is_for_this_user_alone(tmp_path):
    with open_locked(tmp_path / "lock", busy="", private=True):
        assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600


def test_a_symbolic_link_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        open_locked(tmp_path / "lock", busy="")
    assert not (tmp_path / "elsewhere").exists()


def partial_of_a_dead_process(path):
    """Return the unfinished file of a process that was killed while it wrote."""
    code = "import os, sys, pathlib; from reid_edge.files import partial_of; p = partial_of(pathlib.Path(sys.argv[1]))"
    code += "; p.write_bytes(b'half'); p.with_name(p.name + '-wal').write_bytes(b'half'); print(p); sys.stdout.flush()"
    killed = subprocess.run([sys.executable, "-c", f"{code}; os.kill(os.getpid(), 9)", path], stdout=subprocess.PIPE)
    return path.with_name(os.path.basename(killed.stdout.decode().strip()))  # noqa: PTH119


def test_what_a_killed_process_left_is_removed_by_the_next_that_writes_there(tmp_path):
    left = partial_of_a_dead_process(tmp_path / "gallery.db")
    assert left.exists()
    write_whole(tmp_path / "other", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other"]


def test_what_is_being_written_and_other_peoples_files_stay(tmp_path):
    others = [partial_of(tmp_path / "x"), tmp_path / ".reid-edge.999999999-1-1.partial", tmp_path / "y.partial"]
    for path in others:
        path.write_bytes(b"half")
    remove_abandoned(tmp_path)
    assert all(path.exists() for path in others)


def test_what_another_container_left_is_removed_after_a_day(tmp_path):
    left = tmp_path / ".reid-edge.1-1-1.partial"
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 25 * 3600,) * 2)
    remove_abandoned(tmp_path)
    assert not left.exists()
