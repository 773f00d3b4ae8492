import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from reid_edge.errors import (
    CheckpointError,
    CheckpointMismatchError,
    CollapseError,
    DatasetError,
    DivergedError,
    OutputError,
    ResumeError,
    SettingsError,
    StoppedError,
    TrainingError,
)
from reid_edge.osnet.checkpoint import load_checkpoint
from reid_edge.settings import read_settings
from reid_edge.training import folder as folder_module
from reid_edge.training.folder import RunFolder, claimed
from reid_edge.training.resolve import resolve
from reid_edge.training.run import _sampler, train
from reid_edge.training.state import load_state
from reid_edge.training.step import Stepper
from reid_edge.training.task import load_training_data
from tests.training.people import values, write_people

STEPS = 4  # of an epoch: 6 identities × 6 images in batches of 8


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def whole(people, tmp_path_factory):
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, train(configured(people), out)


def configured(people, recipe="scratch", **more):
    return resolve(recipe, {}, values(people, **more))[0]


def rows(out):
    return list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))


def stopping(step, number=signal.SIGTERM, *, times=1):
    """A progress bar that sends this process a signal after a step."""
    done = 0

    def advance(count=1):
        nonlocal done
        done += count
        if done == step and count:
            for _ in range(times):
                signal.raise_signal(number)  # to this thread, whatever others this process has by now

    return lambda text, _steps: advance if text == "training" else lambda _count=1: None


def test_a_run_leaves_what_is_promised(whole):
    out, result = whole
    names = {"config.toml", "metrics.csv", "curves.png", "state.pt", "log.txt", "tensorboard"}
    assert {path.name for path in out.iterdir()} == names | {"best.safetensors", "last.safetensors"}
    assert result.best == (out / "best.safetensors",)
    assert result.seconds > 0
    assert cv2.imread(str(out / "curves.png")).shape[1] == 1200
    assert list((out / "tensorboard").iterdir())


def test_there_is_a_row_an_epoch_and_the_best_is_kept(whole):
    out, result = whole
    told = rows(out)
    assert [(row["epoch"], row["step"]) for row in told] == [("1", "4"), ("2", "8"), ("3", "12")]
    assert all(math.isfinite(float(value)) for row in told for value in row.values())
    best = max(told, key=lambda row: float(row["mAP"]))
    assert result.metrics == {"mAP": float(best["mAP"]), "R1": float(best["R1"])}
    assert load_checkpoint(out / "best.safetensors").info.metrics == {
        "folder-heldout/mAP": float(best["mAP"]),
        "folder-heldout/R1": float(best["R1"]),
    }


def test_the_checkpoint_says_how_it_was_made_and_nothing_of_this_machine(whole, people):
    out, _ = whole
    info = load_checkpoint(out / "best.safetensors").info
    assert (info.width, info.size, info.dataset, info.recipe) == (0.1, (24, 16), "folder", "scratch")
    assert info.training["optimiser"]["learning_rate"] == 0.01
    assert str(people.parent) not in json.dumps(info.training)
    load_checkpoint(out / "last.safetensors").network()


@pytest.mark.slow
def test_the_same_again_is_the_same_to_the_last_bit(whole, people, tmp_path):
    out, _ = whole
    config = resolve(None, read_settings(out / "config.toml", guide=""), {})[0]
    torch.manual_seed(1234)  # nothing depends on the process's own randomness
    train(config, tmp_path / "again")
    same(out, tmp_path / "again")


def test_another_seed_is_another_run(whole, people, tmp_path):
    out, _ = whole
    train(configured(people, run__seed=2, schedule__epochs=1), tmp_path / "other")
    assert rows(tmp_path / "other")[0]["loss"] != rows(out)[0]["loss"]


