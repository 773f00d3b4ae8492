"""What is kept of how features compare, in every store."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest

from reid_edge.errors import InputError, StoreError
from reid_edge.gallery.backup import back_up
from reid_edge.gallery.calibrating import calibrate, comparison_for, keep
from reid_edge.gallery.comparison import forget_comparison, keep_comparison, kept_comparison
from reid_edge.gallery.deletion import erase_with_receipt
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.held_tracklets import read_model_tracklets
from reid_edge.gallery.people import identify
from reid_edge.gallery.person_erasure import erase_person
from reid_edge.gallery.restore import restore
from reid_edge.gallery.store import open_store
from reid_edge.gallery.store.documents import read_document, write_document
from reid_edge.identity.known_pairs import KnownPairs
from tests.gallery.crowds import crowd, filled
from tests.gallery.people_scenes import scene_records
from tests.gallery.stores import HOUR, MODEL, NOON, OTHER_MODEL, SECOND
from tests.identity.scenes import make_scene

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
    comparison = learn(sqlite_store).comparison
    assert sorted(comparison.scale.centring.cameras) == ["camera0", "camera1", "camera2"]
    means = [camera.mean for camera in comparison.scale.centring.cameras.values()]
    np.testing.assert_allclose(comparison.scale.centring.mean, np.mean(means, axis=0), atol=1e-6)
    assert comparison.scale.strangers.tracklets == 51 and comparison.people >= 10


def one_persons(*, visits=25, cameras=1):
    """Tracklets of one person who passes again and again, one after another, and the person's own feature."""
    scene = make_scene(people=1, cameras=cameras, visits=visits, noise=0.25)
    feature = scene.sightings.features.mean(axis=0)
    return scene_records(scene, at=NOON), feature / np.linalg.norm(feature)


@pytest.mark.parametrize("cameras", [1, 12])
def test_nothing_is_kept_of_a_gallery_that_one_person_fills(store, cameras):
    rows, _ = one_persons(cameras=cameras)
    filled(store, rows)
    comparison = comparison_for(store, MODEL, now_us=LATER)
    assert comparison.tracklets == len(rows) and not comparison.storable
    assert kept_comparison(store, MODEL) is None
    with pytest.raises(InputError, match="no camera is known to have seen ten people"):
        keep_comparison(store, comparison)


def test_no_mean_that_is_kept_resembles_the_one_person_before_a_camera_among_others(sqlite_store):
    rows, feature = one_persons()
    attic = [replace(row, entry=replace(row.entry, camera="attic")) for row in rows]
    filled(sqlite_store, [*attic, *crowd(shift=0.5)[0]])
    assert comparison_for(sqlite_store, MODEL, now_us=LATER).storable
    scale = kept_comparison(sqlite_store, MODEL).scale
    assert sorted(scale.centring.cameras) == ["camera0", "camera1", "camera2"]
    vectors = [scale.centring.mean, scale.strangers.mean, *scale.strangers.axes]
    vectors += [camera.mean for camera in scale.centring.cameras.values()]
    assert max(abs(vector @ feature) / np.linalg.norm(vector) for vector in vectors) < 0.5


def test_people_seen_together_tell_of_many_people_where_all_resemble_one_another(sqlite_store):
    rows, _ = crowd(shift=3.0)
    filled(sqlite_store, rows)
    assert comparison_for(sqlite_store, MODEL, now_us=LATER).storable
    alone, _ = crowd(shift=3.0, together=1, first_track=1000, model=OTHER_MODEL)
    filled(sqlite_store, alone)
    assert not comparison_for(sqlite_store, OTHER_MODEL, now_us=LATER).storable


def test_what_an_earlier_release_kept_of_few_people_is_removed(sqlite_store):
    rows, _ = one_persons()
    filled(sqlite_store, rows)
    many = replace(comparison_for(sqlite_store, MODEL, now_us=LATER), people=10.0)
    keep_comparison(sqlite_store, many)
    fields = read_document(sqlite_store, NAME)
    del fields["people"]
    write_document(sqlite_store, NAME, fields)
    assert comparison_for(sqlite_store, MODEL, now_us=LATER).tracklets == 25
    assert kept_comparison(sqlite_store, MODEL) is None


