"""Finding, erasing and accounting for it, on a real SQLite gallery."""

import dataclasses
import hashlib
import json
import sqlite3

import numpy as np
import pytest

from reid_edge.errors import ModelMismatchError, NoSuchObservationError, StoreError, UsageError
from reid_edge.gallery.deletion import erase_with_receipt, ids_sha256
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.search import MOST_TRACKLETS, find_one, query_by_feature, query_of, require_model, search
from tests.gallery.stores import DIM, HOUR, MODEL, NOON, OTHER_MODEL, SECOND, record, unit

EVERYTHING = Selection()


@pytest.fixture
def store(sqlite_store):
    sqlite_store.accept_model(MODEL, DIM, now_us=NOON)
    return sqlite_store


def near(feature, distance, seed):
    """A unit feature at about this distance from another."""
    moved = feature + distance * unit(DIM, seed=seed)
    return moved / np.linalg.norm(moved)


def tracklet(person, track, *, camera, at=NOON, seqs=range(3)):
    """Some observations of one tracklet, each longer than the one before."""
    return [
        record(
            100 * track + each, near(person, 0.3, 100 * track + each), camera=camera, track=track, at=at,
            lasts=(each + 1) * SECOND,
        )
        for each in seqs
    ]  # fmt: skip


@pytest.fixture
def two_people(store):
    """Ann at the door, in the yard and at the door again; Bob in the hall."""
    ann, bob = unit(DIM, seed=1), unit(DIM, seed=2)
    store.add(tracklet(ann, 1, camera="door"))
    store.add(tracklet(ann, 2, camera="yard", at=NOON + HOUR))
    store.add(tracklet(ann, 3, camera="door", at=NOON + 2 * HOUR))
    store.add(tracklet(bob, 4, camera="hall"))
    return ann, bob


def look_for(store, query, **options):
    options = {"selection": EVERYTHING, "purpose": "a test", "now_us": NOON + 5 * HOUR, **options}
    return search(store, query, **options)


def tracks(found):
    return [one.best.track for one in found]


def image(feature):
    return query_by_feature(feature, MODEL, image_sha256="f" * 64)


def stored(store, text):
    return query_of(find_one(store, text, now_us=NOON + 5 * HOUR))


def test_each_tracklet_is_found_once_by_its_best_observation(store, two_people):
    ann, _ = two_people
    found = look_for(store, image(ann))
    assert sorted(tracks(found)[:3]) == [1, 2, 3]
    assert tracks(found)[3] == 4
    for one in found:
        rows = [row for seq in range(3) for row in store.find(one.best.camera, "e1", 100 * one.best.track + seq)]
        cosines = {row.entry.seq: float(row.feature @ ann) for row in rows}
        assert one.best.seq == max(cosines, key=cosines.get)
        assert one.cosine == pytest.approx(max(cosines.values()), abs=1e-3)
        assert (one.first_us, one.last_us) == (rows[0].entry.first_us, rows[-1].entry.last_us)


def test_a_stored_observation_finds_the_other_tracklets_of_the_person(store, two_people):
    query = stored(store, "door/e1/101")
    assert sorted(tracks(look_for(store, query))[:2]) == [2, 3]
    assert 1 not in tracks(look_for(store, query, top=100))
    assert tracks(look_for(store, query, cameras="other"))[0] == 2
    assert set(tracks(look_for(store, query, cameras="other"))) == {2, 4}
    assert tracks(look_for(store, query, cameras="same")) == [3]
    assert tracks(look_for(store, query, selection=Selection(cameras=("yard", "hall")), top=1)) == [2]
    assert tracks(look_for(store, query, selection=Selection(since_us=NOON + 2 * HOUR))) == [3]


