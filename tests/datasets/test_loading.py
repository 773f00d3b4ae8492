"""Every re-identification dataset, in a small tree of its real layout."""

from functools import partial

import pytest

from reid_edge.datasets.labelled_images import TABLE_2, LabelledImage, check_size
from reid_edge.datasets.loading import REID_DATASETS, has_random_splits, load_split, members_of
from reid_edge.errors import DatasetError
from tests.datasets import trees

load = partial(load_split, partial=True)


def told(images):
    return [(image.path.name, image.identity, image.camera) for image in images]


# Market-1501, DukeMTMC-reID, CUHK03-NP


def test_names_give_identity_and_camera(tmp_path):
    assert told(load("market1501", trees.market1501(tmp_path), "query")) == [
        ("0001_c1s1_001051_00.jpg", 1, 1),
        ("0001_c2s1_000301_00.jpg", 1, 2),
    ]


def test_junk_is_dropped_and_distractors_are_kept(tmp_path):
    gallery = load("market1501", trees.market1501(tmp_path), "gallery")
    assert [image.identity for image in gallery] == [0, 1, 3]


@pytest.mark.parametrize("nested", ["Market-1501-v15.09.15", "market1501", "market1501/Market-1501-v15.09.15"])
def test_a_folder_above_will_do(tmp_path, nested):
    trees.market1501(tmp_path / nested)
    assert len(load("market1501", tmp_path, "train")) == 2


def test_a_wrong_number_of_images_is_an_error(tmp_path):
    with pytest.raises(
        DatasetError, match=r"2 images of 2 identities; .* 12,936 images of 751 identities\..*--partial"
    ):
        load_split("market1501", trees.market1501(tmp_path), "train")


def test_a_strange_name_is_an_error(tmp_path):
    (trees.market1501(tmp_path) / "query" / "photo.jpg").touch()
    with pytest.raises(DatasetError, match=r"photo\.jpg is not named as Market-1501"):
        load("market1501", tmp_path, "query")


def test_another_datasets_root_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="is not named as Market-1501"):
        load("market1501", trees.dukemtmc(tmp_path), "train")


def test_a_missing_root_folder_or_image_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere does not exist\. Give the folder that Market-1501 unpacks to"):
        load("market1501", tmp_path / "nowhere", "query")
    with pytest.raises(DatasetError, match="does not hold Market-1501: expected bounding_box_train or"):
        load("market1501", tmp_path, "query")
    (tmp_path / "bounding_box_train").mkdir()
    with pytest.raises(DatasetError, match=r"no query split: .*query"):
        load("market1501", tmp_path, "query")
    with pytest.raises(DatasetError, match="holds no image"):
        load("market1501", tmp_path, "train")


def test_dukes_distractors_are_people_of_their_own(tmp_path):
    trees.dukemtmc(tmp_path / "DukeMTMC-reID")
    assert told(load("dukemtmc", tmp_path, "gallery")) == [
        ("0002_c2_f0044158.jpg", 2, 2),
        ("7139_c8_f0088888.jpg", 7139, 8),
    ]


def test_cuhk03_np_is_read_as_its_boxes_are_named(tmp_path):
    trees.cuhk03_np(tmp_path / "cuhk03-np")
    assert [(image.identity, image.camera) for image in load("cuhk03", tmp_path, "train")] == [(1, 1), (1, 2), (2, 1)]


def test_the_real_train_split_has_the_papers_count(real_data):
    images = load_split("market1501", real_data / "market1501", "train")
    assert (len(images), len({image.identity for image in images})) == (12_936, 751)


# MSMT17


@pytest.mark.parametrize("version", [1, 2])
def test_msmt17_follows_its_lists_without_its_validation_list(tmp_path, version):
    trees.msmt17(tmp_path / f"MSMT17_V{version}", version)
    assert told(load("msmt17", tmp_path, "train")) == [
        ("0000_000_01_0303morning_0015_0.jpg", 1, 1),
        ("0001_005_14_0303noon_0023_1.jpg", 2, 14),
    ]
    gallery = load("msmt17", tmp_path, "gallery")
    assert [(image.identity, image.camera) for image in gallery] == [(1, 15), (4, 3)]
    assert all(image.path.is_file() for image in gallery)


def test_msmt17s_bad_line_and_missing_image_are_named(tmp_path):
    trees.msmt17(tmp_path, 1)
    (tmp_path / "test/0003/0003_003_03_0303morning_0021_2.jpg").unlink()
    with pytest.raises(DatasetError, match=r"names 2 images, 1 of them missing: .*0003_003_03"):
        load("msmt17", tmp_path, "gallery")
    with (tmp_path / "list_gallery.txt").open("a") as file:
        file.write("0004/strange.jpg\n")
    with pytest.raises(DatasetError, match=r"list_gallery\.txt, line 3: .*got '0004/strange\.jpg'"):
        load("msmt17", tmp_path, "gallery")


