"""What became of people, as MQTT messages and as a process that serves."""

import contextlib
import json
import re
import signal
import subprocess
import urllib.request

import pytest

from reid_edge.gallery.collector import Collector
from reid_edge.gallery.mqtt import MqttCollector
from reid_edge.gallery.people_messages import event_payload, people_topic
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.people import PersonEvent
from reid_edge.gallery.times import now_us
from tests.broker import Broker
from tests.gallery.people_scenes import scene_records
from tests.gallery.stores import HOUR, MODEL, batch
from tests.gallery.test_commands import COMMAND, WHY, gallery
from tests.identity.scenes import make_scene
from tests.traffic import Peer, wait_until


def event(number, kind="seen again", **changes):
    usual = {"at_us": 5, "person": 3, "model_hash": MODEL, "tracklet": ("door", "e1", 7), "similarity": 4.12345}
    return PersonEvent(number=number, kind=kind, reason="nearer than strangers are", **{**usual, **changes})


def test_an_event_has_a_topic_and_fields_of_its_own():
    assert people_topic("gallery", event(1)) == "reid/v1/gallery/people/seen-again"
    assert json.loads(event_payload("gallery", event(9, "merged", other=8))) == {
        "gallery": "gallery",
        "number": 9,
        "at_us": 5,
        "event": "merged",
        "person": 3,
        "other": 8,
        "camera": "door",
        "epoch": "e1",
        "track": 7,
        "similarity": 4.123,
        "reason": "nearer than strangers are",
        "model_hash": MODEL,
    }
    assert json.loads(event_payload("gallery", event(9, similarity=None)))["similarity"] is None


def test_events_are_published_in_their_order_beside_acknowledgements(tmp_path):
    with (
        Broker(tmp_path / "broker") as broker,
        contextlib.closing(open_store(f"sqlite:{tmp_path / 'gallery.db'}")) as store,
        contextlib.closing(MqttCollector(Collector(store), broker.uri, insecure=True)) as served,
        Peer(broker.port, client_id="console") as console,
    ):
        wait_until(lambda: served.connected, "the collector was connected")
        console.subscribe("reid/v1/+/people/#")
        for number in range(1, 4):
            served.tell(event(number))
        messages = [console.next_message() for _ in range(3)]
    assert [json.loads(payload)["number"] for _, payload in messages] == [1, 2, 3]
    assert {topic for topic, _ in messages} == {"reid/v1/gallery/people/seen-again"}


@pytest.fixture
def rows():
    return scene_records(make_scene(people=30, shift=1.0), at=now_us() - HOUR)


def test_a_gallery_that_is_served_with_people_finds_them_by_itself(tmp_path, rows):
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    serve = [*COMMAND, "serve", uri, "--listen", "http://127.0.0.1:0", "--insecure", "--people"]
    process = subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = re.search(r"http://127\.0\.0\.1:(\d+)$", process.stdout.readline().rstrip())[1]
        for camera in ("camera0", "camera1", "camera2"):
            payload = batch([row for row in rows if row.entry.camera == camera], camera=camera)
            headers = {"content-type": "application/x-protobuf"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/batches", payload, headers)
            urllib.request.urlopen(request, timeout=30).read()
        with contextlib.closing(open_store(uri)) as store:
            wait_until(lambda: len(store.assignments()) == 90, "all tracklets had people")
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, output + errors
    shown = gallery("events", uri, "--limit", 1000, *WHY)
    assert len(shown.splitlines()) == 90 and shown.count(" new: ") + shown.count(" new (near ") >= 30
    lines = [json.loads(line) for line in gallery("events", uri, "--after", 80, "--json", *WHY).splitlines()]
    assert [line["number"] for line in lines] == list(range(81, 91))
    assert json.loads(gallery("audit", uri, "--json", "--action", "events"))[-1]["detail"]["after"] == 80


def test_events_are_followed_as_they_come(tmp_path, rows):
    uri = f"sqlite:{tmp_path / 'gallery.db'}"
    with contextlib.closing(open_store(uri)) as store:
        store.accept_model(MODEL, 64, now_us=now_us())
        process = subprocess.Popen(
            [*COMMAND, "events", uri, "--follow", "--json", *WHY], stdout=subprocess.PIPE, text=True
        )
        try:
            wait_until(lambda: len(store.audit_entries(9)) == 1, "it was following")
            store.add(rows)
            gallery("identify", uri)
            first = json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert (first["number"], first["event"], first["person"]) == (1, "new", 1)
