"""What waits in the outboxes of a state folder, moved to another gallery or discarded by hand."""

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest

from reid_edge.errors import OutboxError, OutboxInUseError, UsageError
from reid_edge.upstream.observation import Gap, Replay
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.outbox import transfer as module
from reid_edge.upstream.outbox.destination import Destination, beside
from reid_edge.upstream.outbox.transfer import discard, move, survey
from tests.upstream.observing import observed
from tests.upstream.outboxes import opened, tracks

NORTH, SOUTH, WEST = (str(Destination.of("cam", f"mqtts://{name}")) for name in ("north", "south", "west"))


def put(path, destination: str, *numbers: int) -> None:
    with opened(path, destination=destination) as outbox:
        outbox.put([observed(number, dim=8) for number in numbers])


@pytest.fixture
def path(ram_path):
    return ram_path / "outbox.db"


@pytest.fixture
def north(path):
    """Where 1200 rows for the gallery in the north wait, beside an outbox for that in the south with one."""
    put(path, NORTH, *range(1200))
    put(path, SOUTH, 5000)
    return beside(path, NORTH)


def yes(*_) -> bool:
    return True


def test_a_survey_tells_what_waits_for_whom(path, north):
    in_use, kept = survey(path.parent)
    assert (in_use.path, in_use.camera, in_use.gallery, in_use.rows) == (path, "cam", "mqtts://south", 1)
    assert (kept.path, kept.gallery, kept.rows, kept.gaps, kept.problem) == (north, "mqtts://north", 1200, 0, "")
    assert kept.payload_bytes > 1200 * 50
    assert 0 <= kept.oldest_s < 600


def test_a_survey_of_a_running_camera_says_so(path, north):
    with opened(path, destination=SOUTH):
        in_use, kept = survey(path.parent)
    assert "running" in in_use.problem
    assert kept.rows == 1200


def test_moved_rows_are_in_the_other_outbox_under_new_numbers_and_declared_in_the_old(path, north):
    for moved in (1200, 0):  # a second time there is nothing left, and the rows are where they were moved to
        assert move(north, "mqtts://South:8883", agreed=yes) == (moved, path)
    with opened(path, destination=SOUTH) as outbox:
        assert tracks(outbox) == [5000, *range(1200)]
        assert outbox.gap_count == 0
    with opened(north) as outbox:
        (gap,) = outbox.gaps()
        assert (outbox.depth, gap) == (0, Gap(1, 1200, 1200, "lost"))


def test_rows_of_the_outbox_in_use_are_moved_before_the_camera_is_started_anew(path):
    put(path, NORTH, 1, 2)
    assert move(path, "mqtts://south", agreed=yes) == (2, beside(path, SOUTH))
    with opened(path, destination=SOUTH) as outbox:
        assert tracks(outbox) == [1, 2]
    with opened(path, destination=NORTH) as outbox:
        assert (outbox.depth, outbox.missing) == (0, 2)


@pytest.mark.parametrize("seed", range(6))
def test_a_move_that_is_interrupted_anywhere_loses_no_row_and_moves_none_twice(path, north, monkeypatch, seed):
    rng = random.Random(seed)

    class Died(BaseException):
        pass

    def may_die(real):
        def run(*arguments):
            if rng.random() < 0.25:
                raise Died
            result = real(*arguments)
            if rng.random() < 0.25:
                raise Died
            return result

        return run

    for attempt in range(100):
        with monkeypatch.context() as patch:
            for name in ("take", "give_up"):
                patch.setattr(Outbox, name, may_die(getattr(Outbox, name)))
            try:
                move(north, "mqtts://south", agreed=yes)
                break
            except Died:
                pass
        if attempt % 3 == 0:  # a camera that runs in between delivers everything
            with opened(path, destination=SOUTH) as outbox:
                pass
    with opened(path, destination=SOUTH) as outbox:
        assert sorted(tracks(outbox)) == [*range(1200), 5000]
    with opened(north) as outbox:
        assert (outbox.depth, outbox.missing) == (0, 1200)


