import dataclasses

import numpy as np
import pytest

from reid_edge.errors import StoreError
from reid_edge.gallery import live_people as module
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.held_tracklets import read_tracklets
from reid_edge.gallery.live_people import LivePeople
from reid_edge.gallery.people import identify
from reid_edge.gallery.people_decisions import Operator, merge
from reid_edge.gallery.times import now_us
from reid_edge.identity.transit import StatedTransits
from tests.gallery.people_scenes import errors, later, scene_records, turned
from tests.gallery.stores import HOUR, MODEL, OTHER_MODEL, SECOND, batch
from tests.identity.scenes import make_scene


@pytest.fixture
def at():
    return now_us() - 2 * HOUR


@pytest.fixture
def gallery(sqlite_store, at):
    sqlite_store.accept_model(MODEL, 64, now_us=at)
    return sqlite_store


@pytest.fixture
def scene():
    return make_scene(people=30, visits=2, shift=1.0)


def deliver(gallery, live, rows):
    """What cameras send arrives, and is looked at."""
    gallery.add(rows)
    live.take(rows)
    live.work()


def test_tracklets_are_given_to_people_as_they_come_from_the_first_one_on(gallery, scene, at):
    told = []
    live = LivePeople(gallery, tell=told.append)
    rows = scene_records(scene, at=at)
    for start in range(0, len(rows), 10):
        deliver(gallery, live, rows[start : start + 10])
    assert errors(gallery, scene) == (0, 0)
    assert [event.number for event in told] == [event.number for event in gallery.person_events(limit=1000)]
    kinds = [event.kind for event in told]
    assert kinds.count("seen again") >= 90 and kinds.count("new") + kinds.count("seen again") == len(rows)
    assert len({one.person for one in gallery.assignments()}) == 30


def test_nothing_is_read_again_for_a_tracklet_that_arrives(gallery, scene, at, monkeypatch):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:100])
    monkeypatch.setattr(module, "read_tracklets", None)
    monkeypatch.setattr(module, "identify", None)
    deliver(gallery, live, rows[100:150])
    deliver(gallery, live, [later(rows[120], by=SECOND, seq=900, crops=9)])
    by_track = {one.track: one for one in gallery.assignments()}
    assert len(by_track) == 150 and by_track[120].seq == 900


def test_a_person_seen_once_keeps_the_number_when_more_of_the_tracklet_comes_or_the_same_comes_twice(
    gallery, scene, at
):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, [row for row, who in zip(rows, scene.people, strict=True) if who != 0])
    lone = next(row for row, who in zip(rows, scene.people, strict=True) if who == 0)
    for seq, crops in ((1000, 3), (1001, 6), (1002, 12), (1003, 15)):
        deliver(gallery, live, [later(lone, by=SECOND * (seq - 1000), seq=seq, crops=crops)])
    [mine] = [one for one in gallery.assignments() if one.track == lone.entry.track]
    [event] = [event for event in gallery.person_events(limit=1000) if event.tracklet == lone.entry.tracklet]
    assert (event.kind, event.person, mine.person, mine.seq) == ("new", mine.person, 30, 1003)
    revision = gallery.people_state().revision
    deliver(gallery, live, [later(lone, by=3 * SECOND, seq=1003, crops=15)])  # its acknowledgement was lost
    deliver(gallery, live, [later(lone, by=0, seq=1000, crops=3)])
    assert gallery.people_state().revision == revision


def test_a_person_seen_once_who_turns_out_to_be_another_is_merged_and_stored_so(gallery, scene, at):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, [row for row, who in zip(rows, scene.people, strict=True) if who != 0])
    lone, *_, same = [row for row, who in zip(rows, scene.people, strict=True) if who == 0]
    deliver(gallery, live, [dataclasses.replace(lone, feature=-lone.feature)])
    deliver(gallery, live, [same])
    before = {one.track: one.person for one in gallery.assignments()}
    assert before[lone.entry.track] != before[same.entry.track]
    deliver(gallery, live, [dataclasses.replace(later(lone, by=SECOND, seq=1000, crops=90), feature=lone.feature)])
    now = {one.track: one for one in gallery.assignments()}
    assert now[lone.entry.track].person == now[same.entry.track].person == before[lone.entry.track]
    assert (now[lone.entry.track].how, now[lone.entry.track].seq) == ("assigned", 1000)
    last = gallery.person_events(limit=1000)[-1]
    assert (last.kind, last.person, last.other) == ("merged", before[lone.entry.track], before[same.entry.track])


def test_what_operators_and_others_change_meanwhile_is_taken_over(gallery, scene, at):
    told = []
    live = LivePeople(gallery, tell=told.append)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:90])
    person = {one.track: one.person for one in gallery.assignments()}
    merge(gallery, [person[0], person[1]], Operator(at_us=now_us(), purpose="a test"))
    gallery.add(rows[90:100])
    identify(gallery, now_us=now_us())  # another process
    deliver(gallery, live, rows[100:])
    people = {one.track: one.person for one in gallery.assignments()}
    assert len(people) == 180 and {people[row] for row in (0, 1, 30, 31)} == {person[0]}
    assert [event.person for event in told if event.kind == "merged"] == [person[0]]


