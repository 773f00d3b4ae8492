import os
import re
import signal
import subprocess
import sys
import time

import pytest

from reid_edge.settings import read_settings
from reid_edge.training.resolve import resolve
from tests.commands import run_command
from tests.training.people import values, write_people

COMMAND = (sys.executable, "-m", "reid_edge", "train")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    people = write_people(tmp_path_factory.mktemp("people"))
    return [part for key, value in values(people).items() for part in ("--set", f"{key}={str(value).lower()}")]


@pytest.fixture
def run(tmp_path):
    """Run the command in this process: exit code, output and errors."""

    def call(*arguments):
        done = run_command("train", *arguments, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    return call


def test_a_signal_saves_and_the_command_it_names_goes_on(options, tmp_path, run):
    out = tmp_path / "a run"
    process = subprocess.Popen(
        [*COMMAND, *options, "--set", "schedule.epochs=500", "--set", "run.evaluate_every=0", "--out", str(out)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (out / "metrics.csv").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"reid-edge train --resume '{out}'" in said
    assert "epoch 1/500" in said
    code, _, said = run("--resume", out, "--set", "schedule.epochs=501")
    assert code == 1
    assert re.search(r"ResumeError.*\n.*schedule\.epochs: was 500, is 501", said)


def test_show_prints_what_config_takes(options, tmp_path, run):
    code, shown, said = run(*options, "--recipe", "classify", "--lr", "0.5", "--resolution", "0.25", "--show")
    assert code == 0, said
    (tmp_path / "run.toml").write_text(shown)
    settings, _ = resolve(None, read_settings(tmp_path / "run.toml", guide=""), {})
    assert (settings.recipe, settings.optimiser.learning_rate, settings.model.size) == ("classify", 0.01, (24, 16))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.toml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "finetune", "--dataset", "market1501"], "--start CHECKPOINT"),
        (["--size", "64x32", "--resolution", "0.25"], "not both"),
        (["--resume", "nowhere"], "has no run to continue"),
        (["--resume", "nowhere", "--force"], "leave out --config"),
        (["--config", "missing.toml"], r"missing\.toml"),
    ],
)
def test_what_cannot_be_is_one_message(arguments, message, tmp_path, run):
    code, shown, said = run(*arguments)
    assert code == 1
    assert re.search(message, said)
    assert not shown
    assert not list(tmp_path.iterdir())
