"""20,000 features through a broker that is killed twice, by an agent that is killed twice, to a collector that is
killed once: none is lost, none is stored twice.

Everything is real: three processes beside this one, mosquitto with TLS and its access list, the outbox and the store
with an fsync at every commit.
"""

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.upstream.mqtt.outage_agent import ROWS_PER_PUT

FEATURES = 20_000
LIFE = 1_000_000  # track numbers of one life of the agent begin at a multiple of this
DEADLINE_S = 120.0
REPOSITORY = Path(__file__).parents[3]


class World:
    def __init__(self, folder: Path, certs: Path) -> None:
        self.folder = folder
        self.certs = certs
        self.broker = Broker(folder / "broker", self.certs)
        self.ledger = folder / "ledger"
        self.store = folder / "gallery.db"
        self.lives = 0
        self.deadline = time.monotonic() + DEADLINE_S
        self.processes: list[subprocess.Popen] = []

    def start_agent(self) -> None:
        self.lives += 1
        left = FEATURES - len(self.put())
        self.agent = self._start("outage_agent", self.folder, self.broker.uri, self.certs, LIFE * self.lives, left)

    def start_collector(self) -> None:
        self.collector = self._start("outage_collector", f"sqlite:{self.store}", self.broker.uri, self.certs)

    def put(self) -> list[int]:
        """Tracks of which the agent knows that their put was committed."""
        lines = self.ledger.read_text(encoding="ascii").splitlines() if self.ledger.exists() else []
        ranges = [line.split() for line in lines]
        return [track for first, last in ranges for track in range(int(first), int(last) + 1)]

    def stored(self) -> Counter[int]:
        if not self.store.exists():
            return Counter()
        with contextlib.closing(sqlite3.connect(self.store)) as db:
            if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'observations'").fetchone():
                return Counter()  # the collector is just making it
            return Counter(track for (track,) in db.execute("SELECT track FROM observations"))

    def wait_until(self, condition, what: str) -> None:
        while not condition():
            assert time.monotonic() < self.deadline, f"waited in vain until {what}"
            time.sleep(0.02)

    def _start(self, module: str, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-m", f"tests.upstream.mqtt.{module}", *map(str, arguments)]
        with (self.folder / f"{module}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(path.read_text(encoding="utf-8") for path in sorted(self.folder.glob("outage_*.log")))


@pytest.fixture
def world(tmp_path, certs):
    world = World(tmp_path, certs)
    yield world
    for process in world.processes:
        process.kill()
        process.wait()
    world.broker.stop()


def kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_stored_twice(world):
    world.broker.start()
    world.start_collector()
    world.start_agent()

    def has_put(count: int) -> None:
        world.wait_until(lambda: len(world.put()) >= count, f"{count} features were put")

    def has_stored(count: int) -> None:
        world.wait_until(lambda: len(world.stored()) >= count, f"{count} features were stored")

    has_stored(1000)
    world.broker.kill()
    has_put(len(world.put()) + 1000)  # the agent goes on without a broker
    world.broker.start()
    has_stored(4000)
    kill(world.agent)
    world.start_agent()
    has_stored(7000)
    kill(world.collector)
    has_put(min(len(world.put()) + 1000, FEATURES - 4000))  # and without a collector
    world.start_collector()
    has_stored(10_000)
    world.broker.kill()
    kill(world.agent)
    world.start_agent()
    world.broker.start()
    assert world.agent.wait(timeout=DEADLINE_S) == 0, world.logs()

    put, stored = world.put(), world.stored()
    assert len(put) == len(set(put)) == FEATURES
    assert set(put) - set(stored) == set(), "lost"
    assert [track for track, count in stored.items() if count > 1] == [], "stored twice"
    # A killed agent may have committed one put more than it could write down.
    unwritten = set(stored) - set(put)
    assert len(unwritten) <= 2 * ROWS_PER_PUT
    assert {track // LIFE for track in unwritten} <= {1, 2}
