"""models/gpu_session.py in miniature, on a CPU: what a call trains comes back, and a second call goes on."""

import dataclasses
import subprocess
import sys
import time
import zipfile

import cv2
import numpy as np
import pytest
import torch

from reid_edge.errors import OutputError, SettingsError, TrainingError
from reid_edge.features import write_features
from reid_edge.training.folder import RunFolder
from reid_edge.training.resolve import resolve, to_tables, to_toml
from reid_edge.training.state import Progress, SavedState, load_state, save_state
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

    plan = ["--plan", tmp_path / "plan.toml"]
    ask("pack", "--root", market, "--pack", tmp_path / "next", "--results", tmp_path / "first", *plan, *also)
    assert (tmp_path / "next/jobs.txt").read_text().split() == ["teacher", "student"]
    ask(*call, tmp_path / "next", "--out", tmp_path / "second", "--minutes", "10")
    assert "student: exit code 0" in (tmp_path / "second/summary.txt").read_text()
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
    with pytest.raises(OutputError, match="more than 0, without any run"):
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


def write_run(folder, *, step=4, finished=False, size=1000, rate=0.1, checkpoints=("best", "last")):
    """A run's folder, whose state and checkpoints have `size` random bytes that cannot be compressed."""
    settings = resolve(None, {"schedule": {"epochs": 8, "milestones": [4]}}, {"optimiser.learning_rate": rate})[0]
    folder.mkdir(parents=True)
    run, noise = RunFolder(folder), torch.randint(0, 256, (size,), dtype=torch.uint8)
    run.config.write_text(to_toml(settings))
    run.metrics.write_text(f"epoch,step\n{step},{step}\n")
    for name in checkpoints:
        (folder / f"{name}.safetensors").write_bytes(noise.numpy().tobytes())
    state = SavedState(
        settings=to_tables(settings), data="", torch_version="", mean=(0, 0, 0), std=(1, 1, 1),
        progress=Progress(step=step, finished=finished), stepper={"learners": {"a": noise}, "average": {}},
    )  # fmt: skip
    save_state(run.state, state)
    return folder


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_best_checkpoints_come_back_before_states_and_what_does_not_fit_is_named(script, ask, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PART_BYTES", 16_000)
    write_run(tmp_path / "work/runs/a", size=20_000)
    write_run(tmp_path / "work/runs/b", size=20_000, step=8, finished=True)
    (tmp_path / "out").mkdir()
    lines = script.bring_back(tmp_path / "work/runs", tmp_path / "out")
    assert [line for line in lines if "left out" in line] == [
        "left out, since it does not fit: runs/b/state.pt",
        "left out, since it does not fit: runs/b/last.safetensors",
        "left out, since it does not fit: runs/a/best.safetensors",
    ]
    ask("unpack", "--results", tmp_path / "out", "--out", tmp_path / "here")
    few = {"config.toml", "metrics.csv"}
    assert names(tmp_path / "here/runs/a") == few | {"state.pt"}  # from which it goes on
    assert names(tmp_path / "here/runs/b") == few | {"best.safetensors"}
    assert not script.finished(tmp_path / "here/runs/a") and script.finished(tmp_path / "here/runs/b")
    assert len(script.parts(tmp_path / "out")) == 3


def test_nothing_may_come_back_but_logs(script, ask, tmp_path):
    (tmp_path / "work/runs/a").mkdir(parents=True)
    (tmp_path / "work/a.log").write_text("no such network")
    (tmp_path / "out").mkdir()
    script.bring_back(tmp_path / "work/runs", tmp_path / "out")
    assert (tmp_path / "out/a.log").is_file()
    ask("unpack", "--results", tmp_path / "out", "--out", tmp_path / "here")
    assert not (tmp_path / "here/runs").exists()


def test_only_states_that_fit_are_packed_and_only_their_jobs_go_on(script, ask, market, tmp_path, capsys):
    plan = tmp_path / "plan.toml"
    plan.write_text("[jobs.a]\n[jobs.b]\n[jobs.c]\n[jobs.d]\n[jobs.e]\nafter = 'd'\n")
    runs = tmp_path / "work/runs"
    write_run(runs / "a")
    write_run(runs / "b", size=1_020_000)
    write_run(runs / "c")
    write_run(runs / "d", finished=True, step=8)
    (tmp_path / "out").mkdir()
    script.bring_back(runs, tmp_path / "out")
    call = ["--root", market, "--pack", tmp_path / "pack", "--results", tmp_path / "out", "--plan", plan]
    ask("pack", *call, "--limit", "1")
    assert (tmp_path / "pack/jobs.txt").read_text().split() == ["a", "c", "e"]
    assert "b does not fit" in capsys.readouterr().out
    script.joined(tmp_path / "pack", tmp_path / "there")
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"a", "c", "d"}
    assert not list((tmp_path / "there").rglob("*.safetensors"))
    ask("pack", *call, "--jobs", "c")
    assert (tmp_path / "pack/jobs.txt").read_text().split() == ["c"]
    with pytest.raises(SettingsError, match="has no job z"):
        ask("pack", *call, "--jobs", "z")
    with pytest.raises(OutputError, match="no job is left"):
        ask("pack", *call, "--jobs", "d")


