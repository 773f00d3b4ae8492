import dataclasses

import numpy as np
import pytest

from reid_edge.errors import StoreError
from reid_edge.gallery import live_people as module
from reid_edge.gallery import population
from reid_edge.gallery.collector import Collector
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.held_tracklets import name_of, read_tracklets
from reid_edge.gallery.live_people import LivePeople
from reid_edge.gallery.people import identify
from reid_edge.gallery.people_decisions import Operator, keep_apart, merge
from reid_edge.gallery.person_erasure import erase_person
from reid_edge.gallery.store.people import PeopleChange
from reid_edge.gallery.times import now_us
from reid_edge.identity import moves as moving
from reid_edge.identity.moves import moves
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


def test_what_was_erased_is_forgotten_and_assigned_to_nobody(gallery, scene, at):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:90])
    gallery.erase(Selection(cameras=("camera0",)), now_us=now_us())
    live.take(rows[:1])  # it was on its way
    live.work()
    assert {one.camera for one in gallery.assignments()} == {"camera1", "camera2"}
    assert {len(population) for population in live._populations.values()} == {60}
    gallery.erase(Selection(cameras=("camera1",)), now_us=now_us())
    compare(live)  # nothing has arrived since
    assert {len(population) for population in live._populations.values()} == {30}


def compare(live):
    """A minute has passed."""
    live._compare_at_s = 0.0
    live.work()


def count_reads(monkeypatch):
    read = []
    monkeypatch.setattr(module, "read_tracklets", lambda *each, **more: read.append(1) or read_tracklets(*each, **more))
    return read


def test_an_erased_person_is_gone_at_once_and_does_not_come_back(gallery, scene, at, monkeypatch):
    told = []
    live = LivePeople(gallery, tell=told.append)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:100])
    person = next(one.person for one in gallery.assignments() if one.track == 0)
    assert erase_person(gallery, person, purpose="asked for", now_us=now_us()).observations == 4
    told.clear()
    monkeypatch.setattr(module, "read_tracklets", None)
    deliver(gallery, live, [rows[0], rows[120]])  # one that was on its way, and the same person on another camera
    assert [(event.kind, event.tracklet[2]) for event in told] == [("new", 120)] and told[0].person != person
    population = live._populations[MODEL]
    assert {one.track for one in population.assignments.values()} == {*range(100), 120} - {0, 30, 60, 90}
    assert person not in {one.person for one in population.assignments.values()} and population.learnt_from == 96
    deliver(gallery, live, [later(rows[30], by=SECOND, seq=900, crops=9)])  # the camera sends more of it
    assert len(population) == 97 and live._populations[MODEL] is population


def test_of_a_tracklet_whose_later_part_is_erased_the_rest_stays(gallery, scene, at):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    more = later(rows[5], by=5000 * SECOND, seq=900, crops=9)
    deliver(gallery, live, rows[:90])
    deliver(gallery, live, [more])
    gallery.erase(Selection(cameras=("camera0",), since_us=at + 4000 * SECOND), now_us=now_us())
    deliver(gallery, live, [rows[90]])
    name = name_of(rows[5].entry.tracklet)
    assert [one.crops for one in live._populations[MODEL]._online.sightings() if one.id == name] == [3]
    assert len(live._populations[MODEL]) == 91


def test_the_last_person_of_a_model_may_be_erased(gallery, scene, at):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:90])
    gallery.erase(Selection(since_us=at), now_us=now_us() - HOUR)
    deliver(gallery, live, rows[:3])
    assert live._populations == {} and gallery.assignments() == []
    later_on = [dataclasses.replace(row, entry=dataclasses.replace(row.entry, incarnation="e2",
                first_us=now_us(), last_us=now_us())) for row in rows[:3]]  # fmt: skip
    deliver(gallery, live, later_on)
    assert len(gallery.assignments()) == 3


def test_people_whom_an_operator_keeps_apart_stay_so_when_the_tracklets_of_the_decision_have_gone(
    gallery, scene, at, monkeypatch
):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:90])
    person = {one.track: one.person for one in gallery.assignments()}
    keep_apart(gallery, person[0], person[1], Operator(at_us=now_us(), purpose="a test"))
    deliver(gallery, live, rows[90:91])  # takes it over
    monkeypatch.setattr(module, "identify", None)
    deliver(gallery, live, rows[91:120])
    deliver(gallery, live, rows[120:175])
    gallery.expire(rows[120].entry.first_us)
    assert [{one.first[2], one.second[2]} for one in gallery.decisions()] == [{150, 151}]
    assert "camera2/e1/151" in live._populations[MODEL]._online._apart["camera2/e1/150"]


