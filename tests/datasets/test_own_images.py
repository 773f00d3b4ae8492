"""Folders and CSV files of one's own."""

import pytest

from reid_edge.datasets.loading import load_split
from reid_edge.errors import DatasetError
from tests.datasets import trees


def told(images):
    return [(image.path.name, image.identity, image.camera) for image in images]


def test_folders_are_people_and_names_are_numbered_over_all_splits(tmp_path):
    trees.folder(tmp_path)
    assert told(load_split("folder", tmp_path, "train")) == [
        ("a_c1_0.jpg", 1, 1),
        ("a_c2_0.jpg", 1, 2),
        ("c2-7.png", 2, 2),
    ]
    assert told(load_split("folder", tmp_path, "query")) == [("x_c1.jpg", 3, 1)]
    assert told(load_split("folder", tmp_path, "gallery")) == [("y_c3.jpg", 1, 3), ("x_c2.jpg", 3, 2)]


def test_folders_and_cameras_may_be_in_another_case(tmp_path):
    trees.folder(tmp_path)
    for name in ("train", "query", "gallery"):
        (tmp_path / name).rename(tmp_path / name.title())
    (tmp_path / "Query" / "cleo" / "x_c1.jpg").rename(tmp_path / "Query" / "cleo" / "17_C3.JPG")
    assert told(load_split("folder", tmp_path, "query")) == [("17_C3.JPG", 3, 3)]
    assert len(load_split("folder", tmp_path, "train")) == 3


def test_folders_of_cameras_in_those_of_people_are_told_what_is_expected(tmp_path):
    trees.touch(tmp_path / "train", "p01/cam1/1.jpg", "p01/cam2/2.jpg", "p02/cam1/3.jpg")
    with pytest.raises(DatasetError, match=r"lie directly in its folder.*17_c3_0001\.jpg.*--dataset csv") as told:
        load_split("folder", tmp_path, "train")
    assert "--dataset folder" not in str(told.value)


def test_folders_with_numbers_keep_them(tmp_path):
    trees.touch(tmp_path / "gallery", "0000/a_c1.jpg", "0012/b_c2.jpg", "7/c_c3.jpg")
    assert [image.identity for image in load_split("folder", tmp_path, "gallery")] == [0, 12, 7]


def test_one_number_written_in_two_ways_is_an_error(tmp_path):
    trees.touch(tmp_path / "train", "7/a.jpg", "007/b.jpg")
    with pytest.raises(DatasetError, match="identities 007 and 7 are the same number"):
        load_split("folder", tmp_path, "train")


def test_training_needs_no_cameras_but_all_or_none(tmp_path):
    trees.touch(tmp_path / "train", "anna/1.jpg", "ben/2.jpg")
    assert [image.camera for image in load_split("folder", tmp_path, "train")] == [0, 0]
    trees.touch(tmp_path / "train", "ben/3_c1.jpg")
    with pytest.raises(DatasetError, match=r"2 of 3 images of the train split name no camera, e\.g\. .*1\.jpg"):
        load_split("folder", tmp_path, "train")


def test_a_query_without_camera_or_of_nobody_is_an_error(tmp_path):
    trees.touch(tmp_path / "query", "2/1_c1.jpg", "1/1.jpg")
    with pytest.raises(DatasetError, match=r"1 of 2 images of the query split name no camera.*--same-camera"):
        load_split("folder", tmp_path, "query")
    trees.touch(tmp_path / "query", "0/1_c1.jpg")
    with pytest.raises(DatasetError, match=r"identity 0, which stands for distractors.*Number people from 1"):
        load_split("folder", tmp_path, "query")


def test_cameras_need_not_be_known_where_matches_of_the_same_camera_count(tmp_path):
    trees.touch(tmp_path / "query", "2/1.jpg", "1/1_c1.jpg")
    images = load_split("folder", tmp_path, "query", same_camera=True)
    assert told(images) == [("1_c1.jpg", 1, 1), ("1.jpg", 2, 0)]


@pytest.mark.parametrize("names", [("0001", "0002"), ("anna", "0002")])
def test_junk_and_distractors_are_such_whatever_other_names_there_are(tmp_path, names):
    trees.touch(tmp_path / "query", *(f"{name}/a_c1.jpg" for name in names), "-1/a_c1.jpg")
    trees.touch(tmp_path / "gallery", "-1/b_c2.jpg", "00-1/c_c2.jpg", "0000/d_c2.jpg", "0/e_c2.jpg", "anna2/f_c1.jpg")
    trees.touch(tmp_path / "gallery", *(f"{name}/g_c2.jpg" for name in names))
    trees.touch(tmp_path / "train", "-1/b_c2.jpg", "cleo/b_c1.jpg", "dan/b_c2.jpg")
    query, gallery, train = (load_split("folder", tmp_path, split) for split in ("query", "gallery", "train"))
    assert [image.path.parent.name for image in query] == sorted(names)
    assert sorted(image.path.parent.name for image in gallery if image.identity == 0) == ["0", "0000"]
    assert [image.path.name for image in gallery if image.identity in {q.identity for q in query}] == ["g_c2.jpg"] * 2
    assert [image.path.parent.name for image in train] == ["cleo", "dan"]
    assert all(image.identity > 0 for image in train)


def test_numbers_are_kept_beside_junk_and_distractors(tmp_path):
    trees.touch(tmp_path / "gallery", "-1/a_c1.jpg", "0000/b_c1.jpg", "0012/c_c1.jpg")
    assert [image.identity for image in load_split("folder", tmp_path, "gallery")] == [0, 12]