def same(one, other):
    assert (one / "metrics.csv").read_text() == (other / "metrics.csv").read_text()
    for name in ("best", "last"):
        assert (one / f"{name}.safetensors").read_bytes() == (other / f"{name}.safetensors").read_bytes()
    first, second = (load_state(path / "state.pt") for path in (one, other))
    assert equal(first.stepper, second.stepper)
    assert {**vars(first.progress), "seconds": 0} == {**vars(second.progress), "seconds": 0}


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.slow
@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (6, signal.SIGINT), (8, signal.SIGTERM)])
def test_stopped_and_resumed_it_is_the_same_to_the_last_bit(whole, people, tmp_path, step, number):
    out = tmp_path / "run"
    with pytest.raises(StoppedError, match=f"after step {step} .*reid-edge train --resume {out}") as stopped:
        train(configured(people), out, notify=stopping(step, number))
    assert stopped.value.exit_code == 128 + number
    assert load_state(out / "state.pt").progress.step == step
    result = train(configured(people), out, resume=True)
    same(whole[0], out)
    assert result.metrics == whole[1].metrics
    assert not list(out.glob(".*"))
    assert not (out / "lock").exists()


@pytest.mark.slow
def test_resumed_with_averaged_weights_adam_and_triplets_it_is_the_same_too(people, tmp_path):
    more = {
        "run__ema": 0.9, "loss__triplet": 0.5, "batch__instances": 2, "optimiser__name": "amsgrad",
        "optimiser__learning_rate": 0.001, "schedule__epochs": 1, "augment__erase": 0.5, "loss__mutual": 1.0,
    }  # fmt: skip
    config = configured(people, **more)
    train(config, tmp_path / "whole")
    with pytest.raises(StoppedError):
        train(config, tmp_path / "parts", notify=stopping(3))
    train(config, tmp_path / "parts", resume=True)
    assert (tmp_path / "whole/metrics.csv").read_text() == (tmp_path / "parts/metrics.csv").read_text()
    for name in ("best-1", "best-2", "last-1", "last-2"):
        one, other = (tmp_path / part / f"{name}.safetensors" for part in ("whole", "parts"))
        assert one.read_bytes() == other.read_bytes()
    names = [f"{figure}-{which}" for which in ("1", "2", "both") for figure in ("mAP", "R1")]
    assert list(rows(tmp_path / "whole")[-1])[-6:] == names


@pytest.mark.slow
def test_a_state_saved_between_two_looks_changes_nothing(whole, people, tmp_path):
    train(configured(people, run__save_minutes=1e-9), tmp_path / "run")
    assert (tmp_path / "run/metrics.csv").read_text() == (whole[0] / "metrics.csv").read_text()


def test_a_second_signal_ends_at_once_and_the_state_before_stays(people, tmp_path):
    with pytest.raises(SystemExit) as ended:
        train(configured(people), tmp_path / "run", notify=stopping(2, times=2))
    assert ended.value.code == 143
    assert load_state(tmp_path / "run/state.pt").progress.step == 0
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_finished_run_has_nothing_left_to_do(whole, people):
    out, result = whole
    before = (out / "state.pt").stat().st_mtime_ns
    again = train(configured(people), out, resume=True)
    assert (again.best, again.metrics) == (result.best, result.metrics)
    assert (out / "state.pt").stat().st_mtime_ns == before


def test_another_configuration_is_refused_key_by_key(whole, people):
    with pytest.raises(ResumeError, match=r"(?s)optimiser\.momentum: was 0\.9, is 0\.5.*batch\.size: was 8, is 4"):
        train(configured(people, batch__size=4, optimiser__momentum=0.5), whole[0], resume=True)


@pytest.mark.slow
def test_what_does_not_change_the_result_may_change(people, tmp_path):
    with pytest.raises(StoppedError):
        train(configured(people), tmp_path / "run", notify=stopping(2))
    train(configured(people, run__evaluate_every=2, data__memory_gb=1e-9), tmp_path / "run", resume=True)
    assert [bool(row["mAP"]) for row in rows(tmp_path / "run")] == [False, True, True]


def test_other_data_are_refused(people, tmp_path):
    copy = write_people(tmp_path / "people")
    with pytest.raises(StoppedError):
        train(configured(copy), tmp_path / "run", notify=stopping(2))
    next((copy / "train/001").glob("*.png")).rename(copy / "train/001/moved_c9.png")
    with pytest.raises(ResumeError, match="not those that the run was started with"):
        train(configured(copy), tmp_path / "run", resume=True)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 torn", b"\x80\x02."])