def test_what_was_learnt_without_a_calibration_is_removed_by_an_erasure(store):
    filled(store, crowd(shift=1.0)[0])
    assert comparison_for(store, MODEL, now_us=LATER) and kept_comparison(store, MODEL)
    erase_with_receipt(store, Selection(cameras=("camera0",)), purpose="a test", now_us=LATER)
    assert kept_comparison(store, MODEL) is None


def test_a_calibration_is_made_again_after_an_erasure_or_it_is_said_why_not(sqlite_store):
    filled(sqlite_store, crowd(shift=1.0)[0])
    report = learn(sqlite_store)
    keep(sqlite_store, report, now_us=LATER)
    left = erase_with_receipt(sqlite_store, Selection(cameras=("camera0",)), purpose="a test", now_us=LATER).leftovers
    again = kept_comparison(sqlite_store, MODEL)
    assert again.tracklets == 120 and "camera0" not in again.scale.centring.cameras and again.calibration is not None
    assert "calibration" not in left
    known = KnownPairs(limit=2.625, one=3, one_above=2, two=5, two_above=1)
    keep_comparison(sqlite_store, replace(again, known=known))
    left = erase_with_receipt(sqlite_store, Selection(cameras=("camera1",)), purpose="a test", now_us=LATER).leftovers
    assert "make it again, with its labelled pairs" in left and "--forget" in left
    assert kept_comparison(sqlite_store, MODEL).tracklets == 120


@pytest.mark.parametrize("kept_by", ["this release", "an earlier one"])
def test_a_calibration_that_leaves_out_a_cameras_old_view_leaves_it_out_after_an_erasure_too(sqlite_store, kept_by):
    filled(sqlite_store, crowd(shift=1.0, start=NOON - 24 * HOUR)[0])
    rows = crowd(shift=1.0, seed=3, first_track=1000)[0]
    sqlite_store.add(rows)
    keep(sqlite_store, learn(sqlite_store, since_us=NOON), now_us=LATER)
    if kept_by == "an earlier one":
        fields = read_document(sqlite_store, NAME)
        del fields["since_us"]
        write_document(sqlite_store, NAME, fields)
    before = kept_comparison(sqlite_store, MODEL)
    assert before.tracklets == len(rows)
    erase_with_receipt(sqlite_store, rows[0].entry.whole_tracklet, purpose="a test", now_us=LATER)
    again = kept_comparison(sqlite_store, MODEL)
    assert again.tracklets == len(rows) - 1 and again.scale.version != before.scale.version
    assert again.since_us <= before.first_us


def test_what_was_learnt_before_an_erasure_that_could_not_remove_it_is_learnt_again(sqlite_store):
    filled(sqlite_store, crowd(shift=1.0)[0])
    assert comparison_for(sqlite_store, MODEL, now_us=LATER).tracklets == 180
    sqlite_store.erase(Selection(cameras=("camera0",)), now_us=LATER + 1)
    assert kept_comparison(sqlite_store, MODEL).tracklets == 180
    assert comparison_for(sqlite_store, MODEL, now_us=LATER + 2).tracklets == 120
    assert kept_comparison(sqlite_store, MODEL).tracklets == 120


def test_a_restored_gallery_keeps_nothing_that_was_learnt_of_what_was_erased_since(sqlite_store, tmp_path):
    filled(sqlite_store, crowd(shift=1.0)[0])
    assert comparison_for(sqlite_store, MODEL, now_us=LATER).storable
    back_up(sqlite_store, tmp_path / "b.db", now_us=LATER)
    erase_with_receipt(sqlite_store, Selection(cameras=("camera0",)), purpose="a test", now_us=LATER)
    sqlite_store.close()
    uri = sqlite_store.name
    restore(tmp_path / "b.db", uri, now_us=LATER, force=True)
    with contextlib.closing(open_store(uri)) as store:
        assert store.span(Selection()).observations == 120 and kept_comparison(store, MODEL) is None


def test_what_was_learnt_goes_with_an_erased_person(sqlite_store):
    rows, _ = crowd(shift=1.0)
    filled(sqlite_store, rows)
    identify(sqlite_store, now_us=LATER)
    assert comparison_for(sqlite_store, MODEL, now_us=LATER) and kept_comparison(sqlite_store, MODEL)
    erase_person(sqlite_store, 1, purpose="a test", now_us=LATER)
    assert kept_comparison(sqlite_store, MODEL) is None


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