def test_an_image_listed_twice_is_an_error(tmp_path):
    trees.msmt17(tmp_path, 1)
    file = tmp_path / "list_train.txt"
    file.write_text(file.read_text() + file.read_text().splitlines()[0])
    with pytest.raises(DatasetError, match=r"0000_000_01.*\.jpg is listed twice"):
        load("msmt17", tmp_path, "train")


# VIPeR and GRID


def test_viper_is_halved_by_people(tmp_path):
    trees.viper(tmp_path, 21)
    train, query, gallery = (load("viper", tmp_path, split, number=4) for split in ("train", "query", "gallery"))
    learned = {image.identity for image in train}
    assert len(learned) == 10
    assert len(train) == 20
    assert {image.identity for image in query} == {3 * person + 1 for person in range(21)} - learned
    assert sorted(told(query)) == sorted(told(gallery))
    for images in (train, query):
        assert sorted(image.camera for image in images) == [1] * (len(images) // 2) + [2] * (len(images) // 2)


def test_ten_halvings_differ_and_do_not_change(tmp_path):
    trees.viper(tmp_path, 40)
    halves = [frozenset(image.identity for image in load("viper", tmp_path, "train", number=n)) for n in range(10)]
    assert len(set(halves)) == 10
    # for p in $(seq 1 3 118); do echo "$(printf 'viper 0 %d' $p | sha256sum) $p"; done | sort | head -20
    assert halves[0] == {7, 10, 16, 19, 25, 28, 40, 46, 49, 55, 64, 70, 79, 82, 88, 91, 94, 109, 112, 118}


def test_someone_whom_one_camera_did_not_see_is_an_error(tmp_path):
    (trees.viper(tmp_path, 4) / "VIPeR/cam_b/006_90.bmp").unlink()
    with pytest.raises(DatasetError, match=r"1 person not seen by both cameras, e\.g\. number 006"):
        load("viper", tmp_path, "train")


def test_grids_others_are_in_the_gallery_only(tmp_path):
    trees.grid(tmp_path, people=8, others=5)
    train, query, gallery = (load("grid", tmp_path, split) for split in ("train", "query", "gallery"))
    learned = {image.identity for image in train}
    searched = set(range(1, 9)) - learned
    assert len(learned) == 4
    assert [(image.identity, image.camera) for image in query] == [(person, 1) for person in sorted(searched)]
    assert sorted(image.identity for image in gallery) == [0] * 5 + sorted(searched)
    assert sorted((image.identity, image.camera) for image in train) == [
        (p, c) for p in sorted(learned) for c in (1, 2)
    ]


def test_grids_own_partitions_are_followed(tmp_path):
    trees.grid(tmp_path, people=8, others=2)
    halves = [[1, 2, 3, 4]] * 9 + [[2, 4, 6, 8]]
    trees.grid_partitions(tmp_path, halves)
    assert {image.identity for image in load("grid", tmp_path, "train")} == {1, 2, 3, 4}
    assert {image.identity for image in load("grid", tmp_path, "query", number=9)} == {1, 3, 5, 7}


@pytest.mark.parametrize("halves", [[[1, 2, 3, 4]] * 3, [[1, 2, 3, 77]] * 10])
def test_partitions_of_another_dataset_are_an_error(tmp_path, halves):
    trees.grid(tmp_path, people=8, others=2)
    trees.grid_partitions(tmp_path, halves)
    with pytest.raises(DatasetError, match="does not hold the 10 partitions of these 8 people"):
        load("grid", tmp_path, "train", number=2)


def test_a_broken_matlab_file_is_an_error(tmp_path):
    trees.grid(tmp_path, people=8, others=2)
    (tmp_path / "underground_reid" / "features_and_partitions.mat").write_bytes(b"MATLAB 5.0 MAT-file" * 20)
    with pytest.raises(DatasetError, match=r"features_and_partitions\.mat is not a readable MATLAB file"):
        load("grid", tmp_path, "train")


def test_a_split_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="numbered 0 to 9"):
        load("grid", tmp_path, "train", number=10)
    with pytest.raises(DatasetError, match="market1501 has only its own split"):
        load("market1501", tmp_path, "train", number=1)


# Unions, names and sizes


def test_a_unions_people_and_cameras_are_different_in_different_members(tmp_path):
    trees.market1501(tmp_path / "market1501")
    trees.dukemtmc(tmp_path / "dukemtmc")
    name = "market1501+dukemtmc"
    train = load(name, tmp_path, "train")
    assert [image.member for image in train] == [0, 0, 1, 1]
    assert len({image.identity for image in train}) == 4
    assert len({image.camera for image in train}) == 4
    query, gallery = load(name, tmp_path, "query"), load(name, tmp_path, "gallery")
    matches = [(q.path.name[:4], g.path.name[:4]) for q in query for g in gallery if q.identity == g.identity]
    assert matches == [("0001", "0001"), ("0001", "0001"), ("0002", "0002")]
    assert [image.path.name[:4] for image in gallery if image.identity == 0] == ["0000"]
    market, duke = query[0], next(image for image in query if image.member == 1)
    assert market.camera != duke.camera  # both are camera 1 of their dataset


