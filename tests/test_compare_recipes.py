"""models/compare.py: variants of a recipe on the same budget."""

import sys

import pytest

from reid_edge.errors import SettingsError, StoppedError
from reid_edge.training.run import train
from tests.conftest import REPOSITORY
from tests.scripts import loaded
from tests.training.people import values, write_people

SHARED = """
recipe = "finetune"
[data]
dataset = "folder"
validation = 2
partial = true
[model]
width = 0.1
size = "24x16"
[model.variant]
blocks = [1, 1, 1]
streams = [1, 2]
[schedule]
epochs = 2
frozen = 1
[batch]
size = 8
[run]
device = "cpu"
precision = "float32"
evaluate_every = 0
[variants."plain one"]
[variants."EMA 0.9"]
run.ema = 0.9
[variants."taught"]
teach = true
"""


@pytest.fixture(scope="module")
def script():
    with loaded("compare") as module:
        yield module


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def checkpoints(people, tmp_path_factory):
    from reid_edge.training.resolve import resolve

    folder = tmp_path_factory.mktemp("checkpoints")
    for seed in (1, 2):
        config = resolve("scratch", {}, values(people, schedule__epochs=1, run__seed=seed))[0]
        train(config, folder / str(seed))
    return [folder / f"{seed}/last.safetensors" for seed in (1, 2)]


@pytest.fixture
def ask(script, people, checkpoints, tmp_path, monkeypatch):
    """Run the script in this process with more arguments; the start is given."""
    (tmp_path / "variants.toml").write_text(SHARED)

    def asked(*more):
        given = [tmp_path / "variants.toml", "--root", people, "--out", tmp_path / "out", "--start", checkpoints[0]]
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, [*given, *more])])
        script.main()

    return asked


def test_each_variant_has_a_row_and_the_start_the_first(ask, checkpoints, tmp_path, capsys):
    ask("--teacher", checkpoints[1])
    text = (tmp_path / "out/table.md").read_text()
    assert text in capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "| variant | mAP | R1 | seeds | minutes |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| before", "| plain one", "| EMA 0.9", "| taught"]
    assert all(0 < float(line.split(" | ")[1]) <= 100 for line in lines[2:])


def test_what_is_done_is_remembered_and_what_is_stopped_goes_on(ask, tmp_path):
    with pytest.raises(StoppedError):
        ask("--minutes", "0", "--only", "plain one")
    ask("--only", "plain one", "--seeds", "1,2")
    state = tmp_path / "out/plain-one-seed1/state.pt"
    before = state.stat().st_mtime_ns
    ask("--only", "plain one", "--seeds", "1,2")
    assert state.stat().st_mtime_ns == before
    assert " to " in (tmp_path / "out/table.md").read_text()


def test_a_variant_that_needs_a_teacher_is_left_out_without_one(ask, capsys):
    with pytest.raises(SettingsError, match="every variant needs a teacher"):
        ask("--only", "taught")
    assert "taught: left out, since no --teacher is given" in capsys.readouterr().out


def test_an_unknown_variant_is_named(ask):
    with pytest.raises(SettingsError, match=r"no variant tall; .* has plain one, EMA 0\.9, taught"):
        ask("--only", "tall")


@pytest.mark.parametrize("name", ["ablation", "own_people"])
def test_every_variant_that_the_repository_names_is_valid(script, name, tmp_path, monkeypatch):
    given = [REPOSITORY / f"models/{name}.toml", "--root", tmp_path, "--out", tmp_path, "--start", "a.pth"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, given), "--teacher", "b.pth"])
    plans = script.variants(script.parsed())
    assert all(runs[0].data.validation == 100 for runs in plans.values())
    assert len({str(runs) for runs in plans.values()}) == len(plans)
    assert len({runs[0].schedule.frozen for runs in plans.values()}) == 1


def test_what_a_number_of_epochs_changes_in_proportion_is_told(ask, capsys):
    with pytest.raises(StoppedError):
        ask("--minutes", "0", "--set", "schedule.epochs=20", "--only", "plain one", "--only", "EMA 0.9")
    out = capsys.readouterr().out
    assert out.count("20 epochs in place of 2, so in proportion: ") == 1
    assert "schedule.frozen = 10" in out
