"""All splits of a dataset for training."""

import shutil

import pytest

from reid_edge.datasets.combined import described_as_combined, has_seen_test_people, load_combined
from reid_edge.datasets.labelled_images import size_of
from reid_edge.datasets.loading import load_split
from reid_edge.errors import DatasetError
from tests.datasets import trees


def test_test_people_are_trained_on_and_junk_and_distractors_are_not(tmp_path):
    images = load_combined("market1501", trees.market1501(tmp_path), partial=True)
    assert [(image.path.name, image.identity) for image in images] == [
        ("0002_c1s1_000451_03.jpg", 2),
        ("0007_c3s3_077419_03.jpg", 7),
        ("0001_c1s1_001051_00.jpg", 1),
        ("0001_c2s1_000301_00.jpg", 1),
        ("0001_c1s1_002301_02.jpg", 1),
        ("0003_c2s1_002301_02.jpg", 3),
    ]


@pytest.mark.parametrize("version", [1, 2])
def test_msmt17s_test_people_are_others_than_its_training_people_and_validation_images_are_in(tmp_path, version):
    images = load_combined("msmt17", trees.msmt17(tmp_path, version), partial=True)
    people = {image.path.name: image.identity for image in images}
    assert len(images) == 6
    trained = people["0000_000_01_0303morning_0015_0.jpg"]
    assert people["0000_001_01_0303morning_0022_0.jpg"] == trained  # of list_val.txt
    searched = people["0000_000_02_0303morning_0021_0.jpg"]
    assert people["0000_002_15_0303afternoon_0021_0.jpg"] == searched != trained
    assert len(set(people.values())) == 4


@pytest.mark.slow
def test_msmt17_by_its_published_lists_is_what_others_train_on(tmp_path, real_data):
    for name in ("train", "val", "query", "gallery"):
        shutil.copy(real_data / "msmt17" / f"list_{name}.txt", tmp_path)
        folder = tmp_path / ("train" if name in ("train", "val") else "test")
        trees.touch(folder, *(line.split()[0] for line in (tmp_path / f"list_{name}.txt").read_text().splitlines()))
    assert str(size_of(load_combined("msmt17", tmp_path))) == "126,441 images of 4,101 identities"


def test_msmt17_without_its_validation_images_is_not_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("reid_edge.datasets.loading.check_size", lambda *_: None)
    trees.msmt17(tmp_path, 1)
    with pytest.raises(DatasetError, match="lists 1 images, not 2,373"):
        load_combined("msmt17", tmp_path)
    (tmp_path / "list_val.txt").unlink()
    with pytest.raises(DatasetError, match="no validation images: expected the list"):
        load_combined("msmt17", tmp_path)
    assert len(load_combined("msmt17", tmp_path, partial=True)) == 5


def test_an_image_of_query_and_gallery_both_is_listed_once(tmp_path):
    images = load_combined("viper", trees.viper(tmp_path, 632))
    assert str(size_of(images)) == "1,264 images of 632 identities"
    trees.grid(tmp_path, people=250, others=775)
    assert str(size_of(load_combined("grid", tmp_path))) == "500 images of 250 identities"


def test_members_of_a_union_are_found_by_their_usual_names(tmp_path):
    trees.market1501(tmp_path / "Market-1501-v15.09.15")
    trees.dukemtmc(tmp_path / "DukeMTMC-reID")
    assert {image.member for image in load_combined("market1501+dukemtmc", tmp_path, partial=True)} == {0, 1}


def test_members_of_a_union_are_different_people(tmp_path):
    trees.market1501(tmp_path / "market1501")
    trees.dukemtmc(tmp_path / "dukemtmc")
    images = load_combined("market1501+dukemtmc", tmp_path, partial=True)
    alone = [load_combined(name, tmp_path / name, partial=True) for name in ("market1501", "dukemtmc")]
    assert len(images) == sum(map(len, alone))
    assert size_of(images).identities == sum(size_of(part).identities for part in alone)
    assert {image.member for image in images} == {0, 1}


def test_cameras_are_named_everywhere_or_nowhere(tmp_path):
    trees.touch(tmp_path / "train", "anna/a_c1.jpg", "ben/b_c1.jpg")
    trees.touch(tmp_path / "query", "cleo/a.jpg")
    trees.touch(tmp_path / "gallery", "cleo/b.jpg")
    with pytest.raises(DatasetError, match="2 of 4 images of the train split name no camera"):
        load_combined("folder", tmp_path)
    for path in [*tmp_path.glob("query/*/*.jpg"), *tmp_path.glob("gallery/*/*.jpg")]:
        path.rename(path.with_stem(f"{path.stem}_c2"))
    images = load_combined("folder", tmp_path)
    assert len({image.identity for image in images}) == 3
    assert len(images) == len(load_split("folder", tmp_path, "train")) + 2


@pytest.mark.parametrize(
    ("trained_on", "dataset", "seen"),
    [
        ("msmt17", "msmt17", False),
        (described_as_combined("msmt17"), "msmt17", True),
        (described_as_combined("msmt17") + ", 500 identities", "msmt17", True),
        (described_as_combined("msmt17"), "market1501", False),
        (described_as_combined("mix4"), "dukemtmc", True),
        (described_as_combined("cuhk03"), "cuhk03-classic-labeled", True),
        (described_as_combined("folder"), "folder", False),
        ("unknown", "viper", False),
    ],
)
def test_a_checkpoint_tells_whose_test_people_it_has_seen(trained_on, dataset, seen):
    assert has_seen_test_people(trained_on, dataset) is seen
