"""models/gpu_session.py in miniature, on a CPU: what a call trains comes back, and a second call goes on."""

import sys

import cv2
import numpy as np
import pytest

from reid_edge.errors import OutputError, SettingsError
from reid_edge.features import write_features
from reid_edge.training.folder import RunFolder
from reid_edge.training.state import load_state
from tests.conftest import REPOSITORY
from tests.scripts import loaded

PLAN = """
recipe = "scratch"
[data]
dataset = "market1501"
validation = 3
partial = true
[model]
width = 0.1
size = "32x16"
[model.variant]
blocks = [1, 1, 1]
streams = [1, 2]
[batch]
size = 8
[run]
device = "cpu"
precision = "float32"
evaluate_every = 0
[jobs.teacher]
schedule = { epochs = 2, milestones = [1] }
[jobs.student]
after = "teacher"
schedule = { epochs = 3, milestones = [2] }
distill = { teachers = ["runs/teacher", "t.npy"], feature = 1.0 }
"""


@pytest.fixture(scope="module")
def script():
    with loaded("gpu_session") as module:
        yield module


@pytest.fixture
def ask(script, tmp_path, monkeypatch):
    def asked(*arguments):
        monkeypatch.setattr(sys, "argv", ["gpu_session.py", *map(str, arguments)])
        script.main()

    return asked


@pytest.fixture
def market(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "market" / "bounding_box_train"
    folder.mkdir(parents=True)
    for identity in range(1, 9):
        for camera in (1, 2):
            for frame in (1, 2):
                picture = rng.integers(0, 256, (64, 32, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / f"{identity:04}_c{camera}s1_{frame:06}_00.jpg"), picture)
    return tmp_path / "market"


@pytest.mark.slow
def test_a_second_call_goes_on_with_what_the_first_one_brought_back(script, ask, market, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PART_BYTES", 300_000)
    monkeypatch.setattr(script, "MOST_PARTS", 20)
    (tmp_path / "plan.toml").write_text(PLAN)
    names = [f"market1501/bounding_box_train/{path.name}" for path in (market / "bounding_box_train").iterdir()]
    write_features(tmp_path / "t.npy", names, np.random.default_rng(1).normal(size=(len(names), 3)), "")
    also = ["--also", tmp_path / "t.npy", tmp_path / "t.sources.txt"]
    ask("pack", "--root", market, "--pack", tmp_path / "pack", *also)
    call = ["train", "--plan", tmp_path / "plan.toml", "--no-measure", "--pack"]
    monkeypatch.setattr(script, "SPARE_MINUTES", 0.0)
    monkeypatch.setattr(script, "start", stopped_at_once(script.start))
    ask(*call, tmp_path / "pack", "--out", tmp_path / "first", "--minutes", "10")
    monkeypatch.undo()
    monkeypatch.setattr(script, "PART_BYTES", 300_000)
    monkeypatch.setattr(script, "MOST_PARTS", 20)
    assert len(script.parts(tmp_path / "first")) > 1
    assert (tmp_path / "first/teacher.log").is_file()

    ask("pack", "--root", market, "--pack", tmp_path / "next", "--results", tmp_path / "first", *also)
    ask(*call, tmp_path / "next", "--out", tmp_path / "second", "--minutes", "10")
    ask("unpack", "--results", tmp_path / "second", "--out", tmp_path / "here")
    ask("unpack", "--results", tmp_path / "first", "--out", tmp_path / "before")
    assert load_state(RunFolder(tmp_path / "before/runs/teacher").state).progress.step == 1
    for name, steps in (("teacher", 2 * 2), ("student", 3 * 2)):
        run = RunFolder(tmp_path / "here/runs" / name)
        progress = load_state(run.state).progress
        assert (progress.finished, progress.step) == (True, steps)
        assert run.last(0).is_file()
        assert set(load_state(run.state).stepper) == {"learners", "average"}


def stopped_at_once(start):
    """Start a job with no time, so that it stops after its first step."""
    return lambda job, work, _minutes: start(job, work, 0.0)


def test_a_pack_that_is_too_large_or_has_no_images_is_refused(ask, market, tmp_path):
    with pytest.raises(OutputError, match="more than 0; carry fewer runs"):
        ask("pack", "--root", market, "--pack", tmp_path / "pack", "--limit", "0")
    with pytest.raises(OutputError, match="has no images"):
        ask("pack", "--root", tmp_path, "--pack", tmp_path / "pack")


def test_files_that_the_plan_names_are_all_there_before_anything_is_packed(ask, market, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("t.npy", "t.sources.txt", "other/t.npy"):
        (tmp_path / name).write_bytes(b"")
    for also, message in (
        (["none.safetensors"], "there is no file"),
        (["t.npy"], "t.sources.txt beside it"),
        (["t.npy", "t.sources.txt", "other/t.npy"], "several files are called t.npy"),
    ):
        with pytest.raises(OutputError, match=message):
            ask("pack", "--root", market, "--pack", tmp_path / "pack", "--also", *(tmp_path / name for name in also))
    assert not (tmp_path / "pack").exists()


def test_what_comes_back_must_fit(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PART_BYTES", 10)
    (tmp_path / "work/runs").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="parts, and 4 may come back"):
        script.bring_back(tmp_path / "work/runs", tmp_path / "out")
    assert not script.parts(tmp_path / "out")


def test_a_job_that_waits_for_none_before_it_is_refused(script, tmp_path):
    (tmp_path / "plan.toml").write_text('[jobs.a]\nafter = "b"\n[jobs.b]\n')
    with pytest.raises(SettingsError, match=r"jobs\.a\.after: there is no job 'b' before it"):
        script.planned(tmp_path / "plan.toml")


def test_the_plan_of_the_repository_is_valid(script):
    from reid_edge.training.resolve import resolve

    jobs = script.planned(REPOSITORY / "models" / "gpu_plan.toml")
    assert [job.name for job in jobs] == ["x0_25", "x1_0", "x0_5"]
    settings = [resolve(None, job.tables, {})[0] for job in jobs]
    assert [one.model.width for one in settings] == [0.25, 1.0, 0.5]
    assert {one.distill.teachers[0].name for one in settings} == {"teacher.npy"}
