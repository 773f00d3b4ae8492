import pytest

from reid_edge.errors import OutputError, TuningError
from reid_edge.tune.journal import Journal, work_folder
from reid_edge.tune.objective import Score


def forbidden():
    raise AssertionError("measured again")


def test_what_was_measured_is_not_measured_again(tmp_path):
    first = Journal(tmp_path, "task")
    assert not first.resumed
    assert first.recall("heat", lambda: Score(1.5, 1.0, 2.0), Score) == Score(1.5, 1.0, 2.0)
    second = Journal(tmp_path, "task")
    assert second.resumed
    assert second.knows("heat")
    assert second.recall("heat", forbidden, Score) == Score(1.5, 1.0, 2.0)
    assert second.seconds > 0


def test_a_failed_measurement_is_not_remembered(tmp_path):
    journal = Journal(tmp_path, "task")
    with pytest.raises(AssertionError):
        journal.recall("heat", forbidden, Score)
    assert journal.recall("heat", lambda: Score(1.0), Score) == Score(1.0)


def test_the_work_of_another_task_goes(tmp_path):
    Journal(tmp_path, "one device").recall("heat", lambda: 1.0, float)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "old").write_text("")
    journal = Journal(tmp_path, "another device")
    assert not journal.resumed
    assert not (tmp_path / "bundles").exists()
    assert journal.recall("heat", lambda: 2.0, float) == 2.0


def test_a_torn_journal_is_begun_anew(tmp_path):
    Journal(tmp_path, "task").recall("heat", lambda: 1.0, float)
    path = tmp_path / "journal.json"
    path.write_bytes(path.read_bytes()[:-4])
    assert not Journal(tmp_path, "task").resumed


def test_the_work_folder_goes_after_success_stays_after_a_failure_and_has_one_owner(tmp_path):
    out = tmp_path / "bundle"
    with pytest.raises(KeyboardInterrupt), work_folder(out) as folder:
        raise KeyboardInterrupt
    assert folder.exists()
    with work_folder(out) as again:
        assert again == folder
        with pytest.raises(OutputError, match="another reid-edge tune works"), work_folder(out):
            pass
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot work in"), work_folder(tmp_path / "file" / "bundle"):
        pass


def test_a_folder_that_no_tuning_made_is_left_alone(tmp_path):
    folder = tmp_path / "bundle.tuning"
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    with pytest.raises(OutputError, match="no tuning made it"), work_folder(tmp_path / "bundle"):
        pass
    assert (folder / "precious.txt").read_text() == "mine"


def test_an_error_that_would_come_again_leaves_no_work_folder_and_a_full_disk_does(tmp_path):
    with pytest.raises(TuningError), work_folder(tmp_path / "bundle") as folder:
        raise TuningError("nothing is fast enough")
    assert not folder.exists()
    with pytest.raises(OutputError), work_folder(tmp_path / "bundle") as folder:
        raise OutputError("disk full")
    assert folder.exists()


def test_a_run_stopped_before_its_first_measurement_keeps_what_it_made(tmp_path):
    Journal(tmp_path, "task")
    (tmp_path / "calibration.npz").write_text("minutes of work")
    assert Journal(tmp_path, "task").resumed
    assert (tmp_path / "calibration.npz").exists()