def test_a_state_that_cannot_be_read_is_refused(people, tmp_path, content):
    out = tmp_path / "run"
    with pytest.raises(StoppedError):
        train(configured(people), out, notify=stopping(1))
    (out / "state.pt").unlink()
    if content is not None:
        (out / "state.pt").write_bytes(content)
    with pytest.raises(ResumeError, match=r"state\.pt"):
        train(configured(people), out, resume=True)


def test_a_state_whose_bytes_have_changed_is_refused(people, tmp_path):
    state = tmp_path / "run/state.pt"
    with pytest.raises(StoppedError):
        train(configured(people), tmp_path / "run", notify=stopping(1))
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 255
    state.write_bytes(content)
    with pytest.raises(ResumeError, match="is damaged"):
        train(configured(people), tmp_path / "run", resume=True)


@pytest.mark.parametrize(("key", "value"), [("config", 5), ("stepper", {})])
def test_a_state_with_something_else_in_it_is_refused(people, tmp_path, key, value):
    state = tmp_path / "run/state.pt"
    with pytest.raises(StoppedError):
        train(configured(people), tmp_path / "run", notify=stopping(1))
    torch.save(torch.load(state, weights_only=True) | {key: value}, state)
    with pytest.raises(ResumeError):
        train(configured(people), tmp_path / "run", resume=True)


def test_a_state_from_before_a_setting_existed_can_be_resumed(people, tmp_path):
    state = tmp_path / "run/state.pt"
    with pytest.raises(StoppedError):
        train(configured(people), tmp_path / "run", notify=stopping(1))
    stored = torch.load(state, weights_only=True)
    del stored["config"]["model"]["variant"]["ain"]
    torch.save(stored, state)
    assert train(configured(people), tmp_path / "run", resume=True).metrics


def test_a_state_that_holds_code_is_refused(people, tmp_path):
    with pytest.raises(StoppedError):
        train(configured(people), tmp_path / "run", notify=stopping(1))
    torch.save({"format": 1, "config": Path("/")}, tmp_path / "run/state.pt")
    with pytest.raises(ResumeError, match="holds more than a state does"):
        train(configured(people), tmp_path / "run", resume=True)


def test_a_state_keeps_the_keys_that_runs_of_older_releases_have(whole):
    stored = torch.load(whole[0] / "state.pt", weights_only=True)
    assert stored.keys() == {
        "format",
        "config",
        "data",
        "torch_version",
        "mean",
        "std",
        "progress",
        "stepper",
        "teachers",
    }
    assert stored["stepper"].keys() == {"learners", "optimiser", "average", "sums", "counted"}
    assert {".".join(name.split(".")[:2]) for name in stored["stepper"]["learners"]} == {"0.network", "0.head"}
    progress = {"step", "seconds", "sums", "summed_steps", "best", "figures", "rows", "finished"}
    assert stored["progress"].keys() == progress


def test_a_file_cannot_be_resumed_and_says_what_can(people, tmp_path):
    (tmp_path / "best.safetensors").write_bytes(b"weights")
    with pytest.raises(ResumeError, match="--resume takes the folder of a run"):
        train(configured(people), tmp_path / "best.safetensors", resume=True)


