import numpy as np
import pytest

from reid_edge.errors import MixedModelsError
from reid_edge.identity.centring import learnt_centring, moved_cameras
from reid_edge.identity.sightings import Sightings
from tests.identity.scenes import make_scene


def with_features(sightings: Sightings, features, **changes) -> Sightings:
    fields = {name: getattr(sightings, name) for name in ("model_hash", "ids", "cameras", "first_s", "last_s")}
    return Sightings(**{**fields, "features": features, **changes})


def rank1(features, scene):
    cosines = features @ features.T
    same_camera = np.array(scene.sightings.cameras)[:, None] == np.array(scene.sightings.cameras)
    return float((scene.people[np.where(same_camera, -2, cosines).argmax(axis=1)] == scene.people).mean())


def test_what_a_cameras_features_have_in_common_is_taken_off():
    scene = make_scene(people=60, noise=1.0, shift=2.0)
    centring = learnt_centring(scene.sightings)
    assert all(0.9 < camera.weight < 1 for camera in centring.cameras.values())
    before, after = (
        rank1(features, scene) for features in (scene.sightings.features, centring.applied(scene.sightings))
    )
    assert before < 0.5 and after > 0.9


def test_cameras_that_do_not_differ_are_hardly_moved_apart():
    centring = learnt_centring(make_scene(people=60, shift=0.0).sightings)
    assert max(camera.weight for camera in centring.cameras.values()) < 0.2


def test_the_mean_of_few_tracklets_is_shrunk_more_than_that_of_many():
    scene = make_scene(people=60, shift=1.0).sightings
    rows = [row for row, camera in enumerate(scene.cameras) if camera != "camera0"]
    few = [row for row, camera in enumerate(scene.cameras) if camera == "camera0"][:4]
    cameras = learnt_centring(scene.taken(rows + few)).cameras
    assert cameras["camera0"].weight < cameras["camera1"].weight - 0.1


def test_nothing_is_taken_off_without_evidence():
    scene = make_scene(people=4, shift=1.0).sightings
    centring = learnt_centring(scene)
    assert not centring.on and centring.version == "none"
    assert np.allclose(centring.applied(scene), scene.features, atol=1e-6)


def test_of_one_camera_only_the_mean_is_taken_off():
    scene = make_scene(people=40, cameras=1, shift=1.0).sightings
    centring = learnt_centring(scene)
    assert centring.on and centring.cameras["camera0"].weight == 0
    assert np.abs(centring.applied(scene).mean(axis=0)).max() < 0.1


def test_a_camera_that_sees_one_person_keeps_that_person():
    scene = make_scene(people=40, cameras=3, shift=0.5).sightings
    alone = make_scene(people=1, cameras=1, visits=40, noise=0.2, seed=5).sightings
    both = with_features(
        scene,
        np.concatenate([scene.features, alone.features]),
        ids=(*scene.ids, *(f"u{row}" for row in range(40))),
        cameras=(*scene.cameras, *["bedroom"] * 40),
        first_s=np.concatenate([scene.first_s, alone.first_s]),
        last_s=np.concatenate([scene.last_s, alone.last_s]),
    )
    cameras = learnt_centring(both).cameras
    assert cameras["bedroom"].people < 3 and cameras["bedroom"].weight < 0.5
    assert cameras["camera0"].people == 40


def test_the_answer_and_the_version_do_not_depend_on_the_order():
    scene = make_scene(shift=1.0).sightings
    turned = scene.taken(np.random.default_rng(1).permutation(len(scene)))
    first, second = learnt_centring(scene), learnt_centring(turned)
    assert np.array_equal(first.offset("camera1"), second.offset("camera1"))
    assert first.version == second.version


def test_another_set_of_tracklets_has_another_version():
    scene = make_scene(shift=1.0).sightings
    assert learnt_centring(scene).version != learnt_centring(scene.taken(range(80))).version


def test_a_picture_of_an_unknown_camera_loses_what_all_share():
    scene = make_scene(shift=1.0).sightings
    centring = learnt_centring(scene)
    assert np.allclose(centring.offset("elsewhere"), centring.weight * centring.mean)
    row = scene.cameras.index("camera2")
    one = centring.applied_to(scene.features[row], "camera2")
    assert np.allclose(one, centring.applied(scene)[row], atol=1e-6)


def test_a_feature_of_which_nothing_is_left_stays():
    scene = make_scene(cameras=1, people=30).sightings
    same = with_features(scene, np.repeat(scene.features[:1], len(scene), axis=0))
    assert np.allclose(np.linalg.norm(learnt_centring(same).applied(same), axis=1), 1, atol=1e-5)


def test_features_of_another_model_are_refused():
    scene = make_scene().sightings
    with pytest.raises(MixedModelsError, match=r"b{64}"):
        learnt_centring(scene).applied(with_features(scene, scene.features, model_hash="b" * 64))


def test_a_camera_that_moved_is_noticed_and_only_that_one():
    before = make_scene(people=60, shift=1.0, seed=1).sightings
    after = make_scene(people=60, shift=1.0, seed=1).sightings
    turned = after.features.copy()
    rows = np.array([camera == "camera1" for camera in after.cameras])
    turned[rows] += 0.5 * np.random.default_rng(9).normal(size=64).astype(np.float32) / 8
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    assert set(moved_cameras(learnt_centring(before), with_features(after, turned))) == {"camera1"}


def test_other_people_before_the_same_cameras_are_no_move():
    scene = make_scene(people=200, shift=1.0, seed=2)
    for seed in range(10):
        half = np.random.default_rng(seed).permutation(200) < 100
        rows = half[scene.people]
        known = learnt_centring(scene.sightings.taken(np.flatnonzero(rows)))
        assert moved_cameras(known, scene.sightings.taken(np.flatnonzero(~rows))) == {}