@pytest.mark.parametrize("between", ["another move", "a replay"])
def test_what_comes_between_an_interruption_and_the_next_try_moves_no_row_twice(path, north, monkeypatch, between):
    put(path, WEST, *range(2000, 2010))

    def move_interrupted(source):
        def dies(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Outbox, "give_up", dies)
            move(source, "mqtts://south", agreed=yes)

    with opened(path, destination=SOUTH):
        pass
    move_interrupted(north)
    if between == "another move":
        move_interrupted(beside(path, WEST))
    else:
        with opened(path, destination=SOUTH, keep_acknowledged_s=3600) as outbox:
            assert outbox.replay(Replay("again", 0)) == 0
    move(north, "mqtts://south", agreed=yes)
    move(beside(path, WEST), "mqtts://south", agreed=yes)
    with opened(path, destination=SOUTH, keep_acknowledged_s=3600) as outbox:
        assert sorted(tracks(outbox)) == [*range(1200), *range(2000, 2010), 5000]
        assert (outbox.replay(Replay("again", 0)) is None) == (between == "a replay")


def test_nothing_is_moved_or_discarded_while_the_camera_runs(path, north):
    with opened(path, destination=SOUTH):
        for outbox in (path, north):
            with pytest.raises(OutboxInUseError):
                move(outbox, "mqtts://elsewhere", agreed=yes)
            with pytest.raises(OutboxInUseError):
                discard(outbox, undeclared=False, agreed=yes)
    assert [report.rows for report in survey(path.parent)] == [1, 1200]


def test_without_a_yes_nothing_happens(path, north):
    assert move(north, "mqtts://south", agreed=lambda *_: False) == (0, north)
    assert discard(north, undeclared=True, agreed=lambda _: False) == 0
    assert [report.rows for report in survey(path.parent)] == [1, 1200]


def test_discarded_rows_are_a_gap_or_nothing_at_all(path, north):
    assert discard(north, undeclared=False, agreed=yes) == 1200
    assert [(report.rows, report.missing) for report in survey(path.parent)] == [(1, 0), (0, 1200)]
    assert discard(north, undeclared=True, agreed=yes) == 0
    assert [report.path for report in survey(path.parent)] == [path]
    assert not [file for file in path.parent.iterdir() if file.name.startswith(north.name) and file.suffix != ".lock"]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mqtts://north:8883", "already"),
        ("mqtts://south", "earlier release"),
        ("ftp://u:pw@x", "address.*got 'ftp://[*]"),
        ("mqtts://", "address.*got 'mqtts://'"),
        ("sqlite:", "address.*got 'sqlite:'"),
    ],
)
def test_what_cannot_be_moved_is_said(path, uri, message):
    put(path, "" if "earlier" in message else NORTH, 1)
    with pytest.raises(UsageError, match=message):
        move(path, uri, agreed=yes)


def test_an_outbox_that_is_not_there_is_an_error(path):
    with pytest.raises(UsageError, match="no outbox"):
        discard(path, undeclared=False, agreed=yes)
    assert not path.exists()


@pytest.mark.parametrize("name", ["notes.txt", "outbox.db-wal", "outbox.db.mark", "outbox.db.lock", "link", "", "."])
def test_what_is_no_outbox_by_its_name_is_left_alone(path, north, name):
    (path.parent / "notes.txt").write_text("mine")
    (path.parent / "outbox.db-wal").touch()
    (path.parent / "link").symlink_to(path)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    for source in (path.parent / name, Path(name)):
        with pytest.raises(UsageError, match="no outbox"):
            discard(source, undeclared=True, agreed=yes)
        with pytest.raises(UsageError, match="no outbox"):
            move(source, "mqtts://south", agreed=yes)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_full_disk_moves_nothing(path, north, monkeypatch):
    def full(*_):
        raise OutboxError("disk full, says the test")

    monkeypatch.setattr(module.Outbox, "take", full)
    with pytest.raises(OutboxError):
        move(north, "mqtts://south", agreed=yes)
    assert [report.rows for report in survey(path.parent)] == [1, 1200]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_what_root_looks_at_and_moves_stays_the_cameras_own():
    camera_user = 65534
    folder = Path(tempfile.mkdtemp())
    try:
        put(folder / "outbox.db", NORTH, 1, 2)
        for each in (folder, *folder.iterdir()):
            os.chown(each, camera_user, camera_user)
        (folder / "outbox.db.lock").unlink(missing_ok=True)
        assert [report.rows for report in survey(folder)] == [2]
        move(folder / "outbox.db", "mqtts://south", agreed=yes)
        assert {(each.stat().st_uid, each.stat().st_gid) for each in folder.iterdir()} == {(camera_user, camera_user)}
        assert os.geteuid() == 0
    finally:
        shutil.rmtree(folder)
