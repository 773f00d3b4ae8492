import dataclasses

import numpy as np
import pytest

from reid_edge.errors import (
    ContradictionError,
    MixedModelsError,
    NoSuchPersonError,
    NoSuchTrackletError,
    PeopleChangedError,
    UsageError,
)
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.people import identify
from reid_edge.gallery.people_decisions import Operator, _at_one_time, keep_apart, merge, split
from reid_edge.gallery.person_erasure import erase_person
from reid_edge.gallery.store.people import PeopleChange
from reid_edge.gallery.times import now_us
from tests.gallery.people_scenes import filled, later, scene_records
from tests.gallery.stores import HOUR, OTHER_MODEL, SECOND, record
from tests.identity.scenes import make_scene

BY = Operator(at_us=now_us(), purpose="a test")
WITHDRAWING = dataclasses.replace(BY, withdraw=True)


@pytest.fixture
def at():
    return now_us() - 2 * HOUR


@pytest.fixture
def gallery(sqlite_store, at):
    """Thirty people of three tracklets each, numbered in the order of their first sight."""
    filled(sqlite_store, at=at)
    identify(sqlite_store, now_us=now_us())
    return sqlite_store


def tracks(gallery, person):
    return sorted(one.track for one in gallery.assignments(person))


def person_at(gallery, row):
    return next(one.person for one in gallery.assignments() if one.track == row)


def last_events(gallery, count):
    return [(one.kind, one.person, one.other) for one in gallery.person_events(limit=1000)[-count:]]


def test_merged_people_are_one_whatever_is_compared_later(gallery):
    first, second, third = (person_at(gallery, row) for row in (0, 1, 2))
    assert merge(gallery, [second, first, third], BY) == second
    assert tracks(gallery, second) == [0, 1, 2, 30, 31, 32, 60, 61, 62]
    assert last_events(gallery, 2) == [("merged", second, first), ("merged", second, third)]
    moved = [one for one in gallery.assignments(second) if one.track % 30 != 1]
    assert {(one.how, one.reason) for one in moved} == {("operator", "an operator says that they are the same")}
    line = gallery.audit_entries(1)[0]
    assert (line.action, line.purpose, line.detail["people"]) == ("merge", "a test", [second, first, third])
    for again in (False, True):
        identify(gallery, now_us=now_us(), again=again)
        assert tracks(gallery, second) == [0, 1, 2, 30, 31, 32, 60, 61, 62]


def test_a_split_makes_a_new_person_who_stays_apart(gallery, at):
    person = person_at(gallery, 4)
    keys = {one.track: one.tracklet for one in gallery.assignments(person)}
    new = split(gallery, person, [keys[34], keys[64]], BY)
    assert new == 31 and tracks(gallery, person) == [4] and tracks(gallery, new) == [34, 64]
    assert last_events(gallery, 2) == [("split", 31, person)] * 2
    gallery.add(
        [later(row, by=SECOND, seq=700 + row.entry.track, crops=9) for row in stored(at) if row.entry.track % 30 == 4]
    )
    for again in (False, True):
        identify(gallery, now_us=now_us(), again=again)
        assert tracks(gallery, person_at(gallery, 4)) == [4] and tracks(gallery, person_at(gallery, 34)) == [34, 64]


def test_every_tracklet_that_is_split_off_stays_apart_however_many_there_are(sqlite_store, at):
    filled(sqlite_store, at=at, people=10, visits=9)
    identify(sqlite_store, now_us=now_us())
    person = person_at(sqlite_store, 0)
    keys = [one.tracklet for one in sqlite_store.assignments(person)]
    assert len(keys) == 27
    named, left = keys[:24], keys[24:]
    split(sqlite_store, person, named, BY)
    said = {frozenset((one.first, one.second)) for one in sqlite_store.decisions()}
    assert said == {frozenset((one, other)) for one in named for other in left}
    identify(sqlite_store, now_us=now_us(), again=True)
    people = {one.tracklet: one.person for one in sqlite_store.assignments()}
    assert not {people[key] for key in named} & {people[key] for key in left}


def stored(at):
    return scene_records(make_scene(people=30, shift=1.0), at=at)


def test_people_who_are_kept_apart_are_not_merged_until_that_is_withdrawn(gallery):
    first, second = person_at(gallery, 0), person_at(gallery, 1)
    keep_apart(gallery, first, second, BY)
    with pytest.raises(ContradictionError, match=r"are two people\. --withdraw"):
        merge(gallery, [first, second], BY)
    assert tracks(gallery, first) == [0, 30, 60]
    merge(gallery, [first, second], WITHDRAWING)
    assert tracks(gallery, first) == [0, 1, 30, 31, 60, 61]
    assert {one.kind for one in gallery.decisions()} == {"same"}
    identify(gallery, now_us=now_us(), again=True)
    assert tracks(gallery, first) == [0, 1, 30, 31, 60, 61]