def test_what_was_erased_is_forgotten_and_assigned_to_nobody(gallery, scene, at, monkeypatch):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:90])
    gallery.erase(Selection(cameras=("camera0",)), now_us=now_us())
    live.take(rows[:1])  # it was on its way
    live.work()
    assert {one.camera for one in gallery.assignments()} == {"camera1", "camera2"}
    monkeypatch.setattr(live, "_compare_at_s", 0.0)
    live.work()
    assert {len(population) for population in live._populations.values()} == {60}


def test_what_another_process_has_stored_is_given_to_people_but_not_what_is_on_its_way(store, scene, at, monkeypatch):
    store.accept_model(MODEL, 64, now_us=at)
    rows = scene_records(scene, at=at)
    live = LivePeople(store)
    read = []
    monkeypatch.setattr(module, "read_tracklets", lambda *each, **more: read.append(1) or read_tracklets(*each, **more))

    def compare():
        live._compare_at_s = 0.0
        live.work()

    deliver(store, live, rows[:90])
    reads = len(read)
    store.add(rows[90:95])
    compare()
    live.take(rows[90:95])
    compare()
    assert len(store.assignments()) == 95 and len(read) == reads
    more = later(rows[3], by=SECOND, seq=900, crops=9)
    zeros = dataclasses.replace(rows[120], feature=np.zeros(64, np.float32))
    store.add([*rows[95:100], more, zeros])  # another process's
    for _ in range(5):
        compare()
    assert len(store.assignments()) == 100 and len(read) == reads + 1
    assert next(one.seq for one in store.assignments() if one.track == 3) == 900


def test_another_model_and_an_empty_gallery_are_no_errors(gallery, scene, at):
    live = LivePeople(gallery)
    live.work()
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:30])
    other = scene_records(scene, at=at, model=OTHER_MODEL, start=1000)
    entries = [dataclasses.replace(row.entry, track=row.entry.track + 1000) for row in other]
    gallery.accept_model(OTHER_MODEL, 64, now_us=at)
    deliver(gallery, live, [dataclasses.replace(row, entry=entry) for row, entry in zip(other, entries, strict=True)])
    assert len(gallery.assignments()) == 210
    assert {one.model_hash for one in gallery.assignments()} == {MODEL, OTHER_MODEL}


def test_after_a_failure_everything_is_made_up_for(gallery, scene, at, monkeypatch, caplog):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:90])

    def fails(*_, **__):
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(gallery, "change_people", fails)
        gallery.add(rows[90:100])
        live.take(rows[90:100])
        live.work_or_log()
    assert "the disk is full" in caplog.text and len(gallery.assignments()) == 90
    live.work_or_log()
    assert len(gallery.assignments()) == 100


def test_a_camera_that_is_turned_meanwhile_is_noticed_said_once_and_its_new_view_learnt(
    gallery, at, caplog, monkeypatch
):
    scene = make_scene(people=60, visits=2, shift=1.0)
    rows = turned(scene_records(scene, at=at), "camera1", after=180)
    live = LivePeople(gallery)
    gallery.add(rows[:180])
    live.work()
    assert live.moved == []
    for start in range(180, 350, 10):  # fewer than twice as many, after which all is learnt again anyway
        deliver(gallery, live, rows[start : start + 10])
    assert len(live.moved) == 1 and live._populations[MODEL].learnt_from < 300
    deliver(gallery, live, rows[350:])
    assert errors(gallery, scene) == (0, 0)
    assert len(live.moved) == 1 and "the features of camera1 are others since" in live.moved[0]
    assert caplog.text.count("camera1 are others since") == 1
    monkeypatch.setattr(module, "SAID_FOR_S", -1.0)
    assert live.moved == []
    again = LivePeople(gallery)  # a move before it began is no news
    again.work()
    assert again._populations[MODEL].moved and caplog.text.count("camera1 are others since") == 1


def test_a_stated_time_that_sure_matches_contradict_is_logged_once(gallery, scene, at, caplog):
    live = LivePeople(gallery, transits=StatedTransits(shortest_s={("camera0", "camera1"): 10_000.0}))
    rows = scene_records(scene, at=at)
    for start in range(0, len(rows), 60):
        deliver(gallery, live, rows[start : start + 60])
    assert caplog.text.count("between camera0 and camera1 are faster than the stated time") == 1


def test_the_collector_tells_what_it_has_stored(gallery, scene, at):
    live = LivePeople(gallery)
    collector = Collector(gallery, stored=live.take)
    rows = [row for row in scene_records(scene, at=at) if row.entry.camera == "camera0"]
    collector.receive([batch(rows, camera="camera0")])
    live.work()
    assert len(gallery.assignments()) == len(rows)
