import stat

import pytest

from reid_edge.errors import OutboxInUseError, OutputError
from reid_edge.files import open_locked


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
