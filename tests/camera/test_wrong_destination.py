"""Whole agents and galleries: what waits for one gallery does not go to another that the camera is pointed to."""

import contextlib
import datetime
import signal
import sqlite3
import subprocess
import sys

import pytest

from tests.broker import free_port

EDGE = [sys.executable, "-m", "reid_edge"]
MINUTE = 60_000_000
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


class Gallery:
    """A gallery's process on a port that stays its own, also while it is stopped."""

    def __init__(self, folder, name):
        self.path, self.port, self.name = folder / f"{name}.db", free_port(), name
        self.uri = f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self):
        serve = [*EDGE, "gallery", "serve", f"sqlite:{self.path}", "--listen", self.uri, "--insecure"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                assert str(self.port) in process.stdout.readline()
                yield
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=30)

    def runs(self):
        """Of which runs, by their minutes before now, it holds observations; the number of each."""
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            found = [at for (at,) in db.execute("SELECT captured_us FROM observations")]
        minutes = [round((NOW.timestamp() * 1e6 - at) / MINUTE) for at in found]
        return {minute: minutes.count(minute) for minute in sorted(set(minutes))}


@pytest.fixture
def run(session_bundle, street, tmp_path):
    """Runs an agent on the street as it was some minutes ago, to its end; returns what it printed."""

    def run(gallery, minutes_ago):
        settings = tmp_path / "camera.toml"
        settings.write_text(
            f"""
            [camera]
            name = "door"
            [source]
            uri = "{street}"
            start = {NOW - datetime.timedelta(minutes=minutes_ago):%Y-%m-%dT%H:%M:%SZ}
            [engine]
            bundle = "{session_bundle.path}"
            engine = "openvino"
            max_batch = 2
            [tracklet]
            early_s = 0.2
            [person]
            evidence_s = 0
            [upstream]
            uri = "{gallery.uri}"
            insecure = true
            [operation]
            state_dir = "{tmp_path}/state"
            listen = ""
            drain_s = 3
            """,
            encoding="utf-8",
        )
        done = subprocess.run([*EDGE, "run", "--config", settings], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_what_waits_for_one_gallery_does_not_go_to_another(run, tmp_path):
    first, second = Gallery(tmp_path, "first"), Gallery(tmp_path, "second")
    run(first, 40)
    with second.running():
        said = run(second, 20)
    assert list(second.runs()) == [20]
    assert first.uri in said  # that something waits for it

    with first.running(), second.running():
        run(first, 10)
    assert list(first.runs()) == [10, 40]
    assert first.runs()[40] == second.runs()[20]  # all of them: the same street
    assert list(second.runs()) == [20]