def test_who_was_merged_is_split_only_if_that_is_withdrawn(gallery):
    first, second = person_at(gallery, 0), person_at(gallery, 1)
    merge(gallery, [first, second], BY)
    keys = [one.tracklet for one in gallery.assignments(first) if one.track % 30 == 1]
    before = gallery.assignments(), gallery.decisions()
    with pytest.raises(ContradictionError, match=r"are one person\. --withdraw"):
        split(gallery, first, keys, BY)
    assert (gallery.assignments(), gallery.decisions()) == before
    new = split(gallery, first, keys, WITHDRAWING)
    assert tracks(gallery, new) == [1, 31, 61] and tracks(gallery, first) == [0, 30, 60]
    identify(gallery, now_us=now_us(), again=True)
    assert tracks(gallery, new) == [1, 31, 61] and tracks(gallery, first) == [0, 30, 60]


def test_whom_a_camera_saw_at_the_same_time_cannot_be_merged_unless_it_saw_one_twice(gallery, at):
    far = record(900, np.eye(1, 64, dtype=np.float32)[0], camera="camera0", track=900, at=at, lasts=5 * SECOND)
    apart = dataclasses.replace(far, entry=dataclasses.replace(far.entry, box=(0.6, 0.25, 0.9, 0.75)))
    twice = dataclasses.replace(far, entry=dataclasses.replace(far.entry, track=901, seq=901))
    gallery.add([apart, twice])
    identify(gallery, now_us=now_us())
    first = person_at(gallery, 0)
    before = gallery.assignments()
    with pytest.raises(ContradictionError, match=r"the camera camera0 saw .* at the same time"):
        merge(gallery, [first, person_at(gallery, 900)], BY)
    assert gallery.assignments() == before
    merge(gallery, [first, person_at(gallery, 901)], BY)
    assert 901 in tracks(gallery, first)


def test_pairs_at_one_time_are_those_of_two_people_before_one_camera(gallery):
    one = gallery.assignments()[0]

    def row(track, person, start, end, camera="a"):
        return dataclasses.replace(
            one, track=track, person=person, camera=camera, first_us=start * SECOND, last_us=end * SECOND
        )

    rows = [
        row(1, 1, 0, 100), row(2, 1, 10, 20), row(3, 2, 15, 16), row(4, 2, 99, 130), row(5, 2, 100, 101),
        row(6, 2, 50, 60, camera="b"), row(7, 3, 19.75, 40),
    ]  # fmt: skip
    pairs = {(first.track, other.track) for first, other in _at_one_time(rows[::-1])}
    assert pairs == {(1, 3), (2, 3), (1, 4), (1, 7)}


def test_wrong_numbers_and_tracklets_are_refused_before_anything_changes(gallery):
    state = gallery.people_state()
    one, other = gallery.assignments(1), gallery.assignments(2)
    for wrong in ([1], [1, 1], []):
        with pytest.raises(UsageError, match="two different people"):
            merge(gallery, wrong, BY)
    with pytest.raises(NoSuchPersonError, match="has no person 77"):
        merge(gallery, [1, 77], BY)
    with pytest.raises(NoSuchTrackletError, match="not of person 1"):
        split(gallery, 1, [other[0].tracklet], BY)
    for wrong in ([], [row.tracklet for row in one]):
        with pytest.raises(UsageError, match="some, but not all"):
            split(gallery, 1, wrong, BY)
    with pytest.raises(UsageError, match="gallery split"):
        keep_apart(gallery, 1, 1, BY)
    with pytest.raises(UsageError, match="purpose"):
        keep_apart(gallery, 1, 2, dataclasses.replace(BY, purpose=" "))
    assert gallery.people_state() == state and gallery.decisions() == []


def test_people_of_two_models_cannot_be_merged(gallery, at):
    rows = scene_records(make_scene(people=30), at=at, model=OTHER_MODEL, start=1000)
    entries = [dataclasses.replace(row.entry, track=row.entry.track + 1000) for row in rows]
    gallery.accept_model(OTHER_MODEL, 64, now_us=at)
    gallery.add([dataclasses.replace(row, entry=entry) for row, entry in zip(rows, entries, strict=True)])
    identify(gallery, now_us=now_us())
    with pytest.raises(MixedModelsError):
        merge(gallery, [person_at(gallery, 0), person_at(gallery, 1000)], BY)


def test_a_decision_is_made_again_if_people_change_meanwhile(gallery, monkeypatch):
    change, failed = gallery.change_people, []

    def once_too_late(what, **options):
        if not failed:
            failed.append(1)
            raise PeopleChangedError("others were faster")
        return change(what, **options)

    monkeypatch.setattr(gallery, "change_people", once_too_late)
    merge(gallery, [1, 2], BY)
    assert failed and len(gallery.assignments(1)) == 6
    assert [line.action for line in gallery.audit_entries(2)] == ["identify", "merge"]


