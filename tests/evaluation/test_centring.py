"""Centring of query and gallery."""

import numpy as np
import pytest

from reid_edge.errors import UsageError
from reid_edge.evaluation.centring import centred, gallery_centring
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.ranking import rank


def shifted_cameras(seed=0):
    """Sixty people before three cameras, whose features have more of the camera than of the person."""
    rng = np.random.default_rng(seed)
    people, cameras = rng.standard_normal((60, 32)), 2 * rng.standard_normal((3, 32))
    who, camera = np.repeat(np.arange(60), 3), np.tile(np.arange(3), 60)
    features = people[who] + cameras[camera] + rng.standard_normal((180, 32))
    labelled = Labelled(features, who + 1, camera + 1, np.arange(180))
    return labelled, labelled


def test_centring_brings_a_persons_images_of_other_cameras_nearer():
    query, gallery = shifted_cameras()
    centring = gallery_centring(gallery)
    before = rank(query, gallery)
    after = rank(centred(query, centring), centred(gallery, centring))
    assert after.mean_ap > before.mean_ap + 0.05


def test_no_label_is_looked_at():
    query, gallery = shifted_cameras()
    of_strangers = Labelled(gallery.features, np.arange(180), gallery.cameras, gallery.images)
    np.testing.assert_array_equal(
        centred(query, gallery_centring(gallery)).features, centred(query, gallery_centring(of_strangers)).features
    )


def test_a_query_loses_its_own_cameras_mean_and_keeps_its_labels():
    query, gallery = shifted_cameras()
    centring = gallery_centring(gallery)
    one = Labelled(query.features[[4]], query.identities[[4]], query.cameras[[4]], query.images[[4]])
    alone = centred(one, centring)
    np.testing.assert_allclose(alone.features[0], centred(gallery, centring).features[4], atol=1e-6)
    assert (alone.identities[0], alone.cameras[0], alone.images[0]) == (2, 2, 4)


def test_images_that_name_no_camera_are_refused():
    _query, gallery = shifted_cameras()
    unknown = Labelled(gallery.features, gallery.identities, np.where(np.arange(180) < 7, 0, gallery.cameras))
    with pytest.raises(UsageError, match=r"7 of 180 images name no camera.*leave out --centre"):
        gallery_centring(unknown)
    with pytest.raises(UsageError, match="7 of 180"):
        centred(unknown, gallery_centring(gallery))