def test_the_optimisers_averages_are_packed_as_bfloat16(script, tmp_path):
    state = load_state(write_run(tmp_path / "a") / "state.pt")
    optimiser = {0: {"step": torch.tensor(70_001.0), "exp_avg": torch.tensor([1e-30, 2.0])}}
    save_state(tmp_path / "a/state.pt", dataclasses.replace(state, stepper=state.stepper | {"optimiser": optimiser}))
    script.lighten(tmp_path / "a")
    found = load_state(tmp_path / "a/state.pt").stepper["optimiser"][0]
    assert (found["step"].item(), found["exp_avg"].dtype) == (70_001.0, torch.bfloat16)
    torch.testing.assert_close(found["exp_avg"].float(), optimiser[0]["exp_avg"], rtol=1e-2, atol=0)


def test_later_runs_replace_earlier_ones_and_earlier_ones_do_not_come_back(script, ask, tmp_path):
    for name, options in {
        "first": {"step": 2}, "second": {"step": 5, "checkpoints": ()}, "other": {"step": 1, "rate": 0.5},
    }.items():  # fmt: skip
        write_run(tmp_path / name / "work/runs/a", **options)
        (tmp_path / name / "out").mkdir()
        script.bring_back(tmp_path / name / "work/runs", tmp_path / name / "out")
    here = tmp_path / "here/runs/a"

    def unpacked(*which):
        ask("unpack", "--results", *(tmp_path / name / "out" for name in which), "--out", tmp_path / "here")
        return load_state(here / "state.pt").progress.step

    assert unpacked("first") == 2
    assert unpacked("second") == 5
    assert (here / "best.safetensors").is_file()  # which only the first call had
    assert unpacked("first") == 5
    assert unpacked("first", "second") == 5
    assert unpacked("other") == 1


def test_tables_of_features_are_packed_as_float16(script, tmp_path):
    rows = np.random.default_rng(0).normal(size=(5, 3)) * 1e9
    rows[2] = 0
    np.save(tmp_path / "t.npy", rows)
    (tmp_path / "packed.npy").write_bytes(script.carried(tmp_path / "t.npy"))
    found = np.load(tmp_path / "packed.npy")
    assert found.dtype == np.float16
    largest = np.abs(rows).max(axis=1, keepdims=True)
    np.testing.assert_allclose(found.astype(np.float64) * largest, rows, rtol=1e-3, atol=1e6)
    np.save(tmp_path / "t.npy", rows[0])
    with pytest.raises(OutputError, match="of N×D features"):
        script.carried(tmp_path / "t.npy")


def test_a_measurement_that_takes_too_long_keeps_what_it_has_printed(script, tmp_path, monkeypatch):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/training.py").write_text("import time\nprint('| pixels | 1.0 | |')\ntime.sleep(60)\n")
    monkeypatch.setattr(script, "HERE", tmp_path / "models")
    assert "no CUDA graph was measured" in script.measure(tmp_path / "step.txt", 2.0)
    assert "| pixels |" in (tmp_path / "step.txt").read_text()
    assert "not done after 2 s" in (tmp_path / "step.txt").read_text()


