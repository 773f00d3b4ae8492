"""Features of an old model, found with a new one."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from reid_edge.errors import MigrationRejected, ModelMismatchError, PairsError, StoreError
from reid_edge.features import l2_normalised
from reid_edge.gallery.entries import Selection
from reid_edge.gallery.migration import judged, migrate, read_migration, remove_migration
from reid_edge.gallery.pairs_file import read_pairs, write_pairs
from reid_edge.gallery.search import query_by_feature, search
from reid_edge.gallery.store.documents import read_document, write_document
from tests.camera.bundles import renamed_bundle
from tests.camera.street import write_street
from tests.commands import failure, success
from tests.gallery.stores import MODEL, NOON, OTHER_MODEL, record, unit
from tests.identity.test_migration import pairs_of, rotation

#: Numbers in a feature: few, so that maps are learnt quickly.
DIM = 64
MODELS = {"old_hash": MODEL, "new_hash": OTHER_MODEL}


@pytest.fixture(scope="module")
def pairs():
    """The new model sees what the old one sees, without the old one's noise."""
    exact = pairs_of(300, 3, dim=DIM, noise=0, **MODELS)
    noise = 0.05 * np.random.default_rng(7).normal(size=exact.old.shape)
    return dataclasses.replace(exact, old=l2_normalised(exact.old + noise).astype(np.float32))


@pytest.fixture
def both(store):
    """A gallery of each engine that takes both models."""
    for model in (MODEL, OTHER_MODEL):
        store.accept_model(model, DIM, now_us=NOON)
    return store


@pytest.fixture
def local(sqlite_store):
    for model in (MODEL, OTHER_MODEL):
        sqlite_store.accept_model(model, DIM, now_us=NOON)
    return sqlite_store


def look_for(store, feature, model):
    query = query_by_feature(feature, model, image_sha256="f" * 64)
    return search(store, query, selection=Selection(), purpose="a test", now_us=NOON, top=3)


def test_a_search_finds_what_the_other_model_has_stored_and_says_so(both, pairs):
    store = both
    ann, bob = unit(DIM, seed=1), unit(DIM, seed=2)
    store.add([record(1, ann), record(2, bob), record(3, ann @ rotation(DIM), model=OTHER_MODEL)])
    before = look_for(store, ann @ rotation(DIM), OTHER_MODEL)
    assert [(one.best.seq, one.mapped) for one in before] == [(3, False)]
    made = migrate(store, pairs, now_us=NOON)
    assert made.quality.loss < 10
    found = look_for(store, ann @ rotation(DIM), OTHER_MODEL)
    assert [(one.best.seq, one.mapped) for one in found] == [(3, False), (1, True), (2, True)]
    assert found[1].cosine > 0.8 > 0.3 > found[2].cosine
    back = look_for(store, ann, MODEL)  # with the old bundle
    assert [(one.best.seq, one.mapped) for one in back] == [(1, False), (2, False), (3, True)]
    assert back[2].cosine == pytest.approx(found[1].cosine, abs=1e-3)
    np.testing.assert_allclose(store.find("door", "e1", 1)[0].feature, ann, atol=1e-3)  # as it was stored
    lines = store.audit_entries(3)
    assert lines[0].action == "migrate"
    assert lines[1].detail["mapped_to"] == [MODEL]


def test_a_map_goes_one_way_into_the_record_and_is_replaced_by_a_later_one(local, pairs):
    store = local
    migrate(store, pairs, now_us=NOON)
    assert read_migration(store, OTHER_MODEL, MODEL) is None
    migrate(store, pairs.take(np.arange(600)), now_us=NOON + 1)
    made = read_migration(store, MODEL, OTHER_MODEL)
    assert (made.pairs, made.made_us) == (600, NOON + 1)
    np.testing.assert_allclose(made.array @ made.array.T, np.eye(DIM), atol=1e-4)


