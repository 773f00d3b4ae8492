"""CUHK03 of 2014: 20 test sets, from ``cuhk-03.mat`` alone."""

import h5py
import numpy as np
import pytest

from reid_edge.datasets.loading import has_random_splits, load_split, splits_of
from reid_edge.errors import DatasetError
from tests.datasets import trees


@pytest.fixture
def root(tmp_path):
    """Three people; the first is for testing in even test sets, the third in odd ones."""
    pixels = tmp_path / "cuhk03_release" / "cuhk-03.mat"
    trees.cuhk03_pixels(pixels)
    trees.cuhk03_test_sets(pixels, [[(1, 1)], [(2, 1)]] * 10)
    return tmp_path


def test_the_people_of_a_test_set_are_searched_for_and_the_others_are_for_training(root):
    def told(split, number):
        images = load_split("cuhk03-classic", root, split, partial=True, number=number)
        return [(image.path.name, image.identity, image.camera) for image in images]

    first = [("1_001_1_01.png", 10001, 1), ("1_001_1_02.png", 10001, 1), ("1_001_2_06.png", 10001, 2)]
    third = [("2_001_1_01.png", 20001, 1), ("2_001_2_06.png", 20001, 2), ("2_001_2_10.png", 20001, 2)]
    assert told("query", 0) == told("gallery", 0) == first
    assert told("query", 19) == told("gallery", 19) == third
    assert [name for name, _, _ in told("train", 19)] == sorted(trees.CUHK03_FILES)[:6]
    assert {path.name for path in (root / "images_detected").iterdir()} == trees.CUHK03_FILES.keys()


def test_images_that_are_extracted_already_are_taken(root):
    trees.touch(root / "images_detected", *trees.CUHK03_FILES)
    images = load_split("cuhk03-classic", root, "query", partial=True)
    assert all(image.path.parent == root / "images_detected" for image in images)
    assert all(not image.path.stat().st_size for image in images)


def test_there_are_twenty_splits(root):
    assert has_random_splits("cuhk03-classic")
    assert splits_of("cuhk03-classic-labeled") == 20
    assert splits_of("cuhk03-classic+viper") == 10
    assert splits_of("cuhk03") == 1
    with pytest.raises(DatasetError, match="splits of cuhk03-classic are numbered 0 to 19"):
        load_split("cuhk03-classic", root, "query", number=20)


def test_another_number_of_people_is_an_error(root):
    with pytest.raises(DatasetError, match=r"holds 3 images of 1 identity; .*query split has 100 identities"):
        load_split("cuhk03-classic", root, "query")


def test_files_that_do_not_fit_are_errors(root):
    (root / "images_detected").mkdir()
    trees.touch(root / "images_detected", "1_001_1_01.png")
    with pytest.raises(
        DatasetError, match=r"no image of 1 of the 1 people of test set 1, e\.g\. of person 1 of camera"
    ):
        load_split("cuhk03-classic", root, "query", partial=True, number=1)
    trees.touch(root / "images_detected", "0001_c1_1.png")
    with pytest.raises(DatasetError, match="is not named as CUHK03's images are"):
        load_split("cuhk03-classic", root, "query", partial=True)
    with h5py.File(root / "cuhk03_release" / "cuhk-03.mat", "r+") as file:
        del file["testsets"]
        file["testsets"] = np.zeros((2, 2))
    with pytest.raises(DatasetError, match="does not hold CUHK03's 20 'testsets'"):
        load_split("cuhk03-classic", root, "query", partial=True)
    (root / "cuhk03_release" / "cuhk-03.mat").unlink()
    with pytest.raises(DatasetError, match=r"does not hold cuhk-03\.mat, which lists the people for testing"):
        load_split("cuhk03-classic", root, "query", partial=True)
