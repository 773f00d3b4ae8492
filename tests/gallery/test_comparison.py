"""What is kept of how features compare, in every store."""

from dataclasses import replace

import numpy as np
import pytest

from reid_edge.errors import StoreError
from reid_edge.gallery.calibrating import calibrate, comparison_for, keep
from reid_edge.gallery.comparison import forget_comparison, kept_comparison
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.held_tracklets import read_model_tracklets
from reid_edge.gallery.store.documents import read_document, write_document
from reid_edge.identity.known_pairs import KnownPairs
from tests.gallery.crowds import crowd, filled
from tests.gallery.stores import HOUR, MODEL, NOON, OTHER_MODEL, SECOND

NAME = f"comparison/{MODEL}"
LATER = NOON + HOUR


def nobody(_name):
    raise AssertionError("no pair is labelled")


def learn(store, **options):
    return calibrate(store, now_us=LATER, find=nobody, **options)


def test_a_calibration_comes_back_from_each_store_as_it_was_kept(store):
    filled(store, crowd(shift=1.0)[0])
    report = learn(store)
    known = KnownPairs(limit=2.625, one=3, one_above=2, two=5, two_above=1)
    keep(store, replace(report, comparison=replace(report.comparison, known=known)), now_us=LATER)
    back = kept_comparison(store, MODEL)
    assert back.known == known
    assert back.scale.version == report.comparison.scale.version == back.calibration.scale_version
    assert back.scale.centring.version == report.comparison.scale.centring.version != "none"
    assert (back.made_us, back.tracklets, back.observations) == (LATER, 180, 180)
    for similarity in (-1.0, 0.0, 2.5):
        assert back.calibration.false_match(similarity) == report.calibration.false_match(similarity)
    sightings = read_model_tracklets(store)[MODEL].sightings
    pairs = np.array([[0, 1], [5, 90]])
    assert back.scale.of_pairs(sightings, pairs) == pytest.approx(report.comparison.scale.of_pairs(sightings, pairs))
    assert kept_comparison(store, OTHER_MODEL) is None
    assert store.audit_entries(1)[0].action == "calibrate"
    assert forget_comparison(store, MODEL) and kept_comparison(store, MODEL) is None


def test_tracklets_are_read_from_each_store_by_model_with_their_newest_feature_and_all_their_times(store):
    rows, _ = crowd(people=8, observations=3)
    others, _ = crowd(people=2, first_track=500, model=OTHER_MODEL)
    filled(store, [*rows, *others])
    held = read_model_tracklets(store)
    assert sorted(held) == sorted([MODEL, OTHER_MODEL]) and len(held[OTHER_MODEL].keys) == 6
    ours = held[MODEL]
    assert (len(ours.keys), ours.observations, len(ours.parts.cameras)) == (24, 72, 24)
    place = ours.keys.index(("camera0", "e1", 1))
    newest = next(row for row in rows if row.entry.seq == 12)
    np.testing.assert_allclose(ours.sightings.features[place], newest.feature, atol=1e-3)
    assert ours.sightings.first_s[place] * SECOND == pytest.approx(newest.entry.first_us)
    assert ours.sightings.last_s[place] * SECOND == pytest.approx(newest.entry.last_us)
    assert ours.sightings.boxes[place].shape == (3, 5)
    assert len(read_model_tracklets(store, since_us=NOON + 60 * SECOND)[MODEL].keys) < 24


def test_a_calibration_of_an_earlier_release_has_no_labelled_pairs_beside_the_limit(sqlite_store):
    filled(sqlite_store, crowd()[0])
    keep(sqlite_store, learn(sqlite_store), now_us=LATER)
    fields = read_document(sqlite_store, NAME)
    del fields["known"]
    write_document(sqlite_store, NAME, fields)
    assert kept_comparison(sqlite_store, MODEL).known is None


@pytest.mark.parametrize("damage", ["format", "numbers", "missing", "nonsense", "version", "known"])
def test_what_is_kept_and_damaged_is_refused_with_the_way_to_renew_it(sqlite_store, damage):
    filled(sqlite_store, crowd()[0])
    keep(sqlite_store, learn(sqlite_store), now_us=LATER)
    fields = read_document(sqlite_store, NAME)
    if damage == "format":
        fields["format"] = 99
    elif damage == "numbers":
        fields["strangers"]["mean"] = "AAAA"
    elif damage == "missing":
        del fields["centring"]
    elif damage == "known":
        fields["known"] = {"limit": 2.0, "one": 1, "one_above": 2, "two": 0, "two_above": 0}
    elif damage == "version":
        fields["strangers"]["rest"] += 1
    write_document(sqlite_store, NAME, [7] if damage == "nonsense" else fields)
    with pytest.raises(StoreError, match=r"calibration .*reid-edge gallery calibrate sqlite:"):
        kept_comparison(sqlite_store, MODEL)
    report = learn(sqlite_store)
    assert "calibration in" in report.damaged
    keep(sqlite_store, report, now_us=LATER)
    assert kept_comparison(sqlite_store, MODEL).tracklets == 180


def test_the_mean_of_a_camera_that_few_people_passed_is_not_kept(sqlite_store):
    rows, _ = crowd(people=20, shift=1.0)
    few = [replace(row, entry=replace(row.entry, camera="attic")) for row in rows[:9]]
    filled(sqlite_store, [*few, *rows[9:]])
    cameras = learn(sqlite_store).comparison.scale.centring.cameras
    assert sorted(cameras) == ["camera0", "camera1", "camera2"]


def test_without_a_calibration_centring_is_learnt_kept_and_renewed_as_the_gallery_grows(sqlite_store):
    rows, _ = crowd(shift=1.0)
    filled(sqlite_store, rows[:15])
    assert comparison_for(sqlite_store, MODEL, now_us=LATER) is None
    sqlite_store.add(rows[15:100])
    first = comparison_for(sqlite_store, MODEL, now_us=LATER)
    assert first.tracklets == 100 and first.calibration is None
    sqlite_store.add(rows[100:])
    assert comparison_for(sqlite_store, MODEL, now_us=LATER + 600 * SECOND).tracklets == 100
    assert comparison_for(sqlite_store, MODEL, now_us=LATER + 1000 * SECOND).tracklets == 180
    keep(sqlite_store, learn(sqlite_store), now_us=LATER)
    sqlite_store.erase(Selection(cameras=("camera0",)), now_us=LATER)
    assert comparison_for(sqlite_store, MODEL, now_us=LATER + 48 * HOUR).tracklets == 180