def test_a_map_that_loses_too_much_is_refused_and_nothing_is_stored(local, pairs):
    unrelated = dataclasses.replace(pairs, old=unit(len(pairs), DIM, seed=9))
    with pytest.raises(MigrationRejected, match=r"a loss of .* at most 10 are accepted"):
        migrate(local, unrelated, now_us=NOON)
    assert read_migration(local, MODEL, OTHER_MODEL) is None
    assert not [line for line in local.audit_entries(9) if line.action == "migrate"]


def test_an_exact_map_loses_nothing_and_a_noisy_one_something(pairs):
    quality = judged(pairs)
    assert 0.3 < quality.mapped_map < quality.new_map < 1
    assert quality.old_map < quality.new_map
    assert quality.loss == pytest.approx(100 * (quality.new_map - quality.mapped_map))
    exact = judged(dataclasses.replace(pairs, new=pairs.old @ rotation(DIM)))
    assert (exact.new_map, exact.mapped_map) == pytest.approx((exact.old_map, exact.old_map), abs=1e-3)


def test_models_that_the_gallery_does_not_take_are_refused(sqlite_store, pairs):
    sqlite_store.accept_model(MODEL, DIM, now_us=NOON)
    with pytest.raises(ModelMismatchError, match="accept-model"):
        migrate(sqlite_store, pairs, now_us=NOON)
    sqlite_store.accept_model(OTHER_MODEL, 8, now_us=NOON)
    with pytest.raises(ModelMismatchError, match="have 8 numbers"):
        migrate(sqlite_store, pairs, now_us=NOON)


def test_a_damaged_map_is_left_out_with_a_warning_and_can_be_removed(local, pairs, caplog):
    local.add([record(3, unit(DIM, seed=3), model=OTHER_MODEL), record(4, unit(DIM, seed=4))])
    migrate(local, pairs, now_us=NOON)
    name = f"migration/{MODEL}/{OTHER_MODEL}"
    whole = read_document(local, name)
    for changed, message in (
        ({"dim": 7}, "is damaged"),
        ({"matrix": "A" * len(whole["matrix"])}, "is damaged"),
        ({"pairs": "many"}, "cannot be read"),
        ({"format_version": 99}, "reads up to"),
    ):
        write_document(local, name, whole | changed)
        for model, seq in ((OTHER_MODEL, 3), (MODEL, 4)):
            caplog.clear()
            assert [one.best.seq for one in look_for(local, unit(DIM, seed=1), model)] == [seq]
            assert message in caplog.text and "was not searched" in caplog.text
    with pytest.raises(StoreError, match="reads up to"):
        read_migration(local, MODEL, OTHER_MODEL)
    remove_migration(local, MODEL, OTHER_MODEL, now_us=NOON)
    assert read_document(local, name) is None


def test_a_map_of_features_of_another_size_than_came_later_is_left_out_with_a_warning(sqlite_store, pairs, caplog):
    sqlite_store.accept_model(MODEL, DIM, now_us=NOON)
    sqlite_store.accept_model(OTHER_MODEL, None, now_us=NOON)
    migrate(sqlite_store, pairs, now_us=NOON)
    sqlite_store.accept_model(OTHER_MODEL, 8, now_us=NOON)
    sqlite_store.add([record(1, unit(DIM, seed=1)), record(2, unit(8, seed=2), model=OTHER_MODEL)])
    assert [one.best.seq for one in look_for(sqlite_store, unit(DIM, seed=1), MODEL)] == [1]
    assert "of features of 64 numbers" in caplog.text and "have 8. Remove it" in caplog.text
    caplog.clear()
    assert [one.best.seq for one in look_for(sqlite_store, unit(8, seed=2), OTHER_MODEL)] == [2]
    assert "have 8. Remove it" in caplog.text


def test_a_file_of_pairs_comes_back_and_only_its_user_can_read_it(pairs, tmp_path):
    path = tmp_path / "pairs.npz"
    write_pairs(path, pairs)
    held = read_pairs(path)
    assert (held.old_hash, held.new_hash) == (MODEL, OTHER_MODEL)
    for name in ("old", "new", "groups"):
        np.testing.assert_array_equal(getattr(held, name), getattr(pairs, name))
    assert path.stat().st_mode & 0o777 == 0o600