def test_a_state_that_git_lfs_has_not_fetched_is_named(people, tmp_path):
    with pytest.raises(StoppedError):
        train(configured(people), tmp_path / "run", notify=stopping(1))
    (tmp_path / "run/state.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(ResumeError, match=r"state\.pt is a Git LFS pointer"):
        train(configured(people), tmp_path / "run", resume=True)


def test_a_file_of_another_kind_to_start_from_is_named(people, tmp_path):
    (tmp_path / "m.pth").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(CheckpointError, match=r"m\.pth is a web page"):
        train(configured(people, **{"model.start": str(tmp_path / "m.pth")}), tmp_path / "run")


def test_a_folder_without_a_run_cannot_be_resumed(people, tmp_path):
    with pytest.raises(ResumeError, match=r"config\.toml is missing"):
        train(configured(people), tmp_path, resume=True)


def test_a_run_killed_before_its_first_state_says_how_to_begin_anew(people, tmp_path):
    with pytest.raises(StoppedError):
        train(configured(people), tmp_path, notify=stopping(1))
    (tmp_path / "state.pt").unlink()
    with pytest.raises(ResumeError, match=re.escape(f"state.pt is missing. Start one with --out {tmp_path} --force.")):
        train(configured(people), tmp_path, resume=True)


def test_half_a_file_of_a_killed_process_does_not_stay(tmp_path):
    half = tmp_path / ".reid-edge.1.partial"
    half.touch()
    with claimed(RunFolder(tmp_path), new=False):
        assert not half.exists()


def test_divergence_stops_the_run_and_the_last_good_state_stays(people, tmp_path):
    config = configured(people, optimiser__learning_rate=1e30)
    with pytest.raises(DivergedError, match="--lr"):
        train(config, tmp_path / "run")
    state = load_state(tmp_path / "run/state.pt")
    assert state.progress.step == 0
    assert not (tmp_path / "run/best.safetensors").exists()


def test_a_bad_state_is_not_saved_when_stopped_either(people, tmp_path):
    config = configured(people, optimiser__learning_rate=1e30)
    with pytest.raises(DivergedError):
        train(config, tmp_path / "run", notify=stopping(3))
    assert load_state(tmp_path / "run/state.pt").progress.step == 0


@pytest.mark.slow
def test_collapse_stops_the_run(people, tmp_path, monkeypatch):
    monkeypatch.setattr("reid_edge.training.stopping.CollapseWatch.__init__.__defaults__", (2,))
    config = configured(people, run__collapse_spread=0.999)
    with pytest.raises(CollapseError, match="collapsed"):
        train(config, tmp_path / "run")
    assert load_state(tmp_path / "run/state.pt").progress.step == 0, "what looks collapsed replaces nothing"
    assert not (tmp_path / "run/best.safetensors").exists()


def test_a_frozen_network_is_not_watched_for_collapse(whole, people, tmp_path, monkeypatch):
    monkeypatch.setattr("reid_edge.training.stopping.CollapseWatch.__init__.__defaults__", (0,))
    more = {"model__start": str(whole[0] / "best.safetensors"), "schedule__epochs": 2}
    config = configured(people, "finetune", run__collapse_spread=0.999, **more)
    _one_epoch(config, tmp_path / "run")
    with pytest.raises(CollapseError):
        train(config, tmp_path / "run", resume=True)


@pytest.mark.slow
def test_a_folder_with_a_run_is_replaced_only_by_force(people, tmp_path):
    config = configured(people, schedule__epochs=1, data__validation=0)
    train(config, tmp_path / "run")
    (tmp_path / "run/notes.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"--resume .*--force"):
        train(config, tmp_path / "run")
    train(configured(people, schedule__epochs=1, loss__mutual=1.0), tmp_path / "run", force=True)
    assert not (tmp_path / "run/best.safetensors").exists()
    assert (tmp_path / "run/notes.txt").read_text() == "precious"


@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize("name", ["precious.txt", "config.toml"])
def test_a_folder_of_something_else_is_left_alone(people, tmp_path, force, name):
    (tmp_path / name).write_text("x = 1")
    with pytest.raises(OutputError, match=f"{re.escape(name)}, which no run made"):
        train(configured(people), tmp_path, force=force)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "x = 1"


def test_a_folder_is_one_process_s_at_a_time(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with claimed(folder, new=True):
        folder.config.write_text("of the first")
        with pytest.raises(OutputError, match="another process trains"), claimed(folder, new=True):
            pass
        assert folder.config.exists()
        assert folder.lock.exists()


def test_a_full_disk_is_an_error_and_the_old_state_stays(people, tmp_path, monkeypatch):
    """What a write into /dev/full says, in place of the file's own descriptor."""
    out = tmp_path / "run"
    saves = []

    def fsync(descriptor):
        saves.append(descriptor)
        if len(saves) > 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module.os, "fsync", fsync)
    with pytest.raises(OutputError, match="No space left"):
        train(configured(people, run__save_minutes=1e-9), out)
    assert load_state(out / "state.pt").progress.step > 0
    assert not [path for path in out.iterdir() if "partial" in path.name]


def test_without_held_out_images_the_last_is_the_best(people, tmp_path):
    result = train(configured(people, data__validation=0, schedule__epochs=1), tmp_path / "run")
    assert result.metrics == {}
    assert (tmp_path / "run/best.safetensors").read_bytes() == (tmp_path / "run/last.safetensors").read_bytes()


def test_statistics_of_the_dataset_go_into_the_checkpoint(people, tmp_path):
    train(configured(people, model__statistics="dataset", schedule__epochs=1, data__identities=2), tmp_path / "run")
    pixels = [cv2.imread(str(path)) for name in ("001", "002") for path in sorted((people / "train" / name).iterdir())]
    large = np.stack([cv2.resize(one, (16, 24), interpolation=cv2.INTER_LINEAR) for one in pixels])[..., ::-1] / 255
    info = load_checkpoint(tmp_path / "run/best.safetensors").info
    np.testing.assert_allclose(info.mean, large.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(info.std, large.std((0, 1, 2)), atol=1e-4)


def test_statistics_of_the_dataset_are_those_of_the_networks_size(people, tmp_path):
    more = {"model__statistics": "dataset", "schedule__epochs": 2, "data__identities": 2, "run__evaluate_every": 0}
    small = {"schedule__sizes": ["16x13", "24x16"], "schedule__size_milestones": [1]}
    train(configured(people, **more), tmp_path / "plain")
    train(configured(people, **more, **small), tmp_path / "small")
    plain, grown = (load_checkpoint(tmp_path / name / "last.safetensors").info for name in ("plain", "small"))
    assert (grown.mean, grown.std) == (plain.mean, plain.std)


@pytest.mark.slow
def test_fine_tuning_starts_from_a_checkpoint_with_its_statistics(whole, people, tmp_path):
    base = tmp_path / "base"
    train(configured(people, model__statistics="dataset", schedule__epochs=1), base)
    start = base / "best.safetensors"
    config = configured(people, "finetune", model__start=str(start), schedule__epochs=2)
    assert config.schedule.frozen == 1
    first, second = (load_checkpoint(path) for path in (start, _one_epoch(config, tmp_path / "tuned")))
    assert second.info.mean == first.info.mean
    assert second.info.training["model"]["start"] == "best.safetensors"
    # In the frozen epoch only the classifier learned.
    assert second.sha256 == first.sha256


def _one_epoch(config, out):
    with pytest.raises(StoppedError):
        train(config, out, notify=stopping(STEPS + 1))
    return out / "last.safetensors"


def test_a_start_of_another_stem_or_pooling_is_noted_with_the_option_that_keeps_it(whole, people, tmp_path):
    said = []
    more = {"model__start": str(whole[0] / "best.safetensors"), "schedule__epochs": 1, "run__evaluate_every": 0}
    train(configured(people, **more), tmp_path / "same", say=said.append)
    train(configured(people, model__variant__pooling="maximum", **more), tmp_path / "other", say=said.append)
    (note,) = [line for line in said if "to start from" in line]
    assert note.endswith('to keep it: --set model.variant.pooling="average"')


def test_a_start_of_another_width_is_refused(whole, people, tmp_path):
    config = configured(people, "finetune", model__start=str(whole[0] / "best.safetensors"), model__width=0.2)
    with pytest.raises(CheckpointMismatchError, match=r"width 0\.2.*width 0\.1"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"data__root": "/nowhere"}, DatasetError, "nowhere"),
        ({"data__validation": 7}, DatasetError, "leave 1 to train on"),
        ({"data__identities": 9}, DatasetError, "9 identities asked for"),
        ({"batch__size": 64}, DatasetError, "batch.size"),
        ({"batch__size": 32, "batch__instances": 2, "loss__triplet": 0.5}, DatasetError, "batch.size"),
        ({"data__dataset": "markt1501"}, DatasetError, "markt1501"),
        ({"run__device": "cuda"}, SettingsError, "cuda"),
        ({"run__graph": "on"}, SettingsError, "run.graph"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_begun(people, tmp_path, more, error, message):
    if "cuda" in str(more) and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(error, match=message):
        train(configured(people, **more), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_whom_a_balanced_sampler_cannot_take_is_named_by_the_image(tmp_path):
    people = write_people(tmp_path / "people")
    only, *others = sorted((people / "train/001").glob("*.png"))
    for other in others:
        other.unlink()
    with pytest.raises(DatasetError, match=f"have one image only.*{re.escape(str(only))}"):
        train(configured(people, batch__instances=2, loss__triplet=0.5), tmp_path / "run")


def test_categories_may_be_balanced_too(people):
    given = {"data.dataset": "folder", "data.root": str(people), "data.validation": 4, "batch.size": 8}
    config = resolve("classify", {}, {**given, "batch.instances": 2})[0]
    training_data = load_training_data(config)
    for batch in _sampler(config, training_data)(0):
        assert np.unique(training_data.targets[batch], return_counts=True)[1].tolist() == [2] * 4


def test_torn_images_are_listed_and_nothing_is_begun(tmp_path):
    people = write_people(tmp_path / "people")
    for name in ("001/0_c1.png", "008/3_c2.png"):
        (people / "train" / name).write_bytes(b"\x89PNG torn")
    with pytest.raises(DatasetError, match=r"0_c1\.png"):
        train(configured(people), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_come_to_what_one_comes_to(people, tmp_path):
    given = values(people, schedule__epochs=1, batch__size=18, augment__patch=1.0)
    options = [part for key, value in given.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "reid_edge", "train"]
    done = subprocess.run(
        [sys.executable, *command, *options, "--out", str(tmp_path / "two")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    train(configured(people, schedule__epochs=1, batch__size=18, augment__patch=1.0), tmp_path / "one")
    one, two = (rows(tmp_path / name) for name in ("one", "two"))
    assert float(two[0]["loss"]) == pytest.approx(float(one[0]["loss"]), abs=1e-3)
    assert done.stdout.count("Next: reid-edge export") == 1


def test_a_run_stops_after_the_minutes_it_was_given_and_goes_on(whole, people, tmp_path):
    with pytest.raises(StoppedError, match="after step 1 of 12") as stopped:
        train(configured(people), tmp_path / "run", minutes=1e-6)
    assert stopped.value.exit_code == 143
    with pytest.raises(StoppedError, match="after step 2 of 12"):
        train(configured(people), tmp_path / "run", resume=True, minutes=1e-6)
    train(configured(people), tmp_path / "run", resume=True, minutes=10)
    same(whole[0], tmp_path / "run")


def test_a_run_goes_on_elsewhere_in_the_precision_that_it_began_with(people, tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("reid_edge.training.step.cpu_has_bfloat16", lambda: True)
        with pytest.raises(StoppedError):
            train(configured(people, run__precision="auto"), tmp_path / "run", notify=stopping(3))
    monkeypatch.setattr("reid_edge.training.step.cpu_has_bfloat16", lambda: False)
    train(configured(people, run__precision="auto"), tmp_path / "run", resume=True)
    assert load_state(tmp_path / "run/state.pt").settings["run"]["precision"] == "bfloat16"
    with pytest.raises(ResumeError, match=r"run\.precision: was 'bfloat16', is 'float32'"):
        train(configured(people, run__precision="float32"), tmp_path / "run", resume=True)


def test_a_gpu_that_vanishes_ends_the_run_and_the_last_state_goes_on(whole, people, tmp_path, monkeypatch):
    config = configured(people, run__save_minutes=1e-9)
    take, taken = Stepper.__call__, []

    def vanishing(stepper, *batch):
        taken.append(batch)
        if len(taken) == 3:
            raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")
        take(stepper, *batch)

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "__call__", vanishing)
        with pytest.raises(TrainingError, match=r"the GPU failed after step 2 \(CUDA error: .* failure\).*--resume"):
            train(config, tmp_path / "run")
    assert load_state(tmp_path / "run/state.pt").progress.step == 2
    train(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run/metrics.csv").read_text() == (whole[0] / "metrics.csv").read_text()