def test_a_split_of_junk_alone_and_other_negative_numbers_are_errors(tmp_path):
    trees.touch(tmp_path / "gallery", "-1/a_c1.jpg")
    with pytest.raises(DatasetError, match="holds nothing but junk"):
        load_split("folder", tmp_path, "gallery")
    trees.touch(tmp_path / "gallery", "-2/a_c1.jpg")
    with pytest.raises(DatasetError, match="identity -2 means nothing: expected a name, a whole number from 1, 0 for"):
        load_split("folder", tmp_path, "gallery")


def test_a_missing_split_and_a_person_without_images_are_errors(tmp_path):
    (tmp_path / "train" / "anna").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no query split: expected"):
        load_split("folder", tmp_path, "query")
    with pytest.raises(DatasetError, match=r"anna holds no image"):
        load_split("folder", tmp_path, "train")


@pytest.fixture
def table(tmp_path):
    trees.touch(tmp_path, "a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg")

    def write(text):
        (tmp_path / "images.csv").write_text(text, encoding="utf-8")
        return tmp_path / "images.csv"

    return write


def test_a_table_gives_paths_relative_to_its_folder(table):
    file = table(
        "camera,path,identity,split,note\n1,a/1.jpg,anna,train,\n2,a/2.jpg,ben,,x\n3,b/3.jpg,anna,query,\n4,b/4.jpg,ben,gallery,\n"
    )
    train = load_split("csv", file, "train")
    assert told(train) == [("1.jpg", 1, 1), ("2.jpg", 2, 2)]
    assert train[0].path == file.parent / "a" / "1.jpg"
    assert told(load_split("csv", file.parent, "query")) == [("3.jpg", 1, 3)]
    assert told(load_split("csv", file, "gallery")) == [("4.jpg", 2, 4)]


def test_a_table_is_read_as_spreadsheets_and_windows_write_it(table):
    file = table("\ufeffPath;Identity ;CAMERA;split\r\na\\1.jpg; -1;1;gallery\r\n a/2.jpg ;anna;2;gallery\r\n;;;\r\n")
    assert told(load_split("csv", file, "gallery")) == [("2.jpg", 1, 2)]
    file = table("path\tidentity\tcamera\tsplit\nb\\4.jpg\t0\t2\tgallery\nb/3.jpg\tanna\t2\tgallery\n")
    assert told(load_split("csv", file, "gallery")) == [("4.jpg", 0, 2), ("3.jpg", 1, 2)]


def test_a_table_without_cameras_says_what_to_do(table):
    file = table("path,identity,camera,split\na/1.jpg,1,,query\na/2.jpg,1,,gallery\n")
    with pytest.raises(DatasetError, match=r"1 of 1 images of the query split name no camera.*--same-camera"):
        load_split("csv", file, "query")
    assert told(load_split("csv", file, "query", same_camera=True)) == [("1.jpg", 1, 0)]


def test_without_a_split_every_row_is_for_training(table):
    file = table("\ufeffpath,identity,camera\na/1.jpg,0017,\nb/3.jpg,3,\n")
    assert told(load_split("csv", file, "train")) == [("1.jpg", 17, 0), ("3.jpg", 3, 0)]
    with pytest.raises(DatasetError, match="no row of the query split"):
        load_split("csv", file, "query")


def test_every_bad_row_is_named_with_its_line(table):
    file = table(
        "path,identity,camera,split\n"
        "a/1.jpg,1,1,train\n"
        "a/9.jpg,1,1,train\n"
        "a/2.jpg,,1,train\n"
        "b/3.jpg,2,first,train\n"
        "b/3.jpg,2,1,test\n"
        "b/3.jpg,2,,query\n"
        "b/3.jpg,2,1\n"
        "b/../a/1.jpg,2,1,train\n"
        "./a/1.jpg,2,1,train\n"
    )
    with pytest.raises(DatasetError) as error:
        load_split("csv", file, "train")
    message = str(error.value)
    assert "has 7 bad rows" in message
    for wanted in (
        "line 3: no such file",
        "line 4: identity is empty",
        "line 5: camera must be a whole number from 1, not 'first'",
        "line 6: split must be one of train, query, gallery, not 'test'",
        "line 8: more or fewer cells",
        "line 9:",
        "line 10:",
        "stands in line 2 already",
    ):
        assert wanted in message


def test_a_long_list_of_bad_rows_is_cut(table):
    file = table("path,identity,camera\n" + "nothing.jpg,1,1\n" * 25)
    with pytest.raises(DatasetError, match=r"has 25 bad rows: line 2: .*line 11: .* … and 15 more\.$") as error:
        load_split("csv", file, "train")
    assert "line 12" not in str(error.value)


@pytest.mark.parametrize("text", ["", "\n", "path;identity;kamera\n", "path,identity\na/1.jpg,1\n"])
def test_missing_columns_are_named(table, text):
    with pytest.raises(DatasetError, match=r"first line must name .*missing: .*camera"):
        load_split("csv", table(text), "train")


def test_a_file_that_is_no_text_or_not_there_is_an_error(table, tmp_path):
    file = table("")
    file.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    with pytest.raises(DatasetError, match="not a readable CSV file"):
        load_split("csv", file, "train")
    with pytest.raises(DatasetError, match="not a readable CSV file"):
        load_split("csv", tmp_path / "nothing.csv", "train")
