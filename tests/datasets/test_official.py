"""Every reader against names and counts of the official distribution, and against what systems make of it."""

import shutil
from collections import Counter
from functools import partial

import numpy as np
import pytest

from reid_edge.datasets.categories import load_categories
from reid_edge.datasets.combined import load_combined
from reid_edge.datasets.labelled_images import LabelledImage, check_size, size_of
from reid_edge.datasets.loading import load_split
from reid_edge.errors import DatasetError
from tests.datasets import official, trees

load = partial(load_split, partial=True)


def told(images):
    return [(image.path.name, image.identity, image.camera) for image in images]


# Market-1501


def test_market1501_is_read_as_it_is_distributed(tmp_path):
    official.market1501(tmp_path)
    sizes = {split: str(size_of(load_split("market1501", tmp_path, split))) for split in ("train", "query", "gallery")}
    assert sizes == {
        "train": "12,936 images of 751 identities",
        "query": "3,368 images of 750 identities",
        "gallery": "15,913 images of 750 identities",
    }
    assert len(load_combined("market1501", tmp_path)) == 29_419


def test_market1501s_files_with_two_suffixes_are_queries_and_gallery_like_others(tmp_path):
    trees.touch(tmp_path / "query", *official.market_names("query", 8, 2))
    trees.touch(tmp_path / "bounding_box_test", *official.market_names("bounding_box_test", 15, 2))
    query, gallery = (
        [image for image in load("market1501", tmp_path, split) if image.identity == 1488]
        for split in ("query", "gallery")
    )
    assert query[0].path.name == "1488_c1s6_023021_00.jpg.jpg"
    assert tuple(image.camera for image in query) == official.MARKET_1488["query"]
    assert tuple(image.camera for image in gallery) == official.MARKET_1488["bounding_box_test"]


@pytest.mark.parametrize("suffix", [".JPG", ".Jpg", ".jpeg", ".png", ".bmp", ".jpg.jpg", ".JPG.jpg"])
def test_suffixes_in_any_case_are_read(tmp_path, suffix):
    trees.touch(tmp_path / "query", f"0001_c1s1_001051_00{suffix}", *official.LEFT_BEHIND)
    trees.touch(tmp_path / "duke/query", f"0002_c1_f0044158{suffix}")
    trees.touch(tmp_path / "np/detected/query", f"0003_c1_21{suffix}")
    assert told(load("market1501", tmp_path, "query")) == [(f"0001_c1s1_001051_00{suffix}", 1, 1)]
    assert told(load("dukemtmc", tmp_path / "duke", "query")) == [(f"0002_c1_f0044158{suffix}", 2, 1)]
    assert told(load("cuhk03", tmp_path / "np", "query")) == [(f"0003_c1_21{suffix}", 3, 1)]


@pytest.mark.slow
def test_dukemtmc_is_read_as_it_is_distributed(tmp_path):
    official.dukemtmc(tmp_path)
    splits = {split: load_split("dukemtmc", tmp_path, split) for split in ("train", "query", "gallery")}
    assert {split: str(size_of(images)) for split, images in splits.items()} == {
        "train": "16,522 images of 702 identities",
        "query": "2,228 images of 702 identities",
        "gallery": "17,661 images of 1,110 identities",
    }
    assert told(splits["gallery"])[-1] == ("7139_c2_f0160815.jpg", 7139, 2)


# Folders as archives are unpacked


@pytest.mark.parametrize(
    "folder",
    [
        "Market-1501-v15.09.15/Market-1501-v15.09.15",
        "market1501/Market-1501-v15.09.15",
        "Market-1501",
        "archive (1)/Market-1501-v15.09.15",
    ],
)
def test_folders_in_folders_are_searched(tmp_path, folder):
    trees.market1501(tmp_path / folder)
    trees.touch(tmp_path / "__MACOSX" / folder / "query", "._0001_c1s1_001051_00.jpg")
    assert len(load("market1501", tmp_path, "query")) == 2


