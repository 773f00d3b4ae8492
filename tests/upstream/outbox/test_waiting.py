"""Outboxes that begin without a disk: it is full, read-only or failing, and takes them later."""

import errno
import subprocess

import pytest

from reid_edge.errors import OutboxError, OutboxInUseError
from reid_edge.upstream.outbox import Outbox, folder
from tests.upstream.observing import observed
from tests.upstream.outboxes import opened, tracks


@pytest.fixture
def failing(monkeypatch):
    """Let nothing be locked, as on a disk that fails, until it is called with None."""
    lock, failure = folder.open_locked, [errno.ENOSPC]

    def open_locked(*arguments, **options):
        if failure[0] is not None:
            raise OSError(failure[0], "as the test wants")
        return lock(*arguments, **options)

    def fail(number):
        failure[0] = number

    monkeypatch.setattr(folder, "open_locked", open_locked)
    return fail


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_it_begins_without_a_file_and_all_but_putting_does_nothing(ram_path, failing, number):
    failing(number)
    with opened(ram_path / "outbox.db", wait_for_disk=True) as outbox:
        assert not outbox.is_open
        with pytest.raises(OutboxError, match="for opening"):
            outbox.put([observed(1)])
        outbox.expire()
        outbox.lose(1)
        found = (outbox.depth, outbox.payload_bytes, outbox.gap_count, outbox.pending(0, 9), outbox.fetch([1]))
        assert found == (0, 0, 0, [], [])
        assert (outbox.gaps(), outbox.oldest_age_s(), outbox.set_aside) == ([], None, [])
    assert list(ram_path.iterdir()) == []


@pytest.mark.parametrize("opened_by", ["put", "expire"])
def test_it_is_opened_once_the_disk_takes_it_and_goes_on_where_it_stopped(ram_path, failing, opened_by):
    path = ram_path / "outbox.db"
    failing(None)
    with opened(path) as outbox:
        outbox.put([observed(1)])
        incarnation, last_seq = outbox.incarnation, outbox.last_seq
    failing(errno.EROFS)
    with opened(path, wait_for_disk=True) as outbox:
        told = outbox.last_seq
        assert told > last_seq
        outbox.lose(2)
        failing(None)
        if opened_by == "expire":
            outbox.expire()
            assert outbox.is_open
        outbox.put([observed(2)])
        assert outbox.incarnation == incarnation
        assert tracks(outbox) == [1, 2]
        assert outbox.last_seq > told
        assert sum(gap.count for gap in outbox.gaps()) == 2


def test_without_asking_for_it_that_is_an_error(ram_path, failing):
    with pytest.raises(OutboxError, match="for opening"):
        Outbox(ram_path / "outbox.db")


def test_what_will_not_pass_by_itself_is_an_error_all_the_same(ram_path, failing):
    failing(errno.EACCES)
    with pytest.raises(OutboxError, match="for opening"):
        Outbox(ram_path / "outbox.db", wait_for_disk=True)
    failing(None)
    with opened(ram_path / "outbox.db"), pytest.raises(OutboxInUseError):
        Outbox(ram_path / "outbox.db", wait_for_disk=True)


def test_a_disk_that_is_really_full_is_waited_for(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting needs root")
    try:
        (disk / "other").write_bytes(b"x" * (2 << 20))
        with opened(disk / "outbox.db", wait_for_disk=True) as outbox:
            assert not outbox.is_open
            (disk / "other").unlink()
            outbox.put([observed(1)])
            assert tracks(outbox) == [1]
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