def test_mix4_is_the_four_big_ones(tmp_path):
    trees.market1501(tmp_path / "market1501")
    trees.cuhk03_np(tmp_path / "cuhk03")
    trees.dukemtmc(tmp_path / "dukemtmc")
    trees.msmt17(tmp_path / "msmt17", 1)
    train = load("mix4", tmp_path, "train")
    assert [image.member for image in train] == [0] * 2 + [1] * 3 + [2] * 2 + [3] * 2
    assert train == load("market1501+cuhk03+dukemtmc+msmt17", tmp_path, "train")


@pytest.mark.parametrize(
    "folders",
    [
        ("market1501/Market-1501-v15.09.15", "dukemtmc-reid/DukeMTMC-reID", "msmt17/MSMT17_V1"),
        ("Market-1501-v15.09.15", "DukeMTMC-reID", "MSMT17_V2"),
        ("Market1501", "duke", "MSMT17"),
    ],
    ids=["torchreid", "fast-reid", "others"],
)
def test_members_of_a_union_lie_in_folders_of_their_usual_names(tmp_path, folders):
    market, duke, msmt17 = (tmp_path / folder for folder in folders)
    trees.market1501(market)
    trees.dukemtmc(duke)
    trees.msmt17(msmt17, 1)
    train = load("market1501+dukemtmc+msmt17", tmp_path, "train")
    assert [image.member for image in train] == [0] * 2 + [1] * 2 + [2] * 2


def test_a_missing_member_is_named(tmp_path):
    trees.market1501(tmp_path / "market1501")
    with pytest.raises(DatasetError, match="holds no folder of dukemtmc: expected dukemtmc or DukeMTMC-reID or"):
        load("market1501+dukemtmc", tmp_path, "train")


def test_unknown_and_repeated_names_are_errors():
    with pytest.raises(DatasetError, match=r"'market' is not a known dataset; known: market1501, cuhk03"):
        members_of("market+grid")
    with pytest.raises(DatasetError, match="names a dataset twice"):
        members_of("grid+viper+grid")
    assert has_random_splits("market1501+grid")
    assert not has_random_splits("mix4")


def test_one_identity_only_is_an_error_for_training(tmp_path):
    trees.touch(tmp_path / "train", "anna/a_c1.jpg", "anna/a_c2.jpg")
    with pytest.raises(DatasetError, match="one identity only"):
        load("folder", tmp_path, "train")


#: Table 2 of the paper as it is printed: identities and images, each for training, query and gallery.
PRINTED = """
market1501 751-750-751  12936-3368-15913
cuhk03     767-700-700   7365-1400-5332
dukemtmc   702-702-1110 16522-2228-17661
msmt17   1041-3060-3060 30248-11659-82161
viper      316-316-316    632-632-632
grid       125-125-900    250-125-900
"""


@pytest.mark.parametrize("line", PRINTED.split("\n")[1:-1], ids=lambda line: line.split()[0])
def test_sizes_are_those_of_table_2(line):
    name, identities, images = line.split()
    assert name in REID_DATASETS
    # Market-1501's 751 in the gallery are 750 and the distractors; GRID's 900 are 125 and 775 distractors.
    counts = zip(images.split("-"), identities.split("-"), strict=True)
    printed = dict(zip(("train", "query", "gallery"), counts, strict=True))
    if name in ("market1501", "grid"):
        printed["gallery"] = (printed["gallery"][0], printed["query"][1])
    assert {split: (str(size.images), str(size.identities)) for split, size in TABLE_2[name].items()} == printed


def test_the_number_of_people_is_checked_as_the_number_of_images_is(tmp_path):
    images = [LabelledImage(tmp_path / str(number), number % 125 + 1, 1) for number in range(250)]
    check_size("grid", "train", images)
    with pytest.raises(DatasetError, match="250 images of 124 identities"):
        check_size("grid", "train", [LabelledImage(i.path, i.identity % 124 + 1, 1) for i in images])


def test_whole_small_datasets_pass_the_size_check(tmp_path):
    trees.viper(tmp_path, 632)
    trees.grid(tmp_path, people=250, others=775)
    for name in ("viper", "grid"):
        for split in ("train", "query", "gallery"):
            assert load_split(name, tmp_path, split, number=7)


def test_hidden_files_of_other_systems_are_no_images(tmp_path):
    trees.touch(trees.folder(tmp_path), "train/anna/._a_c1_0.jpg", "train/.thumbs/a_c1.jpg")
    assert len(load("folder", tmp_path, "train")) == 3


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    trees.market1501(tmp_path)

    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)  # the tests may run as root, who may read everything
    with pytest.raises(DatasetError, match=r"cannot be read .*Permission denied"):
        load("market1501", tmp_path, "train")