def test_names_of_folders_may_be_in_any_case(tmp_path):
    trees.market1501(tmp_path)
    (tmp_path / "bounding_box_train").rename(tmp_path / "Bounding_Box_Train")
    assert len(load("market1501", tmp_path, "train")) == 2


def test_a_folder_of_another_name_among_others_is_not_searched(tmp_path):
    trees.market1501(tmp_path / "mine")
    trees.touch(tmp_path / "other", "notes.txt")
    with pytest.raises(DatasetError, match="does not hold Market-1501"):
        load("market1501", tmp_path, "query")


def test_a_root_that_is_too_deep_or_an_archive_says_what_to_give(tmp_path):
    trees.market1501(tmp_path)
    with pytest.raises(DatasetError, match=rf"Give the folder above, {tmp_path} \(--root\)"):
        load("market1501", tmp_path / "query", "query")
    archive = tmp_path / "Market-1501-v15.09.15.zip"
    archive.touch()
    with pytest.raises(DatasetError, match=r"is not a folder\. Unpack it first, then give the folder"):
        load("market1501", archive, "query")


def test_one_folder_for_each_person_is_told_the_dataset_that_reads_it(tmp_path):
    trees.touch(tmp_path / "query", "0001/0001_c1s1_001051_00.jpg", "0003/0003_c1s1_001051_00.jpg")
    with pytest.raises(DatasetError, match=r"It holds 2 folders: if each is a person, use --dataset folder"):
        load("market1501", tmp_path, "query")


def test_folders_of_categories_may_be_in_another_case(tmp_path):
    trees.touch(tmp_path / "Train", "cat/1.jpg", "dog/2.jpg")
    trees.touch(tmp_path / "VAL", "cat/3.jpg", "dog/4.jpg")
    assert load_categories("folder", tmp_path, "train").names == ("cat", "dog")
    assert len(load_categories("folder", tmp_path, "test").images) == 2


def test_a_zip_of_macos_makes_no_category(tmp_path):
    trees.touch(tmp_path / "train", "cat/1.jpg", "dog/2.jpg", "__MACOSX/._1.jpg", "__MACOSX/1.jpg")
    assert load_categories("folder", tmp_path, "train").names == ("cat", "dog")


# MSMT17


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_msmt17_is_read_in_both_versions_as_systems_leave_its_lists(tmp_path, version, encoding, newline, suffix):
    folder = tmp_path / f"MSMT17_V{version}" / f"MSMT17_V{version}"
    official.msmt17(folder, version, encoding=encoding, newline=newline, suffix=suffix)
    assert told(load("msmt17", tmp_path, "train")) == [
        (f"0000_045_12_0303morning_0006_2{suffix}", 1, 12),
        (f"0000_046_12_0303morning_0006_2_ex{suffix}", 1, 12),
        (f"1040_168_07_0302morning_0340_3_ex{suffix}", 1041, 7),
    ]
    assert [image.identity for image in load("msmt17", tmp_path, "query")] == [1, 3060]
    assert all(image.path.is_file() for image in load("msmt17", tmp_path, "gallery"))


def test_msmt17s_lists_may_have_backslashes_and_tabs(tmp_path):
    official.msmt17(tmp_path, 1)
    (tmp_path / "list_query.txt").write_text("0000\\0000_000_01_0303morning_0015_0.jpg\t0  \r\n\r\n")
    assert told(load("msmt17", tmp_path, "query")) == [("0000_000_01_0303morning_0015_0.jpg", 1, 1)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("0000_c1_0000.jpg", "0005_c13_0026.jpg"), [(1, 2), (6, 14)]),
        (("0000_c0s1_000000_00.jpg", "0005_c14s1_000026_00.jpg"), [(1, 1), (6, 15)]),
        (
            ("0000_000_01_0303morning_0015_0.jpg", "3059_043_04_0113noon_1652_0_ex.JPG"),
            [(1, 2), (3060, 5)],
        ),
    ],
)
def test_msmt17_in_market1501s_layout_is_read(tmp_path, names, expected):
    trees.touch(tmp_path / "MSMT17" / "query", *names, *official.LEFT_BEHIND)
    assert [(image.identity, image.camera) for image in load("msmt17", tmp_path, "query")] == expected


