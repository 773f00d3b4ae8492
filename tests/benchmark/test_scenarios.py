import numpy as np
import pytest

from reid_edge.benchmark.scenarios import FRAME_SIZE, make_query, person_boxes, street_frame
from reid_edge.features import l2_normalised
from reid_edge.runtime import Extractor


@pytest.fixture(scope="module")
def extractor(session_bundle):
    return Extractor(session_bundle, engine="onnxruntime", precision="fp32", threads=1, cache_dir=None)


def test_people_stand_within_the_frame(rng):
    boxes = person_boxes(rng, 500)
    assert boxes.shape == (500, 4)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= FRAME_SIZE[1]).all()
    assert (boxes[:, 3] <= FRAME_SIZE[0]).all()
    heights, widths = boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]
    np.testing.assert_allclose(widths / heights, 0.41)
    assert heights.min() >= 120
    assert heights.max() <= 520
    assert street_frame(rng).shape == (1080, 1920, 3)


def test_end_to_end_gives_unit_features_of_all_boxes(extractor):
    features = make_query(extractor, "end-to-end", 3)()
    assert features.shape == (3, 512)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert np.abs(features[0] - features[1]).max() > 1e-4  # of three boxes, not of one


@pytest.mark.parametrize(("scenario", "crops"), [("single-stream", 1), ("multi-stream", 5), ("offline", 40)])
def test_the_others_give_the_engines_own_features_of_as_many_crops(extractor, scenario, crops):
    features = make_query(extractor, scenario, crops)()
    assert features.shape == (crops, 512)
    assert not np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_ready_input_gives_what_calls_give(session_bundle, rng, engine):
    """11 crops go as 8 + 2 + 1 on OpenVINO."""
    extractor = Extractor(session_bundle, engine=engine, precision="fp32", cache_dir=None)
    crops = rng.integers(0, 256, (11, *session_bundle.manifest.input.size, 3), dtype=np.uint8)
    np.testing.assert_allclose(l2_normalised(extractor.infer(crops)), extractor(list(crops)), atol=1e-6)