def test_many_observations_of_one_tracklet_do_not_crowd_out_the_others(store):
    person = unit(DIM, seed=1)
    store.add(tracklet(person, 1, camera="door", seqs=range(90)))
    store.add([record(10_000 + each, near(person, 3.0, 500 + each), track=50 + each) for each in range(5)])
    assert set(tracks(look_for(store, image(person), top=6))) == {1, 50, 51, 52, 53, 54}
    assert tracks(look_for(store, image(person), top=1)) == [1]


def test_features_of_any_length_find_the_same(store, two_people):
    ann, _ = two_people
    assert [one.cosine for one in look_for(store, image(ann * 40))] == pytest.approx(
        [one.cosine for one in look_for(store, image(ann))], abs=1e-6
    )


def test_the_part_of_the_image_and_the_choice_of_cameras_are_in_the_audit(store, two_people):
    query = query_by_feature(two_people[0], MODEL, image_sha256="f" * 64, box=[1, 2.5, 30, 40])
    look_for(store, query)
    look_for(store, stored(store, "door/e1/101"), cameras="other")
    first, second = store.audit_entries(2)
    assert first.detail["query"]["box"] == [1.0, 2.5, 30.0, 40.0]
    assert second.detail["cameras"] == "other"


def test_what_the_retention_says_is_gone_is_not_shown_though_it_is_not_deleted_yet(store, two_people):
    ann, _ = two_people
    now_us = NOON + 72 * HOUR + HOUR + 2 * SECOND  # ann's second tracklet was last seen 72 hours ago, to the second
    assert sorted(tracks(look_for(store, image(ann), now_us=now_us))) == [2, 3]
    assert sorted(tracks(look_for(store, image(ann), now_us=now_us, selection=Selection(until_us=now_us)))) == [2, 3]
    second = store.find("yard", "e1", 200)[0].entry
    assert look_for(store, image(ann), now_us=now_us, top=2)[0].last_us > now_us - 72 * HOUR
    assert second.last_us < now_us - 72 * HOUR
    with pytest.raises(NoSuchObservationError, match="has expired"):
        find_one(store, "yard/e1/200", now_us=now_us)
    assert find_one(store, "yard/e1/201", now_us=now_us).entry.seq == 201
    assert store.span(EVERYTHING).observations == 12


def test_a_gallery_without_that_model_is_not_searched(store, two_people):
    query = dataclasses.replace(image(two_people[0]), model_hash=OTHER_MODEL)
    with pytest.raises(ModelMismatchError, match=f"{OTHER_MODEL}.*{MODEL}"):
        look_for(store, query)
    with pytest.raises(ModelMismatchError):
        require_model(store, OTHER_MODEL)
    require_model(store, MODEL)


def test_an_empty_gallery_says_so(sqlite_store):
    with pytest.raises(ModelMismatchError, match="it holds none yet"):
        require_model(sqlite_store, MODEL)


@pytest.mark.parametrize("text", ["", "door", "door/e1", "door/e1/x", "door/e1/-1", "/e1/1", "door//1", "a/b/c/1"])
def test_what_is_no_id_is_answered_with_what_is(store, text):
    with pytest.raises(UsageError, match="camera/epoch/number"):
        find_one(store, text, now_us=NOON + 5 * HOUR)


def test_ids_that_nothing_has_and_that_two_have(store):
    store.add([record(1, incarnation="abc1"), record(1, incarnation="abd1")])
    with pytest.raises(NoSuchObservationError, match="door/ab/2"):
        find_one(store, "door/ab/2", now_us=NOON)
    with pytest.raises(UsageError, match="door/abc1/1, door/abd1/1"):
        find_one(store, "door/ab/1", now_us=NOON)
    assert find_one(store, " door/abd/1\n", now_us=NOON).entry.id == "door/abd1/1"