def test_a_copy_of_msmt17_may_have_the_validation_images_in_its_train_split(tmp_path):
    images = [LabelledImage(tmp_path / str(n), 1 + n % 1041, 1) for n in range(32_621)]
    check_size("msmt17", "train", images)
    check_size("msmt17", "train", images[:30_248])
    with pytest.raises(DatasetError, match="30,248 images of 1,041 identities or 32,621 images of 1,041 identities"):
        check_size("msmt17", "train", images[:32_620])


def test_msmt17_by_its_published_lists(tmp_path, real_data):
    for name in ("query", "gallery"):
        shutil.copy(real_data / "msmt17" / f"list_{name}.txt", tmp_path)
    lines = (tmp_path / "list_query.txt").read_text().splitlines()
    trees.touch(tmp_path / "test", *(line.split()[0] for line in lines))
    assert str(size_of(load_split("msmt17", tmp_path, "query"))) == "11,659 images of 3,060 identities"


# CUHK03


@pytest.mark.parametrize("boxes", ["detected", "labeled"])
def test_cuhk03_by_its_published_protocol(tmp_path, real_data, boxes):
    scipy_io = pytest.importorskip("scipy.io")
    protocol = real_data / "cuhk03" / f"cuhk03_new_protocol_config_{boxes}.mat"
    shutil.copy(protocol, tmp_path)
    names = scipy_io.loadmat(protocol, squeeze_me=True)["filelist"]
    trees.touch(tmp_path / f"images_{boxes}", *names)
    name = "cuhk03" if boxes == "detected" else "cuhk03-labeled"
    images = [load_split(name, tmp_path, split) for split in ("train", "query", "gallery")]
    assert [len(part) for part in images] == ([7365, 1400, 5332] if boxes == "detected" else [7368, 1400, 5328])
    assert not {image.identity for image in images[0]} & {image.identity for image in images[1]}


@pytest.mark.parametrize("boxes", ["detected", "labeled"])
def test_cuhk03_of_2014_by_the_names_of_all_images(tmp_path, real_data, boxes):
    """The later protocol lists all names; who is for testing stands in ``cuhk-03.mat`` alone, so here it is anybody."""
    scipy_io = pytest.importorskip("scipy.io")
    variables = scipy_io.loadmat(real_data / "cuhk03" / f"cuhk03_new_protocol_config_{boxes}.mat", squeeze_me=True)
    names = variables["filelist"]
    trees.touch(tmp_path / f"images_{boxes}", *names)
    people = sorted({tuple(map(int, name.split("_")[:2])) for name in names})
    trees.cuhk03_test_sets(tmp_path / "cuhk-03.mat", [people[number::14][:100] for number in range(20)])
    name = "cuhk03-classic" if boxes == "detected" else "cuhk03-classic-labeled"
    train, query, gallery = (load_split(name, tmp_path, split, number=7) for split in ("train", "query", "gallery"))
    assert len(train) + len(query) == len(names)
    assert query == gallery
    # The later protocol numbers the same people.
    numbers = dict(zip(names, variables["labels"], strict=True))
    pairs = {(image.identity, numbers[image.path.name]) for image in train + query}
    assert len(pairs) == 1467
    assert Counter(pair for pair, _ in people) == official.CUHK03_PEOPLE


