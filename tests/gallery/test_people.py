import contextlib
import dataclasses
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reid_edge.errors import ContradictionError, NoSuchPersonError, PeopleChangedError, StoreError, UsageError
from reid_edge.gallery import people as people_module
from reid_edge.gallery import people_decisions as module
from reid_edge.gallery.calibrating import calibrate, keep
from reid_edge.gallery.comparison import kept_comparison
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.held_tracklets import read_model_tracklets
from reid_edge.gallery.labelled_pairs import LabelledPair
from reid_edge.gallery.people import identify
from reid_edge.gallery.people_decisions import Operator
from reid_edge.gallery.people_views import follow_events, journey, list_people
from reid_edge.gallery.search import find_one
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.people import Decision, PeopleChange
from reid_edge.gallery.times import now_us
from reid_edge.identity.sureness import sure_at_once
from reid_edge.identity.transit import StatedTransits
from tests.gallery.crowds import crowd
from tests.gallery.crowds import filled as crowded
from tests.gallery.people_scenes import errors, filled, later, scene_records, turned
from tests.gallery.stores import HOUR, MODEL, NOON, OTHER_MODEL, SECOND
from tests.identity.scenes import make_scene

WHY = {"purpose": "a test"}


@pytest.fixture
def at():
    return now_us() - 2 * HOUR


@pytest.fixture
def gallery(sqlite_store):
    return sqlite_store


def one(results):
    (only,) = results
    return only


def test_features_of_zeros_have_no_person_and_stop_nobody_elses(gallery):
    rows = crowd(observations=2)[0]
    first = rows[0].entry.tracklet
    crowded(gallery, [replace(row, feature=0 * row.feature) if row.entry.tracklet == first else row for row in rows])
    assert one(identify(gallery, now_us=NOON + HOUR)).tracklets == len(rows) / 2 - 1
    assert len(read_model_tracklets(gallery)[MODEL].keys) == len(rows) / 2 - 1


def test_all_tracklets_are_compared_together_first_and_everybody_is_found(gallery, at):
    scene, _ = filled(gallery, at=at)
    done = one(identify(gallery, now_us=now_us()))
    assert errors(gallery, scene) == (0, 0)
    assert (done.way, done.tracklets, done.people, done.assigned, done.events) == (
        "together", 90, 30, 90, {"new": 30, "seen again": 60},
    )  # fmt: skip
    rows = gallery.assignments()
    assert {row.person for row in rows} == set(range(1, 31)) and gallery.people_state().next_person == 31
    assert {row.how for row in rows} == {"assigned"} and min(row.similarity for row in rows) > 2.25
    assert len({row.centring for row in rows}) == 1 and {row.calibration for row in rows} == {""}
    assert [line.action for line in gallery.audit_entries(9)] == ["identify"]
    again = one(identify(gallery, now_us=now_us()))
    assert (again.way, again.looked_at, again.events) == ("nothing new", 0, {})
    assert gallery.assignments() == rows and gallery.people_state().revision == 1


def test_new_tracklets_are_assigned_one_at_a_time_and_the_others_stay_as_they_are(gallery, at):
    scene = make_scene(people=30, visits=2, shift=1.0)
    rows = scene_records(scene, at=at)
    gallery.accept_model(rows[0].entry.model_hash, 64, now_us=at)
    gallery.add(rows[:90])
    identify(gallery, now_us=now_us())
    before = gallery.assignments()
    gallery.add(rows[90:])
    done = one(identify(gallery, now_us=now_us()))
    assert (done.way, done.looked_at, done.people, done.events) == ("one at a time", 90, 30, {"seen again": 90})
    assert errors(gallery, scene) == (0, 0)
    after = gallery.assignments()
    assert [row for row in after if row.track < 90] == before and len(after) == 180
    assert min(row.similarity for row in after if row.track >= 90) >= 3.25


