"""Two galleries behind one real broker: each gets every row that is for it, and only those that are named delete."""

from __future__ import annotations

import contextlib
import sqlite3
import time

import pytest

from reid_edge.gallery.collector import Collector
from reid_edge.gallery.mqtt import MqttCollector
from reid_edge.gallery.store import open_store
from reid_edge.upstream.delivery import Delivery
from reid_edge.upstream.mqtt import MqttTransport
from reid_edge.upstream.outbox import Outbox
from tests.broker import Broker
from tests.traffic import observation, wait_until

CAMERA = "camA"


class Gallery:
    """A gallery with a store of its own; it can be stopped and started."""

    def __init__(self, name: str, folder, broker: Broker) -> None:
        self.name, self._uri, self._broker = name, f"sqlite:{folder}/{name}.db", broker
        self._running = contextlib.ExitStack()

    def start(self) -> None:
        store = open_store(self._uri, create=True)
        self._running.callback(store.close)
        collector = MqttCollector(Collector(store), self._broker.uri, group=self.name, insecure=True)
        self._running.callback(collector.close)
        wait_until(lambda: collector.connected, f"{self.name} is connected")

    def stop(self) -> None:
        self._running.close()

    def held(self) -> tuple[list[int], int]:
        """Tracks that it has, and observations that it knows to be missing."""
        with contextlib.closing(sqlite3.connect(self._uri.removeprefix("sqlite:"))) as db:
            tracks = sorted(track for (track,) in db.execute("SELECT track FROM observations"))
            return tracks, int(db.execute("SELECT total(count) FROM gaps").fetchone()[0])


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def galleries(tmp_path, broker):
    both = [Gallery(name, tmp_path, broker) for name in ("north", "south")]
    for gallery in both:
        gallery.start()
    yield both
    for gallery in both:
        gallery.stop()


@contextlib.contextmanager
def camera(tmp_path, broker, *names: str):
    transport = MqttTransport(broker.uri, camera=CAMERA, insecure=True)
    outbox = Outbox(tmp_path / "outbox.db", synchronous="NORMAL")
    delivery = Delivery(outbox, transport, camera=CAMERA, galleries=names, resend_s=0.5)
    delivery.start()
    try:
        yield outbox, delivery
    finally:
        delivery.stop()
        transport.close()
        outbox.close()


def put(outbox: Outbox, tracks: range) -> None:
    for track in tracks:
        outbox.put([observation(track)])


def test_both_have_every_row_though_one_was_stopped(tmp_path, broker, galleries):
    _, south = galleries
    with camera(tmp_path, broker, "north", "south") as (outbox, delivery):
        put(outbox, range(50))
        wait_until(lambda: outbox.depth == 0, "both have the first rows")
        south.stop()
        put(outbox, range(50, 100))
        wait_until(lambda: delivery.stats.lacking == {"north": 0, "south": 50}, "north has what south lacks")
        assert outbox.depth == 50
        south.start()
        put(outbox, range(100, 150))
        wait_until(lambda: outbox.depth == 0, "south has everything too")
        assert delivery.stats.foreign_acks == 0
    for gallery in galleries:
        gallery.stop()
        assert gallery.held() == (list(range(150)), 0)


def test_only_the_one_that_is_named_can_delete(tmp_path, broker, galleries):
    north, south = galleries
    with camera(tmp_path, broker, "south") as (outbox, _):
        put(outbox, range(50))
        wait_until(lambda: outbox.depth == 0, "south has the first rows")
        south.stop()
        put(outbox, range(50, 100))
        time.sleep(1.5)  # north sees them, three times
        assert outbox.depth == 50
        south.start()
        wait_until(lambda: outbox.depth == 0, "south has everything")
    south.stop()
    assert south.held() == (list(range(100)), 0)
    north.stop()
    tracks, missing = north.held()
    assert tracks == []
    assert missing > 0  # it says that there are rows which it does not have
