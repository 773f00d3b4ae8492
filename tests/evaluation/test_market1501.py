import pytest

from reid_edge.errors import DatasetError
from reid_edge.evaluation.market1501 import IMAGE_COUNTS, load_market1501


@pytest.fixture
def tree(tmp_path):
    for folder, names in {
        "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0007_c3s3_077419_03.jpg"],
        "query": ["0001_c1s1_001051_00.jpg", "0001_c2s1_000301_00.jpg"],
        "bounding_box_test": ["-1_c1s1_000401_03.jpg", "0000_c1s1_000151_01.jpg", "0001_c1s1_002301_02.jpg"],
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
        (tmp_path / folder / "Thumbs.db").touch()
    return tmp_path


def test_names_give_identity_and_camera(tree):
    images = load_market1501(tree, "query", partial=True)
    assert [(image.path.name, image.identity, image.camera) for image in images] == [
        ("0001_c1s1_001051_00.jpg", 1, 1),
        ("0001_c2s1_000301_00.jpg", 1, 2),
    ]


def test_junk_is_dropped_and_distractors_are_kept(tree):
    assert [image.identity for image in load_market1501(tree, "gallery", partial=True)] == [0, 1]


def test_the_folder_above_will_do(tree, tmp_path_factory):
    above = tmp_path_factory.mktemp("above")
    tree.rename(above / "Market-1501-v15.09.15")
    assert len(load_market1501(above, "train", partial=True)) == 2


def test_a_wrong_number_of_images_is_an_error(tree):
    with pytest.raises(DatasetError, match=r"holds 2 images .* 12,936\..*--partial"):
        load_market1501(tree, "train")


def test_a_strange_name_is_an_error(tree):
    (tree / "query" / "photo.jpg").touch()
    with pytest.raises(DatasetError, match=r"photo\.jpg is not named as Market-1501"):
        load_market1501(tree, "query", partial=True)


def test_a_missing_or_empty_folder_is_an_error(tree, tmp_path):
    with pytest.raises(DatasetError, match="no query split"):
        load_market1501(tmp_path / "nowhere", "query")
    for path in (tree / "query").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="holds no image"):
        load_market1501(tree, "query", partial=True)


def test_the_real_train_split_has_the_papers_count(real_data):
    assert len(load_market1501(real_data / "market1501", "train")) == IMAGE_COUNTS["train"] == 12_936
