from dataclasses import replace

import cv2
import numpy as np
import pytest

from reid_edge.benchmark.accuracy import mean_ranking, measure_accuracy, measure_rankings
from reid_edge.benchmark.embedded import embed_splits
from reid_edge.benchmark.embedder import Embedder, load_splits
from reid_edge.benchmark.readable import readable_splits
from reid_edge.bundle import open_bundle, write_manifest
from reid_edge.datasets.labelled_images import LabelledImage
from reid_edge.errors import DatasetError, FrameError, InputError
from reid_edge.evaluation.ranking import Ranking
from reid_edge.manifest import model_hash
from reid_edge.progress import silent
from reid_edge.runtime import Extractor
from tests.conftest import random_crops


@pytest.fixture(scope="module")
def exact(session_bundle):
    return Extractor(session_bundle, engine="openvino", precision="fp32")


@pytest.fixture(scope="module")
def rough(session_bundle):
    return Extractor(session_bundle, engine="onnxruntime", precision="int8")


def with_features(bundle, **changes):
    """The bundle as if it had been exported with another norm or distance."""
    manifest = bundle.manifest
    features = replace(manifest.features, **changes)
    named = model_hash(manifest.model.checkpoint_sha256, manifest.input, features)
    write_manifest(bundle.path, replace(manifest, features=features, model_hash=named))
    return open_bundle(bundle.path)


@pytest.fixture
def labelled(rng, tmp_path):
    """Eight identities by two cameras, the second seeing half of the next identity too, and two distractors."""
    crops = [cv2.resize(crop, (64, 128)) for crop in random_crops(rng, 10)]
    splits = {"query": [], "gallery": []}
    for identity, crop in enumerate(crops):
        mixed = cv2.addWeighted(crop, 0.45, crops[(identity + 1) % 10], 0.55, 0)
        for camera, split, picture in ((1, "query", crop), (2, "gallery", mixed)):
            if identity < 8 or split == "gallery":
                path = tmp_path / f"{identity}_{camera}.png"
                cv2.imwrite(str(path), picture)
                splits[split].append(LabelledImage(path, identity + 1 if identity < 8 else 0, camera))
    return splits


def unit(vector):
    return vector / np.sqrt(sum(float(value) ** 2 for value in vector))


def test_one_model_alone_is_its_extractor(exact, rng):
    crops = random_crops(rng, 3)
    np.testing.assert_array_equal(Embedder((exact,))(crops), exact(crops))


def test_flip_is_the_unit_mean_of_a_crops_and_the_mirrored_crops_unit_features(exact, rng):
    crops = random_crops(rng, 3)
    features = Embedder((exact,), flip=True)(crops)
    for feature, crop in zip(features, crops, strict=True):
        (seen,), (mirrored,) = exact([crop]), exact([np.ascontiguousarray(crop[:, ::-1])])
        assert np.abs(seen - mirrored).max() > 0.01  # else this would show nothing
        np.testing.assert_allclose(feature, unit((unit(seen) + unit(mirrored)) / 2), atol=2e-6)


def test_without_a_norm_flip_is_the_plain_mean(bundle_copy, rng):
    bare = Extractor(with_features(bundle_copy, norm="none"), engine="openvino", precision="fp32", cache_dir=None)
    crop = random_crops(rng, 1)[0]
    (seen,), (mirrored,) = bare([crop]), bare([np.ascontiguousarray(crop[:, ::-1])])
    (feature,) = Embedder((bare,), flip=True)([crop])
    assert abs(np.linalg.norm(feature) - 1) > 0.1
    np.testing.assert_allclose(feature, (seen.astype(float) + mirrored) / 2, rtol=1e-4, atol=1e-4)


def test_with_flip_a_crop_and_its_mirror_image_are_the_same(exact, rng):
    crop = np.ascontiguousarray(rng.integers(0, 256, (256, 128, 3), dtype=np.uint8))  # not resized: exactly mirrored
    both = Embedder((exact,), flip=True)([crop, np.ascontiguousarray(crop[:, ::-1])])
    np.testing.assert_allclose(both[0], both[1], atol=2e-6)


def test_an_ensemble_concatenates_each_models_own_unit_features(exact, rough, rng):
    crops = random_crops(rng, 2)
    features = Embedder((exact, rough))(crops)
    assert features.shape == (2, 1024)
    np.testing.assert_array_equal(features[:, :512], exact(crops))
    np.testing.assert_array_equal(features[:, 512:], rough(crops))
    cosine = float(unit(features[0]) @ unit(features[1]))
    each = [float(unit(a) @ unit(b)) for a, b in (exact(crops), rough(crops))]
    assert cosine == pytest.approx(sum(each) / 2, abs=1e-5)


