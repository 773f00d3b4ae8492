"""An outbox belongs to a camera and a gallery: rows for one never go to another by a change of settings."""

import pytest

from reid_edge.errors import OutboxInUseError
from reid_edge.upstream.observation import Ack, Gap
from reid_edge.upstream.outbox import Outbox
from reid_edge.upstream.outbox import outbox as module
from reid_edge.upstream.outbox.destination import Destination, beside, files_beside
from tests.upstream.observing import observed
from tests.upstream.outboxes import HOUR, Clocks, opened, tracks

NORTH = str(Destination.of("cam", "mqtts://north"))
SOUTH = str(Destination.of("cam", "mqtts://south"))


def test_rows_that_wait_for_another_gallery_are_kept_beside_and_taken_up_again(ram_path, caplog):
    path = ram_path / "outbox.db"
    with opened(path, destination=NORTH) as outbox:
        outbox.put([observed(1), observed(2)])
        north = outbox.incarnation
    with opened(path, destination=SOUTH) as outbox:
        assert (tracks(outbox), outbox.gap_count, outbox.destination) == ([], 0, SOUTH)
        assert outbox.incarnation != north
        outbox.put([observed(3)])
    assert "2 waiting observations of camera cam to mqtts://north" in caplog.text
    assert "reid-edge outbox list" in caplog.text
    with opened(path, destination=NORTH) as outbox:
        assert (tracks(outbox), outbox.incarnation) == ([1, 2], north)
        assert (outbox.set_aside, outbox.gap_count) == ([], 0)
    assert list(files_beside(path)) == [beside(path, SOUTH)]
    with opened(path, destination=SOUTH) as outbox:
        assert tracks(outbox) == [3]


def test_gaps_wait_for_their_gallery_too(ram_path):
    path = ram_path / "outbox.db"
    with opened(path, destination=NORTH, max_rows=1) as outbox:
        outbox.put([observed(1), observed(2)])
        outbox.acknowledge(Ack("cam", outbox.incarnation, (2,)))
    with opened(path, destination=SOUTH) as outbox:
        assert outbox.gaps() == []
    with opened(path, destination=NORTH) as outbox:
        assert outbox.gaps() == [Gap(1, 1, 1, "full")]


def test_another_cameras_rows_are_not_sent_under_this_ones_name(ram_path):
    path = ram_path / "outbox.db"
    with opened(path, destination=str(Destination.of("other", "mqtts://north"))) as outbox:
        outbox.put([observed(1)])
    with opened(path, destination=NORTH) as outbox:
        assert outbox.depth == 0


def test_an_empty_outbox_changes_hands(ram_path):
    path = ram_path / "outbox.db"
    with opened(path, destination=NORTH) as outbox:
        outbox.put([observed(1)])
        outbox.acknowledge(Ack("cam", outbox.incarnation, (1,)))
        incarnation = outbox.incarnation
    with opened(path, destination=SOUTH) as outbox:
        assert (outbox.incarnation, outbox.destination) == (incarnation, SOUTH)
    assert not list(files_beside(path))


def test_rows_of_an_earlier_release_are_for_the_gallery_of_the_first_start(ram_path):
    path = ram_path / "outbox.db"
    with opened(path) as outbox:
        outbox.put([observed(1)])
    with opened(path, destination=NORTH) as outbox:
        assert tracks(outbox) == [1]
    with opened(path, destination=SOUTH) as outbox:
        assert tracks(outbox) == []


@pytest.mark.parametrize("step", range(1, 7))
def test_an_interruption_while_files_are_exchanged_loses_nothing_and_declares_nothing(ram_path, monkeypatch, step):
    """The process dies before the n-th renaming or deletion."""
    path = ram_path / "outbox.db"
    for destination, track in ((SOUTH, 3), (NORTH, 1)):
        with opened(path, destination=destination) as outbox:
            outbox.put([observed(track)])
    left = [step]

    class Died(BaseException):
        pass

    def dying(self, *arguments, real, **options):
        left[0] -= 1
        if not left[0]:
            raise Died
        return real(self, *arguments, **options)

    for name in ("replace", "unlink"):
        real = getattr(type(path), name)
        monkeypatch.setattr(type(path), name, lambda *given, real=real, **options: dying(*given, real=real, **options))
    with pytest.raises(Died):
        Outbox(path, destination=SOUTH)
    monkeypatch.undo()
    with opened(path, destination=SOUTH) as outbox:
        assert (tracks(outbox), outbox.gap_count) == ([3], 0)
    with opened(path, destination=NORTH) as outbox:
        assert (tracks(outbox), outbox.gap_count) == ([1], 0)


@pytest.mark.parametrize("damage", ["zeroed", "removed"])
def test_what_is_lost_is_declared_to_the_gallery_that_would_have_had_it(ram_path, damage):
    path = ram_path / "outbox.db"
    with opened(path, destination=NORTH) as outbox:
        outbox.put([observed(1)])
    with opened(path, destination=SOUTH) as outbox:
        outbox.put([observed(2), observed(3)])
    if damage == "zeroed":
        path.write_bytes(bytes(path.stat().st_size))
    else:
        path.unlink()
    with opened(path, destination=NORTH) as outbox:
        assert (tracks(outbox), outbox.missing) == ([1], 0)
    with opened(path, destination=SOUTH) as outbox:
        assert (tracks(outbox), outbox.missing) == ([], 2)


def test_a_file_that_somebody_is_looking_at_is_not_taken_up(ram_path):
    path = ram_path / "outbox.db"
    with opened(path, destination=NORTH) as outbox:
        outbox.put([observed(1)])
    with opened(path, destination=SOUTH) as outbox:
        outbox.put([observed(2)])
    with opened(beside(path, NORTH)), pytest.raises(OutboxInUseError):
        Outbox(path, destination=NORTH, wait_for_disk=True)
    with opened(path, destination=NORTH) as outbox:
        assert tracks(outbox) == [1]


def test_what_is_kept_beside_grows_old_as_everything_else(ram_path, monkeypatch):
    path, clocks = ram_path / "outbox.db", Clocks()
    monkeypatch.setattr(module, "read_clocks", clocks)
    monkeypatch.setattr(Outbox.__init__, "__kwdefaults__", {**Outbox.__init__.__kwdefaults__, "read_clocks": clocks})
    with opened(path, destination=NORTH, retention_s=3600) as outbox:
        outbox.put([observed(1)])
    with opened(path, destination=SOUTH, retention_s=3600) as outbox:
        outbox.expire()
        clocks.run(2 * HOUR)
        outbox.expire()
        with opened(beside(path, NORTH)) as kept:
            assert kept.depth == 1  # not every minute
        outbox._look_beside_s -= module.BESIDE_S
        outbox.expire()
        with opened(beside(path, NORTH)) as kept:
            assert (kept.depth, kept.missing) == (0, 1)


def test_files_are_for_their_user_alone(ram_path):
    path = ram_path / "outbox.db"
    with opened(path, destination=NORTH) as outbox:
        outbox.put([observed(1)])
    with opened(path, destination=SOUTH):
        pass
    assert beside(path, NORTH).stat().st_mode & 0o077 == 0
