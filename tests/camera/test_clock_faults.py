"""An agent whose wall clock is set while it runs (libfaketime), and a gallery whose clock is right."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from reid_edge.gallery.entries import Selection
from reid_edge.gallery.store import open_store
from tests.broker import free_port
from tests.camera.mjpeg import MjpegCamera
from tests.conftest import REPOSITORY

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed")]
PATIENCE_S = 60
BELIEVED_S = 4
#: libfaketime 0.9 breaks clock_nanosleep, which time.sleep is made of, when it leaves the monotonic clock alone.
AGENT = f"""
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds)
from reid_edge.camera.sources import clock
clock.BELIEVED_US = {BELIEVED_S} * 1_000_000
from reid_edge.__main__ import main
main()
"""


def see_somebody(frame):
    """One person who stands still."""
    return np.array([[20, 4, 70, 116, 0.9]])


class Run:
    """The agent, its clock, its gallery."""

    def __init__(self, folder, bundle, stack):
        self.folder, self.offset = folder, folder / "offset"
        self.port = free_port()
        self.set_clock("+0")
        video = MjpegCamera(fps=20)
        stack.callback(video.kill)
        serve = [sys.executable, "-m", "reid_edge", "gallery", "serve", f"sqlite:{folder}/gallery.db"]
        gallery = subprocess.Popen(
            [*serve, "--listen", "http://127.0.0.1:0", "--insecure"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        stack.callback(gallery.wait)
        stack.callback(gallery.send_signal, signal.SIGTERM)
        uri = re.search(r"http://127\.0\.0\.1:\d+", gallery.stdout.readline())[0]
        settings = folder / "camera.toml"
        settings.write_text(
            f'[source]\nuri = "{video.url}"\n[engine]\nbundle = "{bundle.path}"\nengine = "openvino"\nmax_batch = 1\n'
            '[detector]\nkind = "callable"\nfunction = "tests.camera.test_clock_faults:see_somebody"\n'
            f"[gate]\ninterval_s = 0.1\n[tracklet]\nearly_s = 0.2\nevery_s = 0.2\nsplit_cosine = -1\n"
            f'[upstream]\nuri = "{uri}"\n'
            f'insecure = true\n[operation]\nstate_dir = "{folder}/state"\nlisten = "127.0.0.1:{self.port}"\n'
        )
        environment = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.offset),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        }
        self.log = folder / "log"
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT, "run", "--config", str(settings)],
            env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=self.log.open("w"),
        )  # fmt: skip
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)

    def set_clock(self, offset):
        beside = self.folder / "offset.new"
        beside.write_text(f"{offset}\n")
        beside.replace(self.offset)

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as page:
            return next(float(line.split()[-1]) for line in page.read().decode().splitlines() if line.startswith(name))

    def wait_for(self, name, least):
        deadline = time.monotonic() + PATIENCE_S
        found = -1.0
        while found < least:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, (
                f"{name} stays at {found}, below {least}\n{self.log.read_text()[-3000:]}"
            )
            with contextlib.suppress(OSError, StopIteration):
                found = self.metric(name)
            time.sleep(0.1)
        return found

    def more(self, name, count):
        return self.wait_for(name, self.metric(name) + count)

    def stored(self):
        store = open_store(f"sqlite:{self.folder}/gallery.db", create=False)
        try:
            anything = np.full(512, 512**-0.5, np.float32)
            [model] = store.models()
            matches = store.search(anything, model_hash=model.model_hash, selection=Selection(), top=10_000)
            return [match.entry for match in matches]
        finally:
            store.close()


ACKNOWLEDGED = "reid_edge_observations_acknowledged_total"
REFUSED = "reid_edge_observations_refused_total"


@pytest.fixture
def run(tmp_path, session_bundle):
    with contextlib.ExitStack() as stack:
        yield Run(tmp_path, session_bundle, stack)


def test_a_camera_whose_clock_jumps_a_year_ahead_for_a_moment_or_for_long(run):
    began_us = time.time_ns() // 1000
    run.wait_for(ACKNOWLEDGED, 3)
    run.set_clock("+365d")
    run.more("reid_edge_frames_total", 30)
    run.set_clock("+0")
    run.more(ACKNOWLEDGED, 3)
    assert run.metric(REFUSED) == 0  # a moment stamps nothing wrong

    run.set_clock("+365d")
    run.wait_for(REFUSED, 2)  # it was believed: the gallery refuses what is stamped in the future
    year_ahead_us = time.time_ns() // 1000
    run.set_clock("+0")
    time.sleep(BELIEVED_S + 1)
    run.more(ACKNOWLEDGED, 5)  # what is right is not held up by what was refused

    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(PATIENCE_S) == 0, run.log.read_text()
    entries, now_us = run.stored(), time.time_ns() // 1000
    assert len(entries) >= 11
    for entry in entries:
        assert began_us < entry.first_us <= entry.captured_us <= entry.last_us < now_us
    # The tracklet that was open when the clock was put right has got the right times.
    assert any(entry.first_us < year_ahead_us < entry.last_us for entry in entries)