def test_who_was_merged_stays_one_when_the_tracklets_of_the_decision_have_gone(gallery, scene, at, monkeypatch):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:90])
    person = {one.track: one.person for one in gallery.assignments()}
    first = merge(gallery, [person[0], person[1]], Operator(at_us=now_us(), purpose="a test"))
    deliver(gallery, live, rows[90:175])
    given = [one for one in gallery.assignments() if one.track >= 90 and one.track % 30 < 2]
    given = [dataclasses.replace(one, person=first) for one in given]
    gallery.change_people(PeopleChange(assignments=given), revision=gallery.people_state().revision)
    gallery.set_retention_hours(2 * (now_us() - at - 800 * SECOND) / HOUR)  # half of it ago, 80 had been seen
    monkeypatch.setattr(module, "identify", lambda *_, **__: [])
    live.work()  # takes it over
    deliver(gallery, live, rows[175:176])
    gallery.expire(rows[90].entry.first_us)
    assert {one.kind for one in gallery.decisions()} == {"same"}
    joined = {track % 2 for one in gallery.decisions() for track in (one.first[2], one.second[2])}
    assert joined == {0, 1}


def test_what_another_process_has_stored_is_given_to_people_but_not_what_is_on_its_way(store, scene, monkeypatch):
    at = now_us() - 25 * 60 * SECOND
    store.accept_model(MODEL, 64, now_us=at)
    rows = scene_records(scene, at=at)
    live = LivePeople(store)
    read = count_reads(monkeypatch)

    deliver(store, live, rows[:90])
    reads = len(read)
    store.add(rows[90:95])
    compare(live)
    live.take(rows[90:95])
    compare(live)
    assert len(store.assignments()) == 95 and len(read) == reads
    more = later(rows[3], by=20 * 60 * SECOND, seq=900, crops=9)
    zeros = dataclasses.replace(rows[120], feature=np.zeros(64, np.float32))
    store.add([*rows[95:100], more, zeros])  # another process's
    for _ in range(5):
        compare(live)
    assert len(store.assignments()) == 100 and len(read) == reads + 1
    assert next(one.seq for one in store.assignments() if one.track == 3) == 900


def test_what_another_process_has_stored_late_is_found_when_it_is_its_cameras_turn(gallery, scene, at, monkeypatch):
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:60])
    read, asked = count_reads(monkeypatch), []
    tracklets = gallery.tracklets
    monkeypatch.setattr(gallery, "tracklets", lambda one, **more: asked.append(one) or tracklets(one, **more))
    gallery.add(rows[60:90])  # of camera2, an hour and a half ago
    compare(live)
    compare(live)
    assert len(gallery.assignments()) == 60 and len(asked) == 2 and not any(one.cameras for one in asked)
    live._round_at_s = 0.0
    for _ in range(4):
        compare(live)
    assert len(gallery.assignments()) == 90 and len(read) == 1
    assert {one.cameras for one in asked} >= {(), ("camera2",)}
    assert all(one.since_us >= now_us() - 16 * 60 * SECOND for one in asked if not one.cameras)


def test_what_has_expired_is_forgotten_without_a_look_at_the_others(gallery, scene, at, monkeypatch):
    now = now_us()
    live = LivePeople(gallery, clock=lambda: now)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:90])
    expire_before(gallery, rows[40].entry.first_us, now)
    monkeypatch.setattr(module, "read_tracklets", None)
    compare(live)
    assert {one.track for one in live._populations[MODEL].assignments.values()} == set(range(40, 90))


def expire_before(gallery, time_us, now):
    """The retention is so short that what was last seen before a time is deleted."""
    gallery.set_retention_hours((now - time_us) / HOUR)
    gallery.expire(time_us)


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
    live._lease.give_back()
    again = LivePeople(gallery)  # a move before it began is no news
    again.work()
    assert again._populations[MODEL].moved and caplog.text.count("camera1 are others since") == 1


def estimated_later(sightings):
    """The moments of moves, each estimated one tracklet of the camera later than it is."""
    return {
        camera: tuple(min(at_s for one, at_s in seen if one == camera and at_s > moment) for moment in found)
        for camera, found in moves(sightings).items()
        if (seen := list(zip(sightings.cameras, sightings.first_s.tolist(), strict=True)))
    }


