"""A gallery as one process: health tells the truth at once, whatever the store does."""

import contextlib
import dataclasses
import http.client
import threading
import time

import pytest

from reid_edge.errors import StoreError, UsageError
from reid_edge.gallery import health as gallery_health
from reid_edge.gallery import serving
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.quota import Quota
from reid_edge.gallery.serving import Endpoints, GalleryService
from reid_edge.gallery.store import open_store
from reid_edge.gallery.twins import known_twins
from reid_edge.identity.transit import StatedTransits
from tests.broker import Broker
from tests.commands import run_command
from tests.gallery.stores import DIM, MODEL, NOON, SECOND, record
from tests.traffic import batch, wait_until


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:{tmp_path / 'gallery.db'}")
    yield store
    store.close()


@pytest.fixture
def serve(store, monkeypatch):
    """Start a service, whose store is probed ten times a second."""
    monkeypatch.setattr(gallery_health, "PROBE_S", 0.1)
    monkeypatch.setattr(gallery_health.probing.__wrapped__, "__kwdefaults__", {"every_s": 0.1})
    with contextlib.ExitStack() as closing:

        def start(**options):
            options = {"listen": "http://127.0.0.1:0", "insecure": True, **options}
            return GalleryService(store, Endpoints(**options), closing)

        yield start


def test_stated_times_of_cameras_that_the_gallery_does_not_hold_are_warned_of_at_the_start(store, serve, caplog):
    store.accept_model(MODEL, DIM, now_us=NOON)
    store.add([record(1), record(1, camera="hall")])
    serve(people=True, transits=StatedTransits(shortest_s={("Door", "hall"): 20.0}))
    assert "times are stated for Door, of which the gallery holds nothing" in caplog.text
    assert "it holds door, hall" in caplog.text


