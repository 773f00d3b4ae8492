"""Means over the images of tracklets."""

import numpy as np
import pytest

from reid_edge.errors import InputError
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.ranking import rank
from reid_edge.evaluation.tracklets import averaged


def labelled(features, people, cameras):
    return Labelled(np.array(features, np.float32), np.array(people), np.array(cameras))


def test_a_tracklets_feature_is_the_mean_of_its_images():
    images = labelled([[1, 0], [0, 1], [3, 4], [0.6, 0.8]], [7, 7, 5, 5], [1, 1, 2, 2])
    plain = averaged(images, np.array([4, 4, 2, 2]), unit=False)
    np.testing.assert_allclose(plain.features, [[1.8, 2.4], [0.5, 0.5]])
    assert plain.identities.tolist() == [5, 7]
    assert plain.cameras.tolist() == [2, 1]
    assert plain.images.tolist() == [2, 4]
    unit = averaged(images, np.array([4, 4, 2, 2]), unit=True)
    np.testing.assert_allclose(unit.features, [[0.6, 0.8], [0.5**0.5, 0.5**0.5]])


def test_a_tracklet_does_not_find_itself_where_cameras_do_not_count():
    query = averaged(labelled([[1, 0]], [1], [1]), np.array([0]), unit=True)
    images = labelled([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], [1, 1, 2, 1], [1, 1, 1, 1])
    gallery = averaged(images, np.array([0, 0, 1, 2]), unit=True)
    assert rank(query, gallery, rule="same-camera").cmc.tolist() == [1, 1, 1]  # tracklet 2 is before tracklet 1
    with pytest.raises(InputError, match="but itself"):
        rank(query, averaged(images, np.array([0, 0, 1, 0]), unit=True), rule="same-camera")


@pytest.mark.parametrize(("people", "cameras", "named"), [([1, 2], [1, 1], "people"), ([1, 1], [1, 2], "cameras")])
def test_a_tracklet_is_one_person_in_one_camera(people, cameras, named):
    with pytest.raises(InputError, match=f"tracklet 3 is of several {named}: 1 and 2"):
        averaged(labelled([[1, 0], [0, 1]], people, cameras), np.array([3, 3]), unit=True)
