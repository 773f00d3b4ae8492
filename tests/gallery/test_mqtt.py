"""The gallery's end of MQTT: a real mosquitto, a real SQLite store, and a second look at its file."""

import contextlib
import random
import sqlite3
import threading
import time

import pytest

from reid_edge.gallery.collector import Collector
from reid_edge.gallery.mqtt import MqttCollector
from reid_edge.gallery.store import open_store
from reid_edge.upstream.message import decode_ack
from tests.broker import Broker, tls_files
from tests.traffic import INCARNATION, Peer, batch, wait_until

FAST = (0.02, 0.2)
NO_SUBSCRIBER = 0x10


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def gallery(tmp_path):
    """Its file, and what opens collectors onto it."""
    with contextlib.ExitStack() as stack:
        path = tmp_path / "gallery.db"
        store = open_store(f"sqlite:{path}", create=True)
        stack.callback(store.close)

        def serve(broker: Broker, **options) -> MqttCollector:
            options = {"insecure": True, "backoff_s": FAST, **options}
            served = MqttCollector(Collector(store), broker.uri, **options)
            stack.callback(served.close)
            wait_until(lambda: served.connected, "the collector was connected")
            return served

        yield path, serve


def stored(path) -> set[tuple[str, str, int]]:
    with contextlib.closing(sqlite3.connect(path)) as db:
        return set(db.execute("SELECT camera, epoch, seq FROM observations"))


def camera_at(broker: Broker, name: str) -> Peer:
    camera = Peer(broker.port, client_id=name)
    camera.subscribe(f"reid/v1/{name}/ack")
    return camera


def test_what_is_acknowledged_is_on_disk(broker, gallery):
    path, serve = gallery
    serve(broker)
    with camera_at(broker, "camA") as camera:
        for seq in range(1, 6):
            camera.publish("reid/v1/camA/obs", batch("camA", seq))
            topic, payload = camera.next_message()
            # Another connection sees only what is committed.
            assert ("camA", INCARNATION, seq) in stored(path)
            assert topic == "reid/v1/camA/ack"
            assert decode_ack(payload).seqs == (seq,)


def test_a_batch_of_another_camera_than_its_topic_is_refused_and_not_stored(broker, gallery):
    path, serve = gallery
    serve(broker)
    with camera_at(broker, "camA") as camera:
        camera.publish("reid/v1/camA/obs", batch("camB", 7))
        ack = decode_ack(camera.next_message()[1])
        assert ack.seqs == ()
        assert [refusal.seqs for refusal in ack.refused] == [(7,)]
        assert "camA" in ack.refused[0].reason
        assert "camB" in ack.refused[0].reason
    assert stored(path) == set()


def test_nonsense_gets_no_ack_and_stops_nothing(broker, gallery):
    path, serve = gallery
    served = serve(broker)
    with camera_at(broker, "camA") as camera:
        for nonsense in (b"", b"\xff" * 100, b"{}"):
            camera.publish("reid/v1/camA/obs", nonsense)
        camera.publish("reid/v1/camA/obs", batch("camA", 1))
        assert decode_ack(camera.next_message()[1]).seqs == (1,)
        assert camera.messages.empty()
    assert served.stats.messages == 4
    assert stored(path) == {("camA", INCARNATION, 1)}


def test_what_comes_twice_is_acknowledged_twice_and_stored_once(broker, gallery):
    path, serve = gallery
    serve(broker)
    with camera_at(broker, "camA") as camera:
        for _ in range(2):
            camera.publish("reid/v1/camA/obs", batch("camA", 1))
            assert decode_ack(camera.next_message()[1]).seqs == (1,)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM observations").fetchone() == (1,)


def test_what_comes_during_a_commit_is_the_next_one(broker, gallery):
    path, serve = gallery
    served = serve(broker)
    with camera_at(broker, "camA") as camera, contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        for seq in range(1, 31):
            assert camera.publish("reid/v1/camA/obs", batch("camA", seq)) == 0
        # The one that runs waits for the other process's transaction.
        wait_until(lambda: served.stats.messages + served._queue.qsize() == 30, "all had come")
        assert camera.messages.empty()
        other.execute("ROLLBACK")
        acks = [decode_ack(camera.next_message()[1]).seqs for _ in range(30)]
    assert acks == [(seq,) for seq in range(1, 31)]
    assert served.stats.commits < 10


def test_a_collector_that_cannot_store_leaves_and_comes_back(broker, gallery):
    """With none left, cameras hear that nobody is there, instead of sending into a queue."""
    path, serve = gallery
    served = serve(broker)
    with camera_at(broker, "camA") as camera, contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON observations BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        )
        other.commit()
        seq = 0
        verdict = 0
        while verdict != NO_SUBSCRIBER:
            seq += 1
            verdict = camera.publish("reid/v1/camA/obs", batch("camA", seq))
            assert seq < 10_000
        assert "the disk is full" in served.trouble
        assert camera.messages.empty()
        assert stored(path) == set()
        other.execute("DROP TRIGGER full")
        other.commit()

        def taken() -> bool:
            time.sleep(0.01)
            return camera.publish("reid/v1/camA/obs", batch("camA", 1)) == 0

        wait_until(taken, "the collector came back")
        while decode_ack(camera.next_message()[1]).seqs != (1,):
            pass  # an earlier one that it had just received
        assert served.trouble == ""
        assert served.stats.failures >= 1