def test_the_recorded_step_is_compared_with_the_target(script):
    table = "| whole step | 14.20 | 4,507 |\n| recorded | {} | 1 |\n"
    assert script.against_target(table.format("4.31")) == "step: 4.31 ms as a CUDA graph; the target of 5 ms is met"
    assert script.against_target(table.format("5.31")).endswith("is missed")


SAVES = "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(143)); print('on', flush=True); time.sleep(60)"
DEAF = "import signal,time; signal.signal(15, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"


@pytest.fixture
def jobs_that_run(script, market, tmp_path, monkeypatch):
    """Let `train` start programs of these tests in place of runs, once a pack has been made."""

    def prepared(**programs):
        (tmp_path / "plan.toml").write_text("".join(f"[jobs.{name}]\n" for name in programs))

        def start(job, work, _minutes):
            write_run(work / "runs" / job.name)
            process = subprocess.Popen([sys.executable, "-c", programs[job.name]], stdout=subprocess.PIPE)
            if "on" in programs[job.name]:
                process.stdout.readline()
            return process

        monkeypatch.setattr(script, "start", start)

    return prepared


def test_jobs_that_fail_or_do_not_stop_make_the_call_fail_and_all_comes_back(
    script, ask, market, jobs_that_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(script, "SPARE_MINUTES", 1 / 60)
    jobs_that_run(good=SAVES, crashed="import sys; sys.exit(7)", deaf=DEAF)
    ask("pack", "--root", market, "--pack", tmp_path / "pack")
    begun = time.monotonic()
    call = ["--pack", tmp_path / "pack", "--out", tmp_path / "out", "--plan", tmp_path / "plan.toml", "--no-measure"]
    with pytest.raises(TrainingError, match=r"have failed.*crashed \(7\), deaf \(-9\)") as failed:
        ask("train", *call, "--minutes", "0.06")
    assert "good" not in str(failed.value)
    assert time.monotonic() - begun < 40
    ask("unpack", "--results", tmp_path / "out", "--out", tmp_path / "here")
    assert {path.name for path in (tmp_path / "here/runs").iterdir()} == {"good", "crashed", "deaf"}
    assert "good: exit code 143" in (tmp_path / "out/summary.txt").read_text()


def test_wheels_are_carried_and_installed_for_the_jobs(script, ask, market, tmp_path, monkeypatch):
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels/lacked-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("lacked.py", "VALUE = 5\n")
        wheel.writestr("lacked-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: lacked\nVersion: 1.0\n")
        wheel.writestr("lacked-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("lacked-1.0.dist-info/RECORD", "")
    ask("pack", "--root", market, "--pack", tmp_path / "pack", "--wheels", tmp_path / "wheels")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr(sys, "path", [*sys.path])
    script.install_wheels(tmp_path / "pack", tmp_path / "packages")
    command = [sys.executable, "-c", "import lacked, reid_edge; print(lacked.VALUE)"]
    done = subprocess.run(command, env=script._environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "5", done.stderr
    with pytest.raises(OutputError, match=r"has no \.whl file"):
        ask("pack", "--root", market, "--pack", tmp_path / "pack", "--wheels", tmp_path / "pack")


def test_a_job_that_waits_for_none_before_it_is_refused(script, tmp_path):
    (tmp_path / "plan.toml").write_text('[jobs.a]\nafter = "b"\n[jobs.b]\n')
    with pytest.raises(SettingsError, match=r"jobs\.a\.after: there is no job 'b' before it"):
        script.planned(tmp_path / "plan.toml")


def test_the_plan_of_the_repository_is_valid(script):
    jobs = script.planned(REPOSITORY / "models" / "gpu_plan.toml")
    assert [job.name for job in jobs] == ["x0_25", "x1_0", "x0_5"]
    settings = [resolve(None, job.tables, {})[0] for job in jobs]
    assert [one.model.width for one in settings] == [0.25, 1.0, 0.5]
    assert {one.distill.teachers[0].name for one in settings} == {"teacher.npy"}