def test_a_move_whose_moment_is_estimated_anew_is_no_other_move_but_a_later_one_is(gallery, at, caplog, monkeypatch):
    scene = make_scene(people=60, visits=3, shift=1.0)
    rows = turned(turned(scene_records(scene, at=at), "camera1", after=180), "camera1", after=360, seed=9)
    live = LivePeople(gallery)
    gallery.add(rows[:270])
    live.work()
    assert set(live._populations[MODEL].moved) == {"camera1"}
    for where in (population, moving):
        monkeypatch.setattr(where, "moves", estimated_later)
    with monkeypatch.context() as patch:
        patch.setattr(module, "identify", None)
        deliver(gallery, live, rows[270:420])
        live._learn_anew(MODEL)
    assert live.moved == [] and "others since" not in caplog.text
    for start in range(420, 480, 10):
        deliver(gallery, live, rows[start : start + 10])
    assert len(live.moved) == 1 and caplog.text.count("camera1 are others since") == 1


def test_all_are_compared_again_when_as_many_have_come_as_there_were_though_others_have_gone(
    gallery, scene, at, monkeypatch
):
    now = now_us()
    live = LivePeople(gallery, clock=lambda: now)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:60])
    compared = []
    monkeypatch.setattr(
        module, "identify", lambda *each, **more: compared.append(more["again"]) or identify(*each, **more)
    )
    expire_before(gallery, rows[40].entry.first_us, now)
    compare(live)
    deliver(gallery, live, rows[60:119])
    assert compared == []
    deliver(gallery, live, rows[119:120])
    assert compared == [True] and live._populations[MODEL].learnt_from == 80


def test_of_more_than_are_compared_together_what_they_have_in_common_is_learnt_again(gallery, scene, at, monkeypatch):
    monkeypatch.setattr(module, "MOST_TOGETHER", 50)
    live = LivePeople(gallery)
    rows = scene_records(scene, at=at)
    deliver(gallery, live, rows[:60])
    monkeypatch.setattr(module, "identify", None)
    deliver(gallery, live, rows[60:90])
    assert live._populations[MODEL].learnt_from == 60
    deliver(gallery, live, rows[90:120])
    assert live._populations[MODEL].learnt_from == 120
    deliver(gallery, live, rows[120:180])
    assert live._populations[MODEL].learnt_from == 180 and errors(gallery, scene)[0] == 0


def test_a_camera_that_is_added_gets_a_mean_of_its_own(gallery, at, monkeypatch):
    live = LivePeople(gallery)
    rows = scene_records(make_scene(people=45, shift=1.0), at=at)
    deliver(gallery, live, rows[:90])
    monkeypatch.setattr(module, "identify", None)
    deliver(gallery, live, rows[90:129])
    before = live._populations[MODEL]
    assert before.learnt_from == 90 and "camera2" not in before._online._centring.cameras
    deliver(gallery, live, rows[129:131])
    now = live._populations[MODEL]
    assert now.learnt_from == 131 and now._online._centring.cameras["camera2"].weight > 0.5
    assert {name: one.person for name, one in now.assignments.items()} == {
        name: one.person for name, one in before.assignments.items()
    }
    deliver(gallery, live, rows[131:])
    assert live._populations[MODEL] is now


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


def test_a_second_process_stands_back_until_the_first_has_ended_or_is_gone(store, scene, at, caplog):
    store.accept_model(MODEL, 64, now_us=at)
    now = [now_us()]
    first, second = (LivePeople(store, clock=lambda: now[0]) for _ in range(2))
    rows = scene_records(scene, at=at)
    deliver(store, first, rows[:30])
    revision, lines = store.people_state().revision, len(store.audit_entries(1000))
    store.add(rows[30:60])
    second.take(rows[30:60])
    second.work_or_log()
    assert "expected one 'serve --people' for this gallery, and process" in second.trouble
    assert (store.people_state().revision, len(store.audit_entries(1000))) == (revision, lines)
    with first.running():
        pass
    second.work_or_log()
    assert second.trouble == "" and len(store.assignments()) == 60
    first.work_or_log()
    assert first.trouble
    now[0] += 61 * SECOND  # the second was killed
    first.work_or_log()
    assert first.trouble == ""
    second._lease._renew_at_s = 0.0  # it was only suspended
    second.work_or_log()
    assert second.trouble