def test_a_search_needs_a_purpose_and_a_sensible_number(store, two_people):
    for purpose in ("", "  \n", "x" * 501):
        with pytest.raises(UsageError, match="--purpose"):
            look_for(store, image(two_people[0]), purpose=purpose)
    for top in (0, -1, MOST_TRACKLETS + 1):
        with pytest.raises(UsageError, match="1 to 200"):
            look_for(store, image(two_people[0]), top=top)
    with pytest.raises(UsageError, match="an image has no camera"):
        look_for(store, image(two_people[0]), cameras="other")
    with pytest.raises(UsageError, match="not among"):
        look_for(store, stored(store, "door/e1/101"), cameras="same", selection=Selection(cameras=("yard",)))


def test_every_search_is_in_the_audit_with_its_answer_and_without_the_feature(store, two_people, tmp_path):
    found = look_for(store, image(two_people[0]), purpose="lost  child\n17", top=2, selection=Selection(since_us=NOON))
    look_for(store, stored(store, "door/e1/101"), selection=Selection(cameras=("nowhere",)))
    first, second = store.audit_entries(10)
    assert (first.action, first.purpose, first.at_us) == ("search", "lost child 17", NOON + 5 * HOUR)
    assert first.user
    assert first.detail == {
        "query": {"image_sha256": "f" * 64, "box": None},
        "model_hash": MODEL,
        "selection": {"since_us": NOON},
        "cameras": "all",
        "top": 2,
        "kept_since_us": NOON + 5 * HOUR - 72 * HOUR,
        "ids": [one.best.id for one in found],
    }
    assert second.detail["query"] == {"id": "door/e1/101"}
    assert second.detail["ids"] == []
    assert max(len(json.dumps(entry.detail)) for entry in (first, second)) < 500


def test_what_the_audit_cannot_take_is_not_answered(store, two_people, tmp_path):
    other = sqlite3.connect(tmp_path / "gallery.db", isolation_level=None)
    other.execute("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'the audit is full'); END")
    other.close()
    with pytest.raises(StoreError, match="the audit is full"):
        look_for(store, image(two_people[0]))
    with pytest.raises(StoreError, match="the audit is full"):
        erase_with_receipt(store, Selection(cameras=("door",)), purpose="a test", now_us=NOON)
    assert store.span(Selection(cameras=("door",))).observations == 6


def test_a_receipt_says_what_was_erased_and_can_be_checked(store, two_people):
    receipt = erase_with_receipt(
        store, Selection(cameras=("door", "yard"), until_us=NOON + HOUR), purpose="request 5", now_us=NOON + 9 * HOUR
    )
    ids = "door/e1/100\ndoor/e1/101\ndoor/e1/102\nyard/e1/200\nyard/e1/201\nyard/e1/202\n"
    assert receipt.ids_sha256 == hashlib.sha256(ids.encode()).hexdigest()
    assert (receipt.observations, receipt.cameras) == (6, {"door": 3, "yard": 3})
    assert (receipt.at_us, receipt.purpose, receipt.leftovers) == (NOON + 9 * HOUR, "request 5", "none")
    assert receipt.asked == {"cameras": ("door", "yard"), "until_us": NOON + HOUR}
    asked, done = store.audit_entries(10)
    assert (asked.action, done.action) == ("erase asked", "erase")
    assert done.detail == json.loads(json.dumps(dataclasses.asdict(receipt)))
    assert store.span(EVERYTHING).observations == 6


def test_erasing_nothing_has_a_receipt_too(store):
    receipt = erase_with_receipt(store, Selection(cameras=("nowhere",)), purpose="request 6", now_us=NOON)
    assert (receipt.observations, receipt.ids_sha256) == (0, ids_sha256(()))


def test_erasing_needs_a_purpose_and_something_to_erase(store, two_people):
    with pytest.raises(UsageError, match="--until now"):
        erase_with_receipt(store, EVERYTHING, purpose="request", now_us=NOON)
    with pytest.raises(UsageError, match="--purpose"):
        erase_with_receipt(store, Selection(track=1), purpose="", now_us=NOON)
    assert store.span(EVERYTHING).observations == 12
    assert store.audit_entries(5) == []
