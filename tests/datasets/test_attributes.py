import numpy as np
import pytest

from reid_edge.datasets.attributes import load_attributes
from reid_edge.errors import DatasetError
from tests.datasets import trees


def present(attributes, row):
    return {name for name, value in zip(attributes.names, attributes.values[row], strict=True) if value}


def test_market1501s_attributes_are_its_identities(tmp_path):
    train = load_attributes("market1501", trees.market_attributes(tmp_path), "train", partial=True)
    assert [path.name for path in train.images] == ["0002_c1s1_000451_03.jpg", "0007_c3s3_077419_03.jpg"]
    assert train.values.dtype == np.uint8
    assert len(train.names) == 30
    assert present(train, 0) == {"young", "upper black"}
    assert present(train, 1) == {"teenager", "female", "short sleeves", "upper white"}


def test_market1501s_test_is_the_gallery_without_distractors_and_junk(tmp_path):
    trees.market_attributes(tmp_path)
    test = load_attributes("market1501", tmp_path, "test", partial=True)
    assert [path.name[:4] for path in test.images] == ["0001", "0003"]
    assert present(test, 0) == {"old", "lower brown"}
    assert present(test, 1) == {"adult"}
    assert test.names == load_attributes("market1501", tmp_path, "train", partial=True).names


def test_someone_without_attributes_and_a_missing_file_are_errors(tmp_path):
    trees.market1501(tmp_path)
    with pytest.raises(DatasetError, match=r"expected market_attribute\.mat in it"):
        load_attributes("market1501", tmp_path, "train", partial=True)
    trees.market_attributes(tmp_path)
    trees.touch(tmp_path / "bounding_box_train", "0011_c1s1_000451_03.jpg")
    with pytest.raises(DatasetError, match=r"has no attributes of 1 identity of the train split, e\.g\. 0011"):
        load_attributes("market1501", tmp_path, "train", partial=True)
    with pytest.raises(DatasetError, match="12,936 images of 751 identities"):
        load_attributes("market1501", tmp_path, "train")


@pytest.mark.parametrize(
    "pictures", ["data", "release_data", "release_data/release_data", "data/release_data/release_data"]
)
def test_pa100ks_annotation_names_images_and_attributes(tmp_path, pictures):
    trees.pa100k(tmp_path / "PA-100K", pictures)
    train = load_attributes("pa100k", tmp_path, "train", partial=True)
    assert train.names == ("Female", "Hat")
    assert [path.name for path in train.images] == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert all(path.is_file() for path in train.images)
    assert train.values.tolist() == [[0, 1], [1, 1], [0, 0]]
    assert load_attributes("pa100k", tmp_path, "test", partial=True).values.tolist() == [[1, 0], [0, 1]]


def test_pa100k_has_a_split_for_validation_and_market1501_none(tmp_path):
    trees.pa100k(tmp_path)
    assert load_attributes("pa100k", tmp_path, "val", partial=True).values.tolist() == [[1, 0], [1, 1]]
    trees.market_attributes(tmp_path / "market")
    with pytest.raises(DatasetError, match="hold images of its train split out"):
        load_attributes("market1501", tmp_path / "market", "val", partial=True)


def test_pa100k_that_is_not_whole_is_an_error(tmp_path):
    trees.pa100k(tmp_path)
    with pytest.raises(DatasetError, match="names 3 images; PA-100K's train split has 80,000"):
        load_attributes("pa100k", tmp_path, "train")
    (tmp_path / "data" / "000002.jpg").unlink()
    with pytest.raises(DatasetError, match=r"names 3 images, 1 of them missing: .*000002\.jpg"):
        load_attributes("pa100k", tmp_path, "train", partial=True)
    (tmp_path / "annotation.mat").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="not a readable MATLAB file"):
        load_attributes("pa100k", tmp_path, "train", partial=True)


def test_an_unknown_name_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"'peta' is not a known dataset of attributes; known: market1501, pa100k"):
        load_attributes("peta", tmp_path, "train")