def test_collectors_of_a_group_share_the_work_and_stand_in_for_one_another(broker, gallery):
    path, serve = gallery
    first, second = serve(broker), serve(broker)
    with camera_at(broker, "camA") as camera:
        for seq in range(1, 21):
            camera.publish("reid/v1/camA/obs", batch("camA", seq))
        assert sorted(decode_ack(camera.next_message()[1]).seqs[0] for _ in range(20)) == list(range(1, 21))
        assert first.stats.messages + second.stats.messages == 20
        assert first.stats.messages >= 5
        assert second.stats.messages >= 5
        first.close()
        for seq in range(21, 31):
            assert camera.publish("reid/v1/camA/obs", batch("camA", seq)) == 0
        assert [decode_ack(camera.next_message()[1]).seqs[0] for _ in range(10)] == list(range(21, 31))
    assert len(stored(path)) == 30


def test_each_group_gets_everything(broker, gallery, tmp_path):
    path, serve = gallery
    other_store = open_store(f"sqlite:{tmp_path / 'other.db'}", create=True)
    other = MqttCollector(Collector(other_store), broker.uri, group="other", insecure=True)
    serve(broker)
    wait_until(lambda: other.connected, "the other group was connected")
    with camera_at(broker, "camA") as camera:
        camera.publish("reid/v1/camA/obs", batch("camA", 1))
        assert decode_ack(camera.next_message()[1]).seqs == (1,)
        assert decode_ack(camera.next_message()[1]).seqs == (1,)
    other.close()
    other_store.close()
    assert stored(path) == stored(tmp_path / "other.db") == {("camA", INCARNATION, 1)}


def test_closing_stores_and_acknowledges_what_is_here(broker, gallery):
    path, serve = gallery
    served = serve(broker)
    with camera_at(broker, "camA") as camera, contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        for seq in range(1, 11):
            camera.publish("reid/v1/camA/obs", batch("camA", seq))
        wait_until(lambda: served.stats.messages + served._queue.qsize() == 10, "all had come")
        other.execute("ROLLBACK")
        served.close()
        assert [decode_ack(camera.next_message()[1]).seqs[0] for _ in range(10)] == list(range(1, 11))


def test_a_broker_holds_the_rest_while_the_collector_is_slow(broker, gallery):
    """Memory here stays bounded: the broker has no more than the window under way."""
    path, serve = gallery
    served = serve(broker)
    with camera_at(broker, "camA") as camera, contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        for seq in range(1, 301):
            camera.publish("reid/v1/camA/obs", batch("camA", seq))
        wait_until(lambda: served.stats.messages + served._queue.qsize() >= 200, "the window was full")
        time.sleep(0.1)
        assert served.stats.messages + served._queue.qsize() == 200
        other.execute("ROLLBACK")
        assert [decode_ack(camera.next_message()[1]).seqs[0] for _ in range(300)] == list(range(1, 301))


def test_a_collector_without_a_place_in_the_access_list_says_so(certs, tmp_path, gallery):
    """It may connect, and would wait for ever: only its acknowledgements can tell."""
    with Broker(tmp_path / "secured", certs) as broker:
        _, serve = gallery
        served = serve(broker, tls=tls_files(certs, "camB"), insecure=False)
        served.link.publish("reid/v1/camA/ack", b"any", timeout_s=5)
        wait_until(lambda: served.answers.alerts, "the broker had refused it")
        assert "deploy/mosquitto/acl" in served.trouble


def test_with_certificates_batches_are_stored_and_acknowledged(certs, tmp_path, gallery):
    path, serve = gallery
    with Broker(tmp_path / "secured", certs) as broker:
        serve(broker, tls=tls_files(certs, "collector"), insecure=False)
        with Peer(broker.port, tls_files(certs, "camA")) as camera:
            camera.subscribe("reid/v1/camA/ack")
            assert camera.publish("reid/v1/camA/obs", batch("camA", 1)) == 0
            assert decode_ack(camera.next_message()[1]).seqs == (1,)
    assert stored(path) == {("camA", INCARNATION, 1)}


@pytest.fixture
def wide_broker(tmp_path):
    """A broker that passes on what it should not."""
    options = {"max_packet_size": "20000000", "retain_available": "true"}
    with Broker(tmp_path / "wide", options=options) as broker:
        yield broker