def test_files_that_hold_no_pairs_are_refused(pairs, tmp_path):
    path = tmp_path / "pairs.npz"
    with pytest.raises(PairsError, match="cannot be read"):
        read_pairs(path)
    np.savez(path, old=np.zeros(3))
    with pytest.raises(PairsError, match="no file of pairs"):
        read_pairs(path)
    write_pairs(path, pairs)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PairsError, match="no file of pairs"):
        read_pairs(path)
    fields = {"old": pairs.old, "new": pairs.new, "groups": pairs.groups, "models": [MODEL, OTHER_MODEL]}
    for changed, message in (
        ({"format_version": 9}, "reads up to"),
        ({"format_version": 1, "old": np.array([["a"]])}, "no file of pairs"),
        ({"format_version": 1, "models": [MODEL]}, "no file of pairs"),
        ({"format_version": 1, "old": np.array([{}], object)}, "no file of pairs"),
    ):
        np.savez(path, **(fields | changed))
        with pytest.raises(PairsError, match=message):
            read_pairs(path)


def test_the_command_prints_what_the_map_loses_and_removes_it_again(local, pairs, tmp_path):
    path = tmp_path / "pairs.npz"
    write_pairs(path, pairs.take(np.r_[np.arange(len(pairs)), 0]))
    arguments = ("gallery", "migrate", local.name, "--from", MODEL, "--to", OTHER_MODEL)
    assert "--pairs FILE" in failure(*arguments)
    assert "nothing was removed" in failure(*arguments, "--remove")
    text = success(*arguments, "--pairs", path)
    assert "new model, old features mapped" in text
    assert "1 were the same crops again" in text
    shown = json.loads(success(*arguments, "--pairs", path, "--json"))
    assert shown["pairs"] == len(pairs)
    assert "matrix" not in shown
    assert "a loss of" in failure(*arguments, "--pairs", path, "--max-loss", "0")
    other = failure("gallery", "migrate", local.name, "--from", OTHER_MODEL, "--to", MODEL, "--pairs", path)
    assert "Make pairs of these two" in other
    success(*arguments, "--remove")
    assert read_migration(local, MODEL, OTHER_MODEL) is None


def test_pairs_are_made_of_folders_of_people_and_of_the_tracks_of_a_video(session_bundle, tmp_path):
    other = renamed_bundle(session_bundle, tmp_path / "other")
    hashes = [each.manifest.model_hash for each in (session_bundle, other)]
    for person in range(2):
        (tmp_path / "crops" / str(person)).mkdir(parents=True)
        for number in range(3):
            picture = np.random.default_rng(10 * person + number).integers(0, 256, (60, 30, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "crops" / str(person) / f"{number}.png"), picture)
    out, video = tmp_path / "pairs.npz", write_street(tmp_path / "street.avi")
    arguments = ("gallery", "pairs", session_bundle.path, other.path, "--out", out)
    assert "--crops FOLDER" in failure(*arguments)
    text = success(*arguments, "--crops", tmp_path / "crops", "--source", video)
    assert f"--from {hashes[0]} --to {hashes[1]}" in text
    held = read_pairs(out)
    assert [held.old_hash, held.new_hash] == hashes
    np.testing.assert_allclose(held.old, held.new, atol=1e-5)  # the same weights under another name
    counts = np.unique(held.groups, return_counts=True)[1].tolist()
    assert counts[:2] == [3, 3]
    assert len(counts) >= 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crops", "other", "pairs.npz", "street.avi"]
    assert "--force" in failure(*arguments, "--crops", tmp_path / "crops")
    (tmp_path / "crops" / "0" / "bad.png").write_bytes(b"\x89PNG")
    assert "--skip-bad" in failure(*arguments, "--crops", tmp_path / "crops", "--force")
    same = failure("gallery", "pairs", session_bundle.path, session_bundle.path, "--crops", video, "--out", "x.npz")
    assert "nothing is to be migrated" in same
    small = failure("gallery", "migrate", "sqlite:none.db", "--from", hashes[0], "--to", hashes[1], "--pairs", out)
    assert "no gallery" in small