def ask(service, path="/healthz", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", service._servers[0].port, timeout=20)
    connection.request("POST" if body else "GET", path, body, {"content-type": "application/x-protobuf"})
    response = connection.getresponse()
    return response.status, response.read().decode(errors="replace")


def problems(service):
    lines = ask(service, "/metrics")[1].splitlines()
    shown = [line for line in lines if line.startswith("reid_edge_gallery_problem{")]
    assert len(shown) == len(gallery_health.KINDS)
    return {line.split('"')[1] for line in shown if line.endswith(" 1.0")}


def fails(*_arguments, **_options):
    raise StoreError("the disk is full.")


def test_while_the_store_fails_the_gallery_is_unhealthy_until_a_commit_succeeds(serve, store, monkeypatch):
    service = serve()
    assert ask(service) == (200, "ok\n")
    assert problems(service) == set()
    with monkeypatch.context() as patch:
        patch.setattr(store, "add", fails)
        assert ask(service, "/v1/batches", batch("door", 1))[0] == 503
        time.sleep(0.5)  # probes succeed, and are no excuse
        assert ask(service) == (503, "cannot store: the disk is full\n")
        assert problems(service) == {"store"}
    assert ask(service, "/v1/batches", batch("door", 1))[0] == 200
    assert ask(service) == (200, "ok\n")


def test_a_store_that_fails_while_nothing_arrives_is_noticed(serve, store, monkeypatch):
    service = serve()
    with monkeypatch.context() as patch:
        patch.setattr(store, "change_settings", fails)
        wait_until(lambda: ask(service)[0] == 503, "it was noticed")
    monkeypatch.setattr(gallery_health, "FORGIVEN_S", 0.2)
    wait_until(lambda: ask(service)[0] == 200, "it was well again")


def test_a_store_that_hangs_is_noticed_and_health_answers_at_once(serve, store, monkeypatch):
    service = serve()
    monkeypatch.setattr(gallery_health, "SLOW_S", 0.3)
    going_on = threading.Event()
    add = store.add
    monkeypatch.setattr(store, "add", lambda *rows: (going_on.wait(30), add(*rows))[1])
    posting = threading.Thread(target=ask, args=(service, "/v1/batches", batch("door", 1)))
    posting.start()
    wait_until(lambda: ask(service)[0] == 503, "it was noticed")
    start = time.monotonic()
    assert "has not answered for" in ask(service)[1]
    assert problems(service) == {"store"}
    assert time.monotonic() - start < 5
    monkeypatch.setattr(serving, "HUNG_S", 0.3)
    assert not service.alive  # the watchdog is not fed
    going_on.set()
    posting.join()
    assert service.alive
    assert ask(service)[0] == 200


def test_a_request_whose_commit_hangs_is_answered_and_its_bytes_are_let_go_later(serve, store, monkeypatch):
    monkeypatch.setattr("reid_edge.gallery.group_commit.GroupCommit.__init__.__kwdefaults__", {"answer_s": 0.3})
    service = serve()
    going_on = threading.Event()
    add = store.add
    monkeypatch.setattr(store, "add", lambda *rows: (going_on.wait(30), add(*rows))[1])
    status, text = ask(service, "/v1/batches", batch("door", 1))
    assert (status, text) == (503, "the store has not answered within 0.3 s.\n")
    going_on.set()
    wait_until(lambda: service.collector.stats.stored == 1, "it was stored in the end")


def test_retention_that_cannot_be_applied_is_a_problem(serve, store, monkeypatch):
    service = serve()
    monkeypatch.setattr(store, "expire", fails)
    service.collector.retention._due = 0.0
    service.collector.retention.apply_if_due()
    assert ask(service) == (503, "observations are not deleted on time: the disk is full\n")
    assert problems(service) == {"retention"}


def test_damage_of_the_store_and_a_clock_that_may_be_wrong_are_problems(serve, store):
    service = serve()
    assert ask(service)[0] == 200
    store.damaged.note("door/e1/1")
    status, said = ask(service)
    assert status == 503
    assert "1 damaged observation left out" in said
    clock = service.collector.retention.clock
    clock._state = dataclasses.replace(clock._state, wall_us=clock._state.wall_us + 4 * 24 * 3600 * SECOND)
    assert "96 hours ahead" in ask(service)[1]
    assert problems(service) == {"store", "retention"}


def test_a_file_that_is_overwritten_under_it_is_a_problem_at_once_though_nothing_arrives(serve, store, tmp_path):
    service = serve()
    assert ask(service, "/v1/batches", batch("door", 1))[0] == 200
    with (tmp_path / "gallery.db").open("r+b") as file:
        file.write(bytes(4096))
    wait_until(lambda: "overwritten while it was open" in ask(service)[1], "it was noticed")
    assert ask(service, "/v1/batches", batch("door", 2))[0] == 503
    assert "store" in problems(service)


def test_cameras_over_their_quota_are_named(serve):
    service = serve(quota=Quota(rows=1))
    for camera in "abcdefg":
        assert ask(service, "/v1/batches", batch(camera, *range(1, 12)))[0] == 200
    status, text = ask(service)
    assert status == 503
    assert "a (rows), b (rows), c (rows), d (rows), e (rows) and 2 more" in text
    assert problems(service) == {"quota"}


def test_two_cameras_under_one_name_are_told_of_by_health_and_by_the_command(serve, store, tmp_path):
    service = serve()
    for seq in range(1, 5):
        for incarnation in ("one", "two"):
            ask(service, "/v1/batches", batch("door", seq, incarnation=incarnation))
    status, text = ask(service)
    assert status == 503
    assert "two cameras seem to have the name 'door'" in text
    assert problems(service) == {"twins"}
    now_us = time.time_ns() // 1000
    wait_until(lambda: known_twins(store, now_us), "it was recorded")
    shown = run_command("gallery", "cameras", f"sqlite:{tmp_path / 'gallery.db'}")
    assert shown.returncode == 0
    assert "two cameras seem to have the name 'door'" in shown.stderr
    assert known_twins(store, now_us + 25 * 3600 * SECOND) == []


def test_a_broker_that_goes_away_is_a_problem_and_one_line_a_minute(serve, tmp_path, caplog):
    with Broker(tmp_path / "broker") as broker:
        service = serve(mqtt=broker.uri)
        wait_until(lambda: ask(service)[0] == 200, "it was connected")
        broker.kill()
        wait_until(lambda: ask(service)[0] == 503, "it was noticed")
        assert problems(service) == {"broker"}
        caplog.clear()
        stopped = threading.Event()
        waiting = threading.Thread(target=service.until, args=(stopped,))
        waiting.start()
        time.sleep(2.5)
        stopped.set()
        waiting.join()
        assert sum(record.name == "reid_edge.gallery.health" for record in caplog.records) == 1


def test_people_who_cannot_be_told_are_a_problem_while_tracklets_are_stored(serve, store, monkeypatch):
    service = serve(people=True)
    wait_until(lambda: ask(service) == (200, "ok\n"), "people were read")
    with monkeypatch.context() as patch:
        patch.setattr(store, "change_people", fails)
        assert ask(service, "/v1/batches", batch("door", 1))[0] == 200
        wait_until(lambda: problems(service) == {"people"}, "it was noticed")
        assert ask(service) == (503, "tracklets are not given to people: the disk is full\n")
    wait_until(lambda: ask(service) == (200, "ok\n"), "it was made up for")
    assert len(store.assignments()) == len(store.tracklets(Selection(), limit=10)) > 0


def test_a_camera_that_was_moved_is_a_problem_for_ten_minutes(serve, monkeypatch):
    service = serve(people=True)
    wait_until(lambda: ask(service) == (200, "ok\n"), "people were read")
    service._people._moved["door"] = (1e9, time.monotonic() - 599)
    assert problems(service) == {"moved"}
    assert "the features of door are others since 2001-09-09 01:46:40+00:00: it was moved, or" in ask(service)[1]
    service._people._moved["door"] = (1e9, time.monotonic() - 601)
    assert ask(service) == (200, "ok\n")


def test_the_watchdog_is_fed_while_commits_end_and_not_while_one_hangs(serve, monkeypatch):
    service = serve()
    fed = []
    monkeypatch.setattr(serving, "notify", fed.append)
    monkeypatch.setattr(serving, "watchdog_interval_s", lambda: 0.01)
    monkeypatch.setattr(serving, "CHECK_S", 0.02)

    def run_for(seconds):
        fed.clear()
        stopped = threading.Event()
        threading.Timer(seconds, stopped.set).start()
        service.until(stopped)
        return len(fed)

    assert run_for(0.5) > 3
    monkeypatch.setattr(type(service.collector.commits), "running_s", serving.HUNG_S)
    assert run_for(0.5) == 0


def test_something_has_to_be_listened_to_and_names_are_names(store):
    with pytest.raises(UsageError, match="--listen"):
        Endpoints()
    with contextlib.ExitStack() as closing, pytest.raises(UsageError, match="name of a gallery"):
        GalleryService(store, Endpoints(listen="http://127.0.0.1:0", insecure=True, name="+/#"), closing)