def test_what_is_too_large_is_dropped_and_stops_nothing(wide_broker, gallery):
    _, serve = gallery
    served = serve(wide_broker)
    with camera_at(wide_broker, "camA") as camera:
        assert camera.publish("reid/v1/camA/obs", bytes(10_000_000)) == 0
        camera.publish("reid/v1/camA/obs", batch("camA", 1))
        assert decode_ack(camera.next_message()[1]).seqs == (1,)
    assert served.stats.messages == 1  # the broker may have kept the other back already


def test_one_camera_cannot_fill_the_memory_and_others_are_stored(wide_broker, gallery):
    path, serve = gallery
    served = serve(wide_broker)
    with (
        camera_at(wide_broker, "camA") as hostile,
        camera_at(wide_broker, "camB") as camera,
        contextlib.closing(sqlite3.connect(path)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        camera.publish("reid/v1/camB/obs", batch("camB", 1))
        for _ in range(40):
            hostile.publish("reid/v1/camA/obs", bytes(1_000_000))
        wait_until(lambda: served.stats.dropped == 32, "what is too much was dropped")
        assert served._held.total() < 9_000_000
        other.execute("ROLLBACK")
        assert decode_ack(camera.next_message()[1]).seqs == (1,)
        wait_until(lambda: not served._held, "all was let go")


def test_random_payloads_and_odd_topics_and_retained_messages_stop_nothing(wide_broker, gallery):
    path, serve = gallery
    served = serve(wide_broker)
    chance = random.Random(15)
    with camera_at(wide_broker, "camA") as camera:
        for _ in range(200):
            camera.publish("reid/v1/camA/obs", chance.randbytes(chance.randint(0, 3000)))
        good = batch("camA", 1)
        for topic in ("reid/v1/cam A/obs", "reid/v1//obs", "reid/v1/" + "x" * 3000 + "/obs", "reid/v1/ä%s/obs"):
            camera.publish(topic, good)
        camera.client.publish("reid/v1/camA/obs", batch("camA", 2), qos=1, retain=True).wait_for_publish(10)
        camera.published.get(timeout=10)
        assert decode_ack(camera.next_message()[1]).seqs == (2,)
        assert camera.messages.empty()
    assert served.stats.messages == 205
    assert stored(path) == {("camA", INCARNATION, 2)}


def test_a_retained_batch_is_stored_once_whoever_comes_later(wide_broker, gallery):
    path, serve = gallery
    with camera_at(wide_broker, "camA") as camera:
        camera.client.publish("reid/v1/camA/obs", batch("camA", 1), qos=1, retain=True).wait_for_publish(10)
        camera.published.get(timeout=10)
        serve(wide_broker)
        camera.publish("reid/v1/camA/obs", batch("camA", 2))
        while decode_ack(camera.next_message()[1]).seqs != (2,):
            pass
    assert ("camA", INCARNATION, 2) in stored(path)


def test_a_broker_that_goes_away_during_a_commit_costs_an_answer_and_nothing_else(broker, gallery):
    path, serve = gallery
    served = serve(broker)
    with camera_at(broker, "camA") as camera, contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        camera.publish("reid/v1/camA/obs", batch("camA", 1))
        wait_until(lambda: served.stats.messages == 1, "the commit had begun")
        broker.kill()
        wait_until(lambda: not served.connected, "the loss was noticed")
        other.execute("ROLLBACK")
        wait_until(lambda: served.stats.unanswered == 1, "the commit had ended")
    assert stored(path) == {("camA", INCARNATION, 1)}
    broker.start()
    wait_until(lambda: served.connected, "the collector came back")
    with camera_at(broker, "camA") as camera:
        camera.publish("reid/v1/camA/obs", batch("camA", 1))
        assert decode_ack(camera.next_message()[1]).seqs == (1,)
    assert len(stored(path)) == 1


def test_a_collector_whose_commit_hangs_leaves_its_share_to_others(broker, gallery, monkeypatch):
    _, serve = gallery
    hanging = serve(broker)
    monkeypatch.setattr("reid_edge.gallery.mqtt._STUCK_S", 0.2)
    going_on = threading.Event()
    store = hanging._collector._store
    add = store.add
    monkeypatch.setattr(store, "add", lambda *rows: (going_on.wait(30), add(*rows))[1])
    with camera_at(broker, "camA") as camera:
        camera.publish("reid/v1/camA/obs", batch("camA", 1))
        wait_until(lambda: hanging._collector.commits.running_s > 0.3, "it hung")
        hanging.leave_if_stuck()
        wait_until(lambda: camera.publish("reid/v1/camA/obs", batch("camA", 2)) == NO_SUBSCRIBER, "it had left")
        assert "does not answer" in hanging.trouble
        going_on.set()
        wait_until(lambda: hanging.connected, "it came back")
        camera.publish("reid/v1/camA/obs", batch("camA", 3))
        while decode_ack(camera.next_message()[1]).seqs != (3,):
            pass
    assert hanging.trouble == ""
