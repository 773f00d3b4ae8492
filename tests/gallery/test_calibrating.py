import numpy as np
import pytest

from reid_edge.errors import ContradictionError, InputError, UnsupportedRateError, UsageError
from reid_edge.gallery.calibrating import calibrate, keep
from reid_edge.gallery.held_tracklets import read_model_tracklets
from reid_edge.gallery.labelled_pairs import LabelledPair, read_pairs
from reid_edge.gallery.search import find_one
from tests.gallery.crowds import crowd, filled
from tests.gallery.stores import HOUR, MODEL, NOON, OTHER_MODEL, SECOND

LATER = NOON + HOUR


def learn(store, *, now_us=LATER, **options):
    return calibrate(store, now_us=now_us, find=lambda name: find_one(store, name, now_us=now_us), **options)


def observation(people, person, camera, *, observations=1):
    """Id of the newest observation of a person's tracklet in a crowd."""
    track = 1 + camera * people + person
    return f"camera{camera}/e1/{10 * track + observations - 1}"


def test_people_seen_together_calibrate_without_labels_and_hold_for_all_strangers(sqlite_store):
    rows, people = crowd(people=400, together=4)
    filled(sqlite_store, rows)
    report = learn(sqlite_store)
    assert report.seen_together == len(report.calibration.impostors) == 300 * 6
    assert report.calibration.genuine_from == "none"
    similarity = report.calibration.similarity_for(0.01)
    one, other = np.triu_indices(1200, 1)
    held = read_model_tracklets(sqlite_store)[MODEL]
    person = people[[key[2] - 1 for key in held.keys]]
    strangers = np.stack([one, other], axis=1)[person[one] != person[other]]
    assert 0 < (report.comparison.scale.of_pairs(held.sightings, strangers) >= similarity).mean() <= 0.01
    with pytest.raises(UnsupportedRateError, match=r"needs 36,\d\d\d independent pairs of two people, there are 1,200"):
        report.calibration.similarity_for(0.0001)


def test_parts_of_tracklets_give_misses_where_the_store_has_them(sqlite_store):
    filled(sqlite_store, crowd(observations=3)[0])
    report = learn(sqlite_store)
    assert report.calibration.genuine_from == "parts of tracklets" and len(report.calibration.genuine) == 180
    assert np.median(report.calibration.genuine) > np.quantile(report.calibration.impostors, 0.99)


def test_labelled_pairs_of_both_kinds_are_used_and_those_no_longer_held_left_out(sqlite_store):
    filled(sqlite_store, crowd()[0])
    same = [LabelledPair(observation(60, who, 0), observation(60, who, 1), True, who + 1) for who in range(30)]
    different = [LabelledPair(observation(60, 1, 0), observation(60, 2, 2), False, 31)]
    gone = [LabelledPair("camera0/e1/999999", observation(60, 2, 2), True, 32)]
    report = learn(sqlite_store, pairs=[*same, *same, *different, *gone])
    assert report.calibration.genuine_from == "labels" and len(report.calibration.genuine) == 30
    assert len(report.calibration.impostors) == report.seen_together + 1
    assert report.labelled.missing == 1


def test_labels_that_contradict_one_another_or_a_camera_are_refused(sqlite_store):
    filled(sqlite_store, crowd()[0])
    one, other, third = observation(60, 0, 0), observation(60, 1, 0), observation(60, 0, 1)
    for pairs, message in (
        ([(one, third, True), (third, one, False)], "line 2 .* two people, line 1 says the opposite"),
        ([(one, other, True)], "one camera saw both at the same time"),
        ([(one, one, False)], "both ids are of one tracklet"),
    ):
        labelled = [LabelledPair(*pair, line) for line, pair in enumerate(pairs, start=1)]
        with pytest.raises(ContradictionError, match=message):
            learn(sqlite_store, pairs=labelled)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"door/e1/1,yard/e1/2,maybe\n", "line 1: expected two ids and same or different"),
        (b"# ok\n\ndoor/e1/1,yard/e1/2\n", "line 3: expected two ids"),
        (b"door/e1/1,yard/e1/x,same\n", "line 1: expected an id of the form"),
        (b"\xff\xfe\x00bad", "expected text in UTF-8"),
        (b"door/e1/1,\0,same\n", "bytes of 0"),
        (b"# nothing\n", "expected 1 to 20,000 pairs"),
        (b"door/e1/1,yard/e1/2,same\n" * 20_001, "got 20,001"),
        (b"a" * (8 * 2**20 + 1), "at most 8 MiB"),
        (b'"door/e1/1,yard/e1/2,same\n' * 10_000, "line|larger"),
    ],
)
def test_a_hostile_file_of_pairs_is_refused_with_the_line(tmp_path, content, message):
    path = tmp_path / "pairs.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_pairs(path)


def test_a_file_of_pairs_that_is_not_there_or_a_folder_is_refused(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_pairs(path)


def test_a_file_of_pairs_may_have_comments_blanks_and_a_mark_of_its_encoding(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes("\ufeff# who\r\n door/e1/1 , yard/e1/2 , Same\r\n\r\ndoor/e1/1,hall/e1/3,different".encode())
    assert [(pair.same, pair.line) for pair in read_pairs(path)] == [(True, 2), (False, 4)]


def test_too_little_to_calibrate_by_is_said(sqlite_store):
    rows, _ = crowd(together=1)
    with pytest.raises(InputError, match="holds no tracklets yet; calibrating needs at least 20"):
        learn(sqlite_store)
    filled(sqlite_store, rows[:1])
    with pytest.raises(InputError, match=r"at least 20 tracklets .* holds 1"):
        learn(sqlite_store)
    sqlite_store.add(rows)
    with pytest.raises(InputError, match="no camera has seen two tracklets at the same time"):
        learn(sqlite_store)


def test_tracklets_of_two_models_are_never_calibrated_together(sqlite_store):
    filled(sqlite_store, crowd()[0] + crowd(first_track=500, seed=5, model=OTHER_MODEL)[0])
    with pytest.raises(UsageError, match=r"several models: .*--model HASH"):
        learn(sqlite_store)
    assert learn(sqlite_store, model_hash=OTHER_MODEL[:6]).calibration.model_hash == OTHER_MODEL
    with pytest.raises(InputError, match="no tracklets of the model 99"):
        learn(sqlite_store, model_hash="99")


def test_one_camera_and_one_person_seen_again_and_again_take_no_harm(sqlite_store):
    again = [crowd(people=1, together=1, first_track=3 * visit + 1)[0] for visit in range(20)]
    filled(sqlite_store, [row for visit in again for row in visit])
    with pytest.raises(InputError, match="no camera has seen two tracklets"):
        learn(sqlite_store)


def test_a_camera_that_was_moved_since_the_last_calibration_is_named(sqlite_store):
    filled(sqlite_store, crowd(people=40, shift=0.7)[0])
    keep(sqlite_store, learn(sqlite_store), now_us=LATER)
    sqlite_store.add(crowd(people=40, shift=0.7, first_track=300, start=LATER + SECOND)[0])
    assert learn(sqlite_store, now_us=LATER + HOUR).moved == {}
    moved, _ = crowd(people=40, shift=0.7, first_track=600, start=LATER + HOUR, seed=9)
    sqlite_store.add([row for row in moved if row.entry.camera == "camera1"])
    assert list(learn(sqlite_store, now_us=LATER + 3 * HOUR).moved) == ["camera1"]
    since = learn(sqlite_store, now_us=LATER + 3 * HOUR, since_us=LATER + HOUR)
    assert since.comparison.tracklets == 40