@pytest.mark.parametrize("boxes", ["detected", "labeled"])
def test_cuhk03_np_by_the_protocol_that_it_is_made_from(tmp_path, real_data, boxes):
    """Its names are identity, view, and the number of the image in the protocol's list."""
    scipy_io = pytest.importorskip("scipy.io")
    variables = scipy_io.loadmat(real_data / "cuhk03" / f"cuhk03_new_protocol_config_{boxes}.mat", squeeze_me=True)
    folders = {"train_idx": "bounding_box_train", "query_idx": "query", "gallery_idx": "bounding_box_test"}
    for variable, folder in folders.items():
        names = (
            f"{variables['labels'][row - 1]:04d}_c{variables['filelist'][row - 1].split('_')[2]}_{row}.png"
            for row in variables[variable]
        )
        trees.touch(tmp_path / "CUHK03-NP" / boxes / folder, *names)
    name = "cuhk03" if boxes == "detected" else "cuhk03-labeled"
    splits = [load_split(name, tmp_path, split) for split in ("train", "query", "gallery")]
    assert [size_of(split).identities for split in splits] == [767, 700, 700]


def test_cuhk03_np_has_labelled_boxes_too(tmp_path):
    trees.touch(tmp_path / "CUHK03-NP" / "Labeled" / "query", "0003_c1_22.png", "0003_c2_27.png")
    trees.touch(tmp_path / "CUHK03-NP" / "detected" / "query", "0003_c1_21.png")
    assert told(load("cuhk03-labeled", tmp_path, "query")) == [("0003_c1_22.png", 3, 1), ("0003_c2_27.png", 3, 2)]
    assert told(load("cuhk03", tmp_path, "query")) == [("0003_c1_21.png", 3, 1)]


# VIPeR and GRID


def test_viper_is_read_as_it_is_distributed(tmp_path):
    official.viper(tmp_path / "VIPeR.v1.0")
    people = {
        image.identity for split in ("train", "query") for image in load_split("viper", tmp_path, split, number=9)
    }
    assert len(people) == 632
    assert (min(people), max(people)) == (1, 874)


def test_viper_has_ten_halvings_of_316_people_who_are_searched_for_among_316(tmp_path):
    official.viper(tmp_path)
    for number in range(10):
        train, query, gallery = (
            load_split("viper", tmp_path, part, number=number) for part in ("train", "query", "gallery")
        )
        assert query == gallery
        assert Counter(image.camera for image in query) == Counter(image.camera for image in train) == {1: 316, 2: 316}
        assert not {image.identity for image in train} & {image.identity for image in query}


def test_grid_has_ten_partitions_of_125_queries_among_900(tmp_path):
    trees.grid(tmp_path, people=250, others=775)
    rng = np.random.default_rng(0)
    halves = [sorted(int(person) for person in rng.permutation(250)[:125] + 1) for _ in range(10)]
    trees.grid_partitions(tmp_path, halves)
    for number, half in enumerate(halves):
        train, query, gallery = (
            load_split("grid", tmp_path, part, number=number) for part in ("train", "query", "gallery")
        )
        assert {image.identity for image in train} == set(half)
        assert len(query) == 125
        assert Counter(bool(image.identity) for image in gallery) == {True: 125, False: 775}
        assert {image.identity for image in query} == {image.identity for image in gallery} - {0}


def test_grid_is_read_as_it_is_distributed(tmp_path):
    folder = tmp_path / "QMUL_GRID" / "underground_reid"
    trees.touch(folder / "probe", *official.GRID_PROBE)
    trees.touch(folder / "gallery", *official.GRID_GALLERY)
    split = {name: load("grid", tmp_path, name) for name in ("train", "query", "gallery")}
    assert sorted({image.identity for image in split["train"] + split["query"]}) == [1, 5, 9, 248]
    assert [told([i])[0] for i in split["gallery"] if not i.identity] == [
        ("0000_1_25698_101_16_87_246.jpeg", 0, 1),
        ("0000_1_26113_116_13_72_212.jpeg", 0, 1),
    ]