def test_many_tracklets_of_whom_no_two_share_a_person_are_not_all_compared_again_each_time(gallery, at, monkeypatch):
    rows = scene_records(make_scene(people=60, visits=2, cameras=1), at=at)
    gallery.accept_model(rows[0].entry.model_hash, 64, now_us=at)
    gallery.add(rows[:50])
    monkeypatch.setattr(people_module, "MOST_TOGETHER", 50)
    monkeypatch.setattr(people_module, "MOST_AT_FIRST", 60)
    assert one(identify(gallery, now_us=now_us())).way == "together"
    gallery.add(rows[50:60])
    done = one(identify(gallery, now_us=now_us()))
    assert (done.way, done.looked_at, done.people) == ("one at a time", 10, 60)
    assert one(identify(gallery, now_us=now_us(), again=True)).way == "together"


@pytest.mark.parametrize(("most", "way"), [(60, "together"), (59, "one at a time")])
def test_the_first_time_more_are_compared_together_but_not_any_number(gallery, at, monkeypatch, most, way):
    monkeypatch.setattr(people_module, "MOST_TOGETHER", 20)
    monkeypatch.setattr(people_module, "MOST_AT_FIRST", most)
    scene, _ = filled(gallery, at=at, people=20)
    done = one(identify(gallery, now_us=now_us()))
    assert done.way == way and len(gallery.assignments()) == 60 and errors(gallery, scene) == (0, 0)


def test_people_keep_their_numbers_when_all_are_compared_again(gallery, at):
    scene, _ = filled(gallery, at=at)
    identify(gallery, now_us=now_us())
    people = {row.tracklet: row.person for row in gallery.assignments()}
    apart = gallery.assignments(3)
    wrong = [dataclasses.replace(apart[0], person=40), dataclasses.replace(gallery.assignments(5)[0], person=6)]
    gallery.change_people(PeopleChange(assignments=wrong, next_person=41), revision=1)
    done = one(identify(gallery, now_us=now_us(), again=True))
    assert done.events == {"merged": 1, "split": 1} and errors(gallery, scene) == (0, 0)
    assert {row.tracklet: row.person for row in gallery.assignments()} == people
    events = {event.kind: event for event in gallery.person_events(limit=1000)}
    assert (events["merged"].person, events["merged"].other) == (3, 40)
    assert (events["split"].person, events["split"].other) == (5, 6)


def test_more_of_a_tracklet_is_taken_over_without_an_event(gallery, at):
    scene, rows = filled(gallery, at=at)
    identify(gallery, now_us=now_us())
    events = gallery.person_events(limit=1000)
    gallery.add([later(rows[7], by=SECOND, seq=500, crops=9)])
    done = one(identify(gallery, now_us=now_us()))
    assert (done.looked_at, done.events) == (1, {}) and gallery.person_events(limit=1000) == events
    (changed,) = [row for row in gallery.assignments() if row.track == 7]
    assert (changed.seq, changed.last_us) == (500, rows[7].entry.last_us + SECOND) and errors(gallery, scene) == (0, 0)


def test_few_tracklets_are_people_of_their_own_until_there_are_enough_to_compare(gallery, at):
    scene = make_scene(people=30, shift=1.0)
    rows = scene_records(scene, at=at)
    gallery.accept_model(rows[0].entry.model_hash, 64, now_us=at)
    gallery.add(rows[:1])
    done = one(identify(gallery, now_us=now_us()))
    assert (done.people, done.alone, done.events) == (1, 1, {"new": 1})
    gallery.add(rows[:10])
    assert one(identify(gallery, now_us=now_us())).unsure == 10
    gallery.add(rows)
    done = one(identify(gallery, now_us=now_us()))
    assert done.way == "together" and errors(gallery, scene) == (0, 0)
    numbers = {row.track: row.person for row in gallery.assignments()}
    assert [numbers[track] for track in range(10)] == list(range(1, 11))