def test_people_stay_apart_when_the_tracklets_of_the_decision_have_gone(gallery, at):
    first, second = person_at(gallery, 0), person_at(gallery, 1)
    keep_apart(gallery, first, second, BY)
    newer = scene_records(make_scene(people=30, visits=2, shift=1.0), at=at)[90:]
    gallery.add(newer)
    identify(gallery, now_us=now_us())
    gallery.expire(newer[0].entry.first_us)
    assert [one.kind for one in gallery.decisions()] == ["not same"]
    with pytest.raises(ContradictionError, match="are two people"):
        merge(gallery, [first, second], BY)


def test_who_was_merged_stays_one_when_the_tracklets_of_the_decision_have_gone(gallery, at):
    first = merge(gallery, [person_at(gallery, 0), person_at(gallery, 1)], BY)
    newer = scene_records(make_scene(people=30, visits=2, shift=1.0), at=at)[90:]
    gallery.add(newer)
    identify(gallery, now_us=now_us())
    both = [row for row in range(90, 180) if row % 30 < 2]
    given = [dataclasses.replace(one, person=first) for one in gallery.assignments() if one.track in both]
    gallery.change_people(PeopleChange(assignments=given), revision=gallery.people_state().revision)
    gallery.set_retention_hours(2 * (now_us() - at - 800 * SECOND) / HOUR)  # half of it ago, 80 had been seen
    identify(gallery, now_us=now_us())
    gallery.expire(newer[0].entry.first_us)
    identify(gallery, now_us=now_us(), again=True)
    assert tracks(gallery, person_at(gallery, 90)) == both


def test_a_person_is_erased_with_all_that_is_known_and_the_receipt_says_what_is_not_reached(gallery, at):
    person = person_at(gallery, 3)
    merge(gallery, [person, person_at(gallery, 5)], BY)
    receipt = erase_person(gallery, person, purpose="asked for", now_us=now_us())
    assert (receipt.observations, receipt.cameras) == (6, {"camera0": 2, "camera1": 2, "camera2": 2})
    assert receipt.asked["person"] == person and len(receipt.asked["tracklets"]) == 6
    assert "given to nobody, or to somebody else, are held still" in receipt.not_promised
    assert len(receipt.erasure.split()) == len(gallery.erasures()) == 6
    assert gallery.assignments(person) == [] and gallery.decisions() == []
    gone = {one.tracklet for one in gallery.person_events(limit=1000)} & set(receipt.asked["tracklets"])
    assert not gone and gallery.span(Selection()).observations == 84
    assert gallery.add(stored(at)).erased == 6  # the camera sends them again
    identify(gallery, now_us=now_us())
    assert person not in {one.person for one in gallery.assignments()}
    with pytest.raises(NoSuchPersonError):
        erase_person(gallery, person, purpose="again", now_us=now_us())


def test_a_person_is_erased_in_one_commit_whose_rules_are_looked_up_by_tracklet(gallery, at, monkeypatch):
    commits, looked_at = [], []
    apply, covers = gallery.apply_erasures, Selection.covers
    monkeypatch.setattr(gallery, "apply_erasures", lambda rules: commits.append(len(rules)) or apply(rules))
    monkeypatch.setattr(Selection, "covers", lambda self, entry: looked_at.append(entry) or covers(self, entry))
    assert erase_person(gallery, person_at(gallery, 3), purpose="asked for", now_us=now_us()).observations == 3
    assert commits == [3]
    assert gallery.add(stored(at)).erased == 3 and len(looked_at) == 3


def test_what_comes_to_a_person_who_is_being_erased_is_erased_too(gallery, at, monkeypatch):
    person, erase = person_at(gallery, 3), gallery.apply_erasures
    newer = next(
        row for row in scene_records(make_scene(people=30, visits=2, shift=1.0), at=at) if row.entry.track == 93
    )

    def meanwhile(rules):
        monkeypatch.setattr(gallery, "apply_erasures", erase)
        gallery.add([newer])
        identify(gallery, now_us=now_us())
        return erase(rules)

    monkeypatch.setattr(gallery, "apply_erasures", meanwhile)
    receipt = erase_person(gallery, person, purpose="asked for", now_us=now_us())
    assert receipt.observations == 4 and len(receipt.asked["tracklets"]) == 4 and len(receipt.erasure.split()) == 4
    assert person not in {one.person for one in gallery.assignments()}


def test_a_number_is_never_given_to_somebody_else(gallery, at):
    for person in range(1, 31):
        erase_person(gallery, person, purpose="all of them", now_us=now_us())
    assert gallery.assignments() == []
    rows = scene_records(make_scene(people=30, visits=2, shift=1.0), at=at, start=5000)[90:]
    gallery.add([dataclasses.replace(row, entry=dataclasses.replace(row.entry, incarnation="e2")) for row in rows])
    identify(gallery, now_us=now_us())
    assert min(one.person for one in gallery.assignments()) == 31


def test_a_change_that_is_based_on_nothing_is_no_change(gallery):
    state = gallery.people_state()
    with pytest.raises(PeopleChangedError):
        gallery.change_people(PeopleChange(), revision=state.revision + 1)
    assert gallery.people_state() == state
