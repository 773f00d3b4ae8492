import sys

import cv2
import h5py
import numpy as np
import pytest

from reid_edge.datasets.cuhk03 import write_all
from reid_edge.datasets.loading import load_split
from reid_edge.errors import DatasetError, MissingExtraError, OutputError
from tests.datasets import trees


def test_images_come_out_of_the_matlab_file_as_they_were(tmp_path):
    images = load_split("cuhk03", trees.cuhk03(tmp_path), "train", partial=True)
    assert [(image.path.name, image.identity, image.camera) for image in images] == [
        ("1_001_1_01.png", 11, 1),
        ("1_001_1_02.png", 11, 1),
        ("1_001_2_06.png", 11, 2),
        ("1_002_1_01.png", 12, 1),
        ("1_002_2_06.png", 12, 2),
        ("1_002_2_07.png", 12, 2),
    ]
    extracted = tmp_path / "images_detected"
    assert {path.name for path in extracted.iterdir()} == trees.CUHK03_FILES.keys()
    for name, seed in trees.CUHK03_FILES.items():
        decoded = cv2.cvtColor(cv2.imread(str(extracted / name)), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(decoded, trees.cuhk03_image(seed))


def test_labelled_boxes_come_out_of_the_same_file(tmp_path):
    """The file of the dataset holds both; here the labelled cells are the detected ones in another order."""
    trees.cuhk03(tmp_path)
    with h5py.File(tmp_path / "cuhk03_release" / "cuhk-03.mat", "r+") as file:
        labelled = file.create_dataset("labeled", (1, 2), dtype=h5py.ref_dtype)
        labelled[0] = file["detected"][0][::-1]
    (tmp_path / "cuhk03_new_protocol_config_detected.mat").rename(tmp_path / "protocol")
    with pytest.raises(DatasetError, match=r"but not cuhk03_new_protocol_config_labeled\.mat.*evaluation/data/CUHK03"):
        load_split("cuhk03-labeled", tmp_path / "cuhk03_release", "train", partial=True)
    (tmp_path / "protocol").rename(tmp_path / "cuhk03_new_protocol_config_labeled.mat")
    with pytest.raises(DatasetError, match=r"names 6 images, 4 of them missing: .*1_001_1_02\.png"):
        load_split("cuhk03-labeled", tmp_path, "train", partial=True)
    assert {path.name for path in (tmp_path / "images_labeled").iterdir()} == {
        *("1_001_1_01.png", "1_001_2_06.png", "1_001_2_10.png"),
        *("2_001_1_01.png", "2_001_1_02.png", "2_001_2_06.png", "2_002_1_01.png", "2_002_2_06.png", "2_002_2_07.png"),
    }


def test_indices_count_from_one(tmp_path):
    trees.cuhk03(tmp_path)
    query, gallery = (load_split("cuhk03", tmp_path, split, partial=True) for split in ("query", "gallery"))
    assert [image.path.name for image in query] == ["2_001_1_01.png"]
    assert [image.path.name for image in gallery] == ["2_001_2_06.png", "2_001_2_10.png"]


def test_extraction_happens_once(tmp_path):
    trees.cuhk03(tmp_path)
    first = load_split("cuhk03", tmp_path, "train", partial=True)
    (tmp_path / "cuhk03_release" / "cuhk-03.mat").unlink()
    assert load_split("cuhk03", tmp_path, "train", partial=True) == first


def test_an_extraction_that_fails_leaves_nothing(tmp_path):
    trees.cuhk03(tmp_path)
    pixels = tmp_path / "cuhk03_release" / "cuhk-03.mat"
    with h5py.File(pixels, "r+") as file:  # the last image: a float, which no CUHK03 has
        people = file[file["detected"][0][1]]
        cells = people[:]
        cells[9, 0] = file.create_dataset("strange", data=np.zeros((3, 4, 5))).ref
        people[...] = cells
    with pytest.raises(DatasetError, match=r"expected images H×W×3 uint8, got \(5, 4, 3\) float64"):
        load_split("cuhk03", tmp_path, "train", partial=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "cuhk03_release",
        "cuhk03_new_protocol_config_detected.mat",
    }


@pytest.mark.parametrize("content", [b"", b"MATLAB 7.3 MAT-file, and then nothing"])
def test_a_broken_matlab_file_is_an_error(tmp_path, content):
    trees.cuhk03(tmp_path)
    (tmp_path / "cuhk03_release" / "cuhk-03.mat").write_bytes(content)
    with pytest.raises(DatasetError, match=r"cuhk-03\.mat is not a readable MATLAB 7\.3 file"):
        load_split("cuhk03", tmp_path, "train", partial=True)


def test_what_is_missing_is_named(tmp_path):
    trees.cuhk03_pixels(tmp_path / "cuhk-03.mat")
    with pytest.raises(DatasetError, match=r"has cuhk-03\.mat, but not cuhk03_new_protocol_config_detected\.mat"):
        load_split("cuhk03", tmp_path, "train", partial=True)
    (tmp_path / "cuhk-03.mat").unlink()
    trees.cuhk03_protocol(tmp_path)
    with pytest.raises(DatasetError, match=r"holds neither images_detected nor cuhk-03\.mat"):
        load_split("cuhk03", tmp_path, "train", partial=True)


def test_a_protocol_that_does_not_fit_is_an_error(tmp_path):
    trees.cuhk03(tmp_path)
    trees.cuhk03_protocol(tmp_path, train_idx=np.array([[1], [10]], np.float64))
    with pytest.raises(DatasetError, match="9 names, 9 labels, and indices from 1 to 10 do not fit"):
        load_split("cuhk03", tmp_path, "train", partial=True)
    trees.cuhk03_protocol(tmp_path, filelist=np.array([["a.png"]] * 9, dtype=object))
    with pytest.raises(DatasetError, match=r"names 'a\.png'; CUHK03's images are named like"):
        load_split("cuhk03", tmp_path, "train", partial=True)


def test_an_image_that_is_not_there_any_more_is_an_error(tmp_path):
    trees.cuhk03(tmp_path)
    load_split("cuhk03", tmp_path, "train", partial=True)
    (tmp_path / "images_detected" / "1_002_2_06.png").unlink()
    with pytest.raises(DatasetError, match=r"1 of them missing: .*1_002_2_06\.png"):
        load_split("cuhk03", tmp_path, "train", partial=True)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    trees.cuhk03(tmp_path)
    written = []

    def write(path, data):
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(path)
        path.touch()

    monkeypatch.setattr("pathlib.Path.write_bytes", write)
    with pytest.raises(OutputError, match=r"images_detected cannot be written .*No space left"):
        load_split("cuhk03", tmp_path, "train", partial=True)
    assert len(written) == 3
    assert not list(tmp_path.glob("images_detected*"))


def test_another_process_that_is_faster_is_no_error(tmp_path):
    def images():
        yield "1_001_1_01.png", np.zeros((2, 2, 3), np.uint8)
        trees.touch(tmp_path / "images_detected", "1_001_1_01.png")

    write_all(images(), tmp_path / "images_detected")
    assert [path.name for path in tmp_path.iterdir()] == ["images_detected"]


@pytest.mark.parametrize("package", ["h5py", "scipy.io"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    trees.cuhk03(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"needs the package '{package.split('.')[0]}'.*reid-edge\[train\]"):
        load_split("cuhk03", tmp_path, "train", partial=True)
