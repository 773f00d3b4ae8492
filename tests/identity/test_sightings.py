import numpy as np
import pytest

from reid_edge.errors import ContradictionError, InputError, MixedModelsError
from reid_edge.identity.sightings import Sighting, gathered
from tests.identity.scenes import MODEL, make_scene, simple, unit


def sighting(**fields):
    usual = {"id": "a", "camera": "door", "model_hash": MODEL, "first_s": 1.0, "last_s": 2.0, "feature": unit(1, 0)}
    return Sighting(**{**usual, **fields})


def test_the_features_of_a_tracklet_become_one_sighting_with_the_feature_of_most_crops():
    early = sighting(first_s=1.0, last_s=3.0, crops=2, boxes=np.array([[1.0, 0, 0, 0.5, 0.5]]))
    final = sighting(first_s=1.5, last_s=9.0, crops=7, feature=unit(0, 1), boxes=np.array([[8.0, 0, 0, 0.5, 0.5]]))
    other = sighting(id="b", camera="hall")
    joined = gathered([final, other, early])
    assert joined.ids == ("a", "b") and joined.cameras == ("door", "hall")
    assert (joined.first_s[0], joined.last_s[0]) == (1.0, 9.0)
    assert np.array_equal(joined.features[0], unit(0, 1))
    assert joined.boxes[0][:, 0].tolist() == [1.0, 8.0] and len(joined.boxes[1]) == 0


def test_the_same_feature_twice_changes_nothing():
    once, twice = (gathered([sighting(crops=3)] * times) for times in (1, 2))
    assert once.ids == twice.ids and np.array_equal(once.features, twice.features)


def test_features_of_two_models_are_refused_and_both_are_named():
    with pytest.raises(MixedModelsError, match=r"a{64}, b{64}"):
        gathered([sighting(), sighting(id="b", model_hash="b" * 64)])


def test_a_tracklet_of_two_cameras_is_refused():
    with pytest.raises(ContradictionError, match="door and hall"):
        gathered([sighting(), sighting(camera="hall")])


def test_no_sighting_at_all_is_refused():
    with pytest.raises(InputError, match="at least one"):
        gathered([])


@pytest.mark.parametrize(
    ("feature", "times", "problem"),
    [
        (unit(1, 0) * 2, (0, 1), "unit length"),
        (np.array([np.nan, 0], np.float32), (0, 1), "unit length"),
        (unit(1, 0), (2, 1), "ends before it begins"),
        (unit(1, 0), (0, np.inf), "finite times"),
    ],
)
def test_values_that_cannot_be_are_refused(feature, times, problem):
    with pytest.raises(InputError, match=problem):
        simple(feature, cameras="d", times=[times])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="expected 1 cameras"):
        simple(unit(1, 0), cameras="dd", times=[(0, 1)])
    with pytest.raises(InputError, match="boxes M×5"):
        simple(unit(1, 0), cameras="d", times=[(0, 1)], boxes=(np.zeros((1, 4)),))


def test_an_id_that_stands_twice_is_refused():
    scene = make_scene(people=2).sightings
    with pytest.raises(ContradictionError, match="stands twice"):
        scene.taken([0, 1, 0])
