import pytest

from reid_edge.errors import OutputError
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
