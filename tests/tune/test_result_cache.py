import random
import time

import pytest

from reid_edge.errors import OutputError, TuningError
from reid_edge.tune.measurement import Score
from reid_edge.tune.result_cache import ResultCache, work_folder
from tests.faults.damage import damage_file


def forbidden():
    raise AssertionError("measured again")


def test_what_was_measured_is_not_measured_again(tmp_path):
    first = ResultCache(tmp_path, "task")
    assert not first.resumed
    assert first.recall("stage", lambda: Score(1.5, 1.0, 2.0), Score) == Score(1.5, 1.0, 2.0)
    second = ResultCache(tmp_path, "task")
    assert second.resumed
    assert second.recall("stage", forbidden, Score) == Score(1.5, 1.0, 2.0)
    assert second.seconds > 0


def test_a_failed_measurement_is_not_remembered(tmp_path):
    cache = ResultCache(tmp_path, "task")
    with pytest.raises(AssertionError):
        cache.recall("stage", forbidden, Score)
    assert cache.recall("stage", lambda: Score(1.0), Score) == Score(1.0)


def test_the_work_of_another_task_goes(tmp_path):
    ResultCache(tmp_path, "one device").recall("stage", lambda: 1.0, float)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "old").write_text("")
    cache = ResultCache(tmp_path, "another device")
    assert not cache.resumed
    assert not (tmp_path / "bundles").exists()
    assert cache.recall("stage", lambda: 2.0, float) == 2.0


def test_a_torn_cache_is_begun_anew(tmp_path):
    ResultCache(tmp_path, "task").recall("stage", lambda: 1.0, float)
    path = tmp_path / "results.json"
    path.write_bytes(path.read_bytes()[:-4])
    assert not ResultCache(tmp_path, "task").resumed


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
    ResultCache(tmp_path, "task")
    (tmp_path / "calibration.npz").write_text("minutes of work")
    assert ResultCache(tmp_path, "task").resumed
    assert (tmp_path / "calibration.npz").exists()


def test_time_of_all_runs_counts_but_not_while_the_clock_is_stopped(tmp_path):
    first = ResultCache(tmp_path, "task")
    with first.stopped_clock():
        time.sleep(0.3)
    assert first.seconds < 0.2
    time.sleep(0.1)
    first.recall("stage", lambda: 1.0, float)
    assert ResultCache(tmp_path, "task").seconds >= 0.1


def test_a_damaged_cache_measures_again_instead_of_giving_another_figure(tmp_path):
    ResultCache(tmp_path, "a").recall("key", lambda: 1.25, float)
    path = tmp_path / "results.json"
    whole = path.read_bytes()
    for seed in range(60):
        damage = damage_file(path, random.Random(seed))
        assert ResultCache(tmp_path, "a").recall("key", lambda: 2.5, float) == 2.5, f"seed {seed}: {damage}"
        path.write_bytes(whole)