def test_an_empty_gallery_and_one_camera_are_no_errors(gallery, at):
    assert identify(gallery, now_us=now_us()) == []
    scene, _ = filled(gallery, at=at, cameras=1, visits=3, shift=0.0)
    identify(gallery, now_us=now_us())
    assert errors(gallery, scene) == (0, 0)


def test_all_tracklets_of_one_person_are_joined_to_no_stranger_since_there_is_none(gallery, at):
    filled(gallery, at=at, people=1, visits=10)
    done = one(identify(gallery, now_us=now_us()))
    assert done.tracklets == 30 and done.people >= 1


def test_people_of_two_models_are_different_people(gallery, at):
    scene, _ = filled(gallery, at=at)
    other = scene_records(make_scene(people=30, shift=1.0), at=at, model=OTHER_MODEL, start=1000)
    entries = [dataclasses.replace(row.entry, track=row.entry.track + 1000) for row in other]
    gallery.accept_model(OTHER_MODEL, 64, now_us=at)
    gallery.add([dataclasses.replace(row, entry=entry) for row, entry in zip(other, entries, strict=True)])
    first, second = identify(gallery, now_us=now_us())
    assert {first.people, second.people} == {30} and errors(gallery, scene) == (0, 0)
    models = {row.person: set() for row in gallery.assignments()}
    for row in gallery.assignments():
        models[row.person].add(row.model_hash)
    assert len(models) == 60 and all(len(of_one) == 1 for of_one in models.values())