def test_models_that_normalise_differently_make_no_ensemble(exact, bundle_copy):
    bare = Extractor(with_features(bundle_copy, norm="none"), engine="openvino", precision="fp32", cache_dir=None)
    with pytest.raises(InputError, match=r"normalised alike, got norms .*: l2, .*: none\. Export them with the same"):
        Embedder((exact, bare))


def test_models_that_are_compared_differently_need_a_choice(exact, bundle_copy, labelled):
    other = Extractor(
        with_features(bundle_copy, distance="euclidean"), engine="openvino", precision="fp32", cache_dir=None
    )
    both = Embedder((exact, other))
    with pytest.raises(InputError, match="cosine and euclidean; choose one with --distance"):
        _ = both.distance
    alone = measure_accuracy(exact, labelled, silent)
    (twice,) = measure_rankings(embed_splits(both, [labelled], silent), silent, distance="cosine")
    assert twice.mean_ap == pytest.approx(alone.mean_ap)


def test_ranking_is_that_of_the_features_by_a_slow_loop(exact, labelled):
    result = measure_accuracy(exact, labelled, silent)
    gallery = [(image, exact([cv2.imread(str(image.path))])[0]) for image in labelled["gallery"]]
    precisions, first = [], 0
    for query in labelled["query"]:
        feature = exact([cv2.imread(str(query.path))])[0]
        order = sorted(gallery, key=lambda held: -float(feature.astype(float) @ held[1]))
        place = [image.identity for image, _ in order].index(query.identity)
        precisions.append(1 / (place + 1))  # one match each
        first += place == 0
    assert result.queries == 8
    assert result.mean_ap == pytest.approx(np.mean(precisions))
    assert result.rank1 == pytest.approx(first / 8)
    assert result.mean_ap < 1  # the pictures are alike, not the same: this can go wrong


def test_random_splits_are_ranked_each_by_itself_and_an_image_is_embedded_once(exact, labelled):
    query, gallery = labelled["query"], labelled["gallery"]
    numbered = [
        {"query": query[:4], "gallery": gallery},
        {"query": query[4:], "gallery": gallery[2:]},
        {"query": gallery[:3], "gallery": query},  # the cameras change places
    ]
    reported = {}

    def notify(text, steps):
        reported[text] = [steps, 0]

        def done(count=1):
            reported[text][1] += count

        return done

    rankings = measure_rankings(embed_splits(Embedder((exact,)), numbered, notify), notify, distance="cosine")
    assert reported == {"features, openvino/fp32": [18, 18], "ranking": [11, 11]}
    for ranking, splits in zip(rankings, numbered, strict=True):
        alone = measure_accuracy(exact, splits, silent)
        assert ranking.mean_ap == pytest.approx(alone.mean_ap)
        np.testing.assert_allclose(ranking.cmc, alone.cmc)


def test_the_mean_over_splits_counts_each_split_the_same():
    rankings = [
        Ranking(cmc=np.array([0.2, 0.6, 1.0]), mean_ap=0.3, mean_inp=0.1, queries=10),
        Ranking(cmc=np.array([0.4, 0.8]), mean_ap=0.5, mean_inp=0.2, queries=1),
    ]
    mean = mean_ranking(rankings)
    assert mean.cmc == pytest.approx([0.3, 0.7])
    assert mean.mean_ap == pytest.approx(0.4)
    assert mean.mean_inp == pytest.approx(0.15)
    assert mean.queries == 11


def test_a_dataset_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DatasetError):
        load_splits(tmp_path, dataset="viper", number=3)


def test_damaged_images_are_found_at_once_and_left_out_on_request(exact, labelled):
    damaged = labelled["gallery"][8].path  # a distractor
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(FrameError, match=rf"{damaged}.*--skip-bad"):
        readable_splits(labelled, silent)
    readable, unreadable = readable_splits(labelled, silent, skip_bad=True)
    assert unreadable == (damaged,)
    assert readable["query"] == labelled["query"]
    assert readable["gallery"] == [image for image in labelled["gallery"] if image.path != damaged]
    assert measure_accuracy(exact, readable, silent).queries == 8
    for image in labelled["query"]:
        image.path.write_bytes(b"")
    with pytest.raises(InputError, match="no image of the query can be read"):
        readable_splits(labelled, silent, skip_bad=True)
