from dataclasses import replace

import numpy as np
import pytest

from reid_edge.features import l2_normalised
from reid_edge.identity.centring import learnt_centring
from reid_edge.identity.clustering import clustered
from reid_edge.identity.moves import centring_by_view, moves
from reid_edge.identity.sightings import Sightings
from tests.identity.scenes import MODEL, agreement, make_scene


def seen(before=60, after=60, *, turned=0.5, dim=64, seed=0, same=0.0):
    """Tracklets of one camera, which is turned after some; ``same``: the last ones are mostly of one person."""
    generator = np.random.default_rng(seed)
    people = l2_normalised(generator.normal(size=(before + after, dim)))
    people[before:] = same * people[-1] + (1 - same) * people[before:]
    features = people + 0.5 * l2_normalised(generator.normal(size=(1, dim)))
    features[before:] += turned * l2_normalised(generator.normal(size=(1, dim)))
    return sightings_of(features)


def sightings_of(features, camera="door"):
    count = len(features)
    return Sightings(
        model_hash=MODEL,
        ids=tuple(f"{camera}{row:04d}" for row in np.random.default_rng(1).permutation(count)),
        cameras=(camera,) * count,
        first_s=np.arange(count) * 10.0,
        last_s=np.arange(count) * 10.0 + 5,
        features=l2_normalised(features).astype(np.float32),
    )


@pytest.mark.parametrize(("before", "after"), [(60, 60), (200, 25), (25, 200), (3000, 60), (21_015, 9_985)])
def test_a_camera_that_was_turned_is_found_with_the_time(before, after):
    (moment,) = moves(seen(before, after))["door"]
    assert abs(moment - 10 * before) <= 60


def test_a_camera_that_was_turned_twice_has_two_times():
    features = seen(160, 0, turned=0).features.astype(np.float64)
    offsets = 0.6 * l2_normalised(np.random.default_rng(5).normal(size=(2, 64)))
    features[60:110] += offsets[0]
    features[110:] += offsets[1]
    first, second = moves(sightings_of(features))["door"]
    assert abs(first - 600) <= 30 and abs(second - 1100) <= 30


def test_a_camera_that_stays_has_none():
    assert [moves(seen(60, 60, turned=0, seed=seed)) for seed in range(50)] == [{}] * 50


def test_fewer_than_twenty_tracklets_on_either_side_tell_nothing():
    assert moves(seen(20, 19)) == {} and moves(seen(20, 20)) == {"door": (200.0,)}


def test_one_person_again_and_again_is_no_move():
    assert moves(seen(100, 40, turned=0, same=0.9)) == {}


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-4])
def test_features_that_are_all_the_same_are_no_move(noise):
    generator = np.random.default_rng(2)
    features = l2_normalised(generator.normal(size=(1, 64))) + noise * generator.normal(size=(400, 64))
    assert moves(sightings_of(features)) == {}


def test_tracklets_of_one_moment_have_no_before():
    one = seen()
    assert moves(replace(one, first_s=np.zeros(120), last_s=np.ones(120))) == {}


def test_the_times_do_not_depend_on_the_order():
    one = seen()
    assert moves(one.taken(np.random.default_rng(3).permutation(120))) == moves(one)


def moved_scene():
    """People pass three cameras twice; the second camera is turned in between."""
    scene = make_scene(people=60, visits=2, shift=1.0)
    sightings = scene.sightings
    late = (sightings.camera_numbers == 1) & (sightings.first_s >= sightings.first_s[180])
    turned = sightings.features + 0.6 * late[:, None] * l2_normalised(np.random.default_rng(8).normal(size=(1, 64)))
    return replace(scene, sightings=replace(sightings, features=l2_normalised(turned).astype(np.float32))), late


def test_what_a_turned_camera_sees_is_centred_by_the_mean_of_its_view():
    scene, late = moved_scene()
    by_view, by_camera = centring_by_view(scene.sightings), learnt_centring(scene.sightings)
    assert set(by_view.moves) == {"camera1"} and set(by_view.cameras) - set(by_camera.cameras) == {"camera1/1"}
    assert by_view.version != by_camera.version

    def cosine_of_early_and_late(centring):
        features = centring.applied(scene.sightings)
        early = (scene.sightings.camera_numbers == 1) & ~late
        return np.mean([
            features[early & (scene.people == who)].mean(axis=0) @ features[late & (scene.people == who)].mean(axis=0)
            for who in range(60)
        ])  # fmt: skip

    assert cosine_of_early_and_late(by_view) > cosine_of_early_and_late(by_camera) + 0.1
    assert agreement(clustered(scene.sightings).people, scene.people) == (0, 0)


def test_one_feature_is_centred_by_the_view_of_its_time_and_without_one_by_the_newest():
    scene, _ = moved_scene()
    sightings, centring = scene.sightings, centring_by_view(scene.sightings)
    centred = centring.applied(sightings)
    for row in (60, 65, 240, 245):
        feature, at_s = sightings.features[row], float(sightings.first_s[row])
        np.testing.assert_allclose(centring.applied_to(feature, sightings.cameras[row], at_s), centred[row], atol=1e-6)
    (at_s,) = centring.moves["camera1"]
    assert centring.view("camera1", at_s - 1) == "camera1" and centring.view("camera1", at_s) == "camera1/1"
    assert centring.view("camera1") == "camera1/1" and centring.view("camera0") == "camera0"