def test_what_two_identify_at_once_is_assigned_once(gallery, at, tmp_path):
    scene, _ = filled(gallery, at=at)
    others = [open_store(gallery.name) for _ in range(3)]
    failures = []

    def work(store):
        try:
            identify(store, now_us=now_us())
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(store,)) for store in (gallery, *others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in others:
        store.close()
    assert failures == [] and errors(gallery, scene) == (0, 0)
    assert len(gallery.person_events(limit=1000)) == 90 and gallery.people_state().revision == 1


def test_a_gallery_whose_people_always_change_meanwhile_is_left_as_it_is(gallery, at, monkeypatch):
    filled(gallery, at=at)
    attempts = []

    def changed(*_, **__):
        attempts.append(1)
        raise PeopleChangedError("others")

    monkeypatch.setattr(gallery, "change_people", changed)
    with pytest.raises(PeopleChangedError):
        identify(gallery, now_us=now_us())
    assert len(attempts) == module.ATTEMPTS and gallery.assignments() == []


def test_what_is_interrupted_is_not_assigned_by_half(gallery, at, monkeypatch):
    scene, _ = filled(gallery, at=at)
    monkeypatch.setattr(type(gallery), "_add_event", lambda _self: "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(StoreError):
        identify(gallery, now_us=now_us())
    assert gallery.assignments() == [] and gallery.people_state().revision == 0
    monkeypatch.undo()
    identify(gallery, now_us=now_us())
    assert errors(gallery, scene) == (0, 0)


def test_what_an_operator_has_said_is_respected_and_contradictions_are_refused(gallery, at):
    _, rows = filled(gallery, at=at)
    keys = [row.entry.tracklet for row in rows]  # row, row + 30 and row + 60 are of one person
    said = [
        Decision(kind="same", first=keys[0], second=keys[31], at_us=at, by="ann"),
        Decision(kind="not same", first=keys[2], second=keys[32], at_us=at, by="ann"),
    ]
    gallery.change_people(PeopleChange(decisions=said), revision=0)
    identify(gallery, now_us=now_us())
    people = {row.tracklet: row for row in gallery.assignments()}
    assert people[keys[0]].person == people[keys[31]].person and people[keys[0]].how == "operator"
    assert people[keys[2]].person != people[keys[32]].person
    more = Decision(kind="not same", first=keys[0], second=keys[31], at_us=at + 1, by="bob")
    gallery.change_people(PeopleChange(decisions=[more]), revision=2)  # in place of the earlier one
    identify(gallery, now_us=now_us(), again=True)
    people = {row.tracklet: row.person for row in gallery.assignments()}
    assert people[keys[0]] != people[keys[31]]
    chain = [
        Decision(kind="same", first=keys[2], second=keys[3], at_us=at, by="ann"),
        Decision(kind="same", first=keys[3], second=keys[32], at_us=at, by="ann"),
    ]
    gallery.change_people(PeopleChange(decisions=chain), revision=gallery.people_state().revision)
    before = gallery.assignments()
    with pytest.raises(ContradictionError, match="said to be two people, but also one"):
        identify(gallery, now_us=now_us(), again=True)
    assert gallery.assignments() == before


def test_nobody_is_at_two_cameras_faster_than_one_gets_there(gallery, at):
    filled(gallery, at=at, people=30, cameras=2)
    slow = StatedTransits(shortest_s={("camera0", "camera1"): 10_000.0})
    done = one(identify(gallery, now_us=now_us(), transits=slow))
    assert (done.people, done.doubtful) == (60, (("camera0", "camera1"),))
    quick = StatedTransits(shortest_s={("camera0", "camera1"): 20.0})
    done = one(identify(gallery, now_us=now_us(), transits=quick, again=True))
    assert (done.people, done.doubtful) == (30, ())


def test_assignments_keep_the_version_of_the_calibration_that_there_was(gallery):
    rows, _ = crowd(observations=2, start=now_us() - 2 * HOUR)
    gallery.accept_model(rows[0].entry.model_hash, 64, now_us=now_us())
    gallery.add(rows)
    keep(gallery, calibrate(gallery, now_us=now_us(), find=gallery.find), now_us=now_us())
    version = kept_comparison(gallery, rows[0].entry.model_hash).scale.version
    identify(gallery, now_us=now_us())
    assert version and {row.calibration for row in gallery.assignments()} == {version}


@pytest.fixture
def walkers(gallery):
    """Sixty people pass three cameras; and how to label pairs of (person, camera)."""
    rows, _ = crowd(observations=2, noise=0.5, start=now_us() - 2 * HOUR)
    gallery.accept_model(rows[0].entry.model_hash, 64, now_us=now_us())
    gallery.add(rows)

    def calibrated(*pairs):
        ids = [
            [f"camera{camera}/e1/{10 * (1 + 60 * camera + person)}" for person, camera in pair[:2]] for pair in pairs
        ]
        labelled = [LabelledPair(*two, pair[2], line) for line, (two, pair) in enumerate(zip(ids, pairs, strict=True))]
        now = now_us()
        find = lambda name: find_one(gallery, name, now_us=now)  # noqa: E731
        report = calibrate(gallery, now_us=now, find=find, pairs=labelled or None)
        keep(gallery, report, now_us=now)
        return report

    return calibrated


def people_of(gallery):
    """Number of each (person, camera)."""
    return {((one.track - 1) % 60, int(one.camera[-1])): one.person for one in gallery.assignments()}


def test_people_follow_labelled_pairs_at_the_next_identify(gallery, walkers):
    first = one(identify(gallery, now_us=now_us()))
    assert (first.way, first.known) == ("together", None) and first.limit > 1.75
    before = people_of(gallery)
    assert before[3, 0] == before[3, 1] and before[10, 0] != before[30, 1]
    walkers(((10, 0), (30, 1), True), *(((who, 0), (who, 1), False) for who in (3, 4, 5)))
    done = one(identify(gallery, now_us=now_us()))
    after = people_of(gallery)
    assert done.way == "together" and after[10, 0] == after[30, 1] and after[3, 0] != after[3, 1]
    assert (done.known.one, done.known.two, done.known.two_above) == (1, 3, 3) and done.known.strangers > 3.8
    assert done.limit > first.limit + 0.2
    assert {one.how for one in gallery.assignments() if one.person == after[10, 0]} == {"operator"}
    assert one(identify(gallery, now_us=now_us())).way == "nothing new"


def test_labels_that_fit_leave_the_limit_as_it_is(gallery, walkers):
    first = one(identify(gallery, now_us=now_us()))
    walkers(*(((who, 0), (who, 1), True) for who in range(20)), ((3, 0), (4, 2), False))
    done = one(identify(gallery, now_us=now_us()))
    assert (done.known.one_above, done.known.two_above, done.limit) == (20, 0, first.limit)


def test_one_at_a_time_too_more_is_needed_where_labels_show_more_strangers(gallery, walkers):
    walkers(*(((who, 0), (who, 1), False) for who in (3, 4, 5)))
    identify(gallery, now_us=now_us())
    late, _ = crowd(people=60, noise=0.5, start=now_us() - HOUR, first_track=1000)
    gallery.add(late[:5])
    done = one(identify(gallery, now_us=now_us()))
    assert done.way == "one at a time" and done.limit == pytest.approx(sure_at_once(185, done.known.strangers))


def test_a_calibration_without_labels_keeps_what_labels_said_and_compares_nothing_again(gallery, walkers):
    walkers(*(((who, 0), (who, 1), False) for who in (3, 4, 5)))
    known = kept_comparison(gallery, MODEL).known
    report = walkers()
    assert report.decisions == () and kept_comparison(gallery, MODEL).known == known and known.two_above == 3
    identify(gallery, now_us=now_us())
    assert one(identify(gallery, now_us=now_us())).known == known


def test_labels_that_an_operator_or_through_others_a_camera_contradicts_are_refused_and_nothing_is_stored(
    gallery, walkers
):
    identify(gallery, now_us=now_us())
    numbers = people_of(gallery)
    module.merge(gallery, [numbers[10, 0], numbers[30, 1]], Operator(at_us=now_us(), **WHY))
    revision = gallery.people_state().revision
    for pairs, message in (
        ([((10, 0), (30, 1), False), ((10, 0), (10, 1), True), ((10, 1), (30, 1), True)], "two people, but also one"),
        ([((0, 0), (50, 1), True), ((1, 0), (50, 1), True)], "one camera saw both at the same time"),
    ):
        with pytest.raises(ContradictionError, match=message):
            walkers(*pairs)
    assert kept_comparison(gallery, MODEL) is None and gallery.people_state().revision == revision


def test_labels_replace_no_decision_of_the_same_pair(gallery, walkers):
    identify(gallery, now_us=now_us())
    walkers(((10, 0), (30, 1), True), ((3, 0), (3, 1), False))
    known = gallery.decisions()
    for pair, message in (
        (((10, 0), (30, 1), False), "two people, but .* one person.*'gallery split' with --withdraw"),
        (((3, 1), (3, 0), True), "one person, but .* two people.*'gallery merge' with --withdraw"),
    ):
        with pytest.raises(ContradictionError, match=message):
            walkers(pair)
    assert gallery.decisions() == known
    walkers(((30, 1), (10, 0), True))
    assert [(one.kind, {one.first, one.second}) for one in gallery.decisions()] == [
        (one.kind, {one.first, one.second}) for one in known
    ]


def test_a_camera_that_was_turned_is_named_and_its_new_view_is_compared_by_a_mean_of_its_own(gallery, at):
    scene = make_scene(people=60, visits=2, shift=1.0)
    rows = turned(scene_records(scene, at=at), "camera1", after=180)
    gallery.accept_model(MODEL, 64, now_us=at)
    gallery.add(rows[:330])
    done = one(identify(gallery, now_us=now_us()))
    first = next(row for row in rows if row.entry.track >= 180 and row.entry.camera == "camera1").entry.first_us
    assert set(done.moved) == {"camera1"} and abs(done.moved["camera1"] - first) <= 50 * SECOND
    gallery.add(rows[330:])
    done = one(identify(gallery, now_us=now_us()))
    assert done.way == "one at a time" and set(done.moved) == {"camera1"}
    assert errors(gallery, scene) == (0, 0)


def test_what_is_too_old_to_be_kept_is_given_to_nobody(gallery, at):
    filled(gallery, at=at - 100 * HOUR)
    assert identify(gallery, now_us=now_us()) == []


def test_events_of_what_is_too_old_to_be_kept_are_not_shown(gallery, at):
    filled(gallery, at=at)
    identify(gallery, now_us=now_us())
    held = sorted(gallery.assignments(), key=lambda one: one.last_us)
    moment = now_us()

    def shown(limit=1000):
        return list(follow_events(gallery, after=0, limit=limit, now_us=moment, **WHY))

    everything = shown()
    assert len(everything) == 90 and shown(limit=7) == everything[:7]
    gallery.set_retention_hours((moment - held[44].last_us - SECOND) / HOUR)
    rest = {one.tracklet for one in held[45:]}
    left = [one for one in everything if one.tracklet in rest]
    assert shown() == left and shown(limit=7) == left[:7]  # as many as were asked for


def test_a_gallery_of_an_earlier_format_gets_people(tmp_path, at):
    path = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript((Path(__file__).parent / "stored" / "v2.sql").read_text())
    with contextlib.closing(open_store(f"sqlite:{path}")) as store:
        store.set_retention_hours(8784)
        assert store.assignments() == []
        done = identify(store, now_us=store.span(Selection()).last_us)
        held = store.tracklets(Selection(), limit=100)
        assert sum(part.tracklets for part in done) == len(store.assignments()) == len(held) > 0
        store.erase(Selection(cameras=(held[0].camera,)), now_us=at)
        assert held[0].camera not in {row.camera for row in store.assignments()}


def test_people_are_listed_the_last_seen_first_and_a_journey_in_the_order_of_time(gallery, at):
    scene, rows = filled(gallery, at=at)
    identify(gallery, now_us=now_us())
    found = list_people(gallery, selection=Selection(), now_us=now_us(), **WHY)
    assert [person.last_us for person in found] == sorted((person.last_us for person in found), reverse=True)
    last = found[0]
    mine = [rows[row] for row in np.flatnonzero(scene.people == scene.people[-1])]
    assert (last.cameras, last.tracklets, last.sure) == (("camera0", "camera1", "camera2"), 3, "assigned")
    assert (last.first_us, last.last_us) == (mine[0].entry.first_us, mine[-1].entry.last_us)
    seen = journey(gallery, last.person, now_us=now_us(), **WHY)
    assert [row.tracklet for row in seen] == [row.entry.tracklet for row in mine]
    assert last.similarity == min(row.similarity for row in seen)
    assert [row.id for row in seen] == [row.entry.id for row in mine]
    assert [line.action for line in gallery.audit_entries(2)] == ["people", "person"]


def test_lists_are_narrowed_and_paged(gallery, at):
    _, rows = filled(gallery, at=at)
    gallery.erase(Selection(cameras=("camera2",), since_us=rows[75].entry.first_us), now_us=at)
    identify(gallery, now_us=now_us())

    def listed(selection=Selection(), **options):  # noqa: B008
        return list_people(gallery, selection=selection, now_us=now_us(), **WHY, **options)

    assert len(listed()) == 30 and len(listed(least_tracklets=3)) == len(listed(Selection(cameras=("camera2",)))) == 15
    early = Selection(until_us=rows[4].entry.first_us)
    assert len(listed(early)) == 5 and len(listed(Selection(since_us=rows[70].entry.first_us))) == 5
    assert listed(limit=4, skip=2) == listed()[2:6]
    for wrong in ({"limit": 0}, {"limit": 10_001}, {"skip": -1}, {"least_tracklets": 0}):
        with pytest.raises(UsageError, match="expected --limit"):
            listed(**wrong)
    with pytest.raises(NoSuchPersonError, match="has no person 99"):
        journey(gallery, 99, now_us=now_us(), **WHY)
