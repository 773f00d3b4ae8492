"""A whole ``gallery serve`` whose clock is days ahead for a while, or from its start: nothing is deleted."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from reid_edge.upstream.http import HttpTransport
from tests.broker import free_port
from tests.conftest import REPOSITORY
from tests.faults.clocks import Clock, need_faketime
from tests.traffic import batch, next_acks

#: The server applies its retention twice a second instead of once a minute.
_PROGRAM = """
from tests.faults.clocks import sleep_under_libfaketime
sleep_under_libfaketime()
from reid_edge.gallery.collector import Collector
Collector.__init__.__kwdefaults__["expire_every_s"] = 0.5
from reid_edge.__main__ import main
main()
"""


@pytest.fixture
def clock(tmp_path):
    need_faketime()
    return Clock(tmp_path / "clock")


@contextlib.contextmanager
def _serving(folder, clock):
    """Yield a transport to a server under the clock, and the file of its log."""
    uri, log = f"http://127.0.0.1:{free_port()}", folder / "log"
    serve = [sys.executable, "-c", _PROGRAM, "gallery", "serve", f"sqlite:{folder}/gallery.db"]
    environment = os.environ | clock.environment | {"PYTHONPATH": str(REPOSITORY)}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*serve, "--listen", uri, "--insecure"], env=environment, cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=errors,
        ) as process,
        contextlib.closing(HttpTransport(uri, insecure=True)) as transport,
    ):  # fmt: skip
        try:
            assert uri in process.stdout.readline(), log.read_text()
            yield transport, log
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def _held(folder):
    with contextlib.closing(sqlite3.connect(folder / "gallery.db")) as db:
        return [seq for (seq,) in db.execute("SELECT seq FROM observations ORDER BY seq")]


@pytest.mark.slow
@pytest.mark.parametrize("offset", ["+4d", "-400d"])
def test_a_server_whose_clock_is_wrong_for_a_while_deletes_nothing(tmp_path, clock, offset):
    with _serving(tmp_path, clock) as (transport, log):
        transport.send(batch("door", 1, 2, 3))
        assert next_acks(transport)[0].seqs == (1, 2, 3)
        clock.set(offset)
        time.sleep(4)
        clock.set("+0")
        time.sleep(2)
        transport.send(batch("door", 4))
        assert next_acks(transport)[0].seqs == (4,)
        assert "clock" in log.read_text()
    assert _held(tmp_path) == [1, 2, 3, 4]

    clock.set(offset)
    with _serving(tmp_path, clock):
        time.sleep(2)
    assert _held(tmp_path) == [1, 2, 3, 4]
