"""Image files in folders, as other systems leave them."""

from pathlib import Path

import pytest

from reid_edge.errors import FrameError
from reid_edge.images import bare_name, list_images
from tests.datasets.trees import touch


def test_images_are_listed_in_order_with_suffixes_in_any_case(tmp_path):
    touch(tmp_path, "b.JPG", "a.jpeg", "sub folder/c.Png", "notes.txt", "Thumbs.db", "desktop.ini")
    assert [path.name for path in list_images([tmp_path])] == ["a.jpeg", "b.JPG", "c.Png"]


def test_what_other_systems_leave_is_no_image(tmp_path):
    touch(
        tmp_path, "1.jpg", "._1.jpg", "__MACOSX/._2.jpg", "__MACOSX/2.jpg", ".thumbs/3.jpg", "@eaDir/1.jpg/SYNO_M.jpg"
    )
    touch(tmp_path, "$RECYCLE.BIN/4.jpg")
    assert [path.name for path in list_images([tmp_path])] == ["1.jpg"]


def test_a_folder_or_file_that_is_given_is_taken_whatever_its_name(tmp_path):
    touch(tmp_path, ".cache/1.jpg", ".hidden.jpg")
    assert list_images([tmp_path / ".cache", tmp_path / ".hidden.jpg"]) == [
        tmp_path / ".cache" / "1.jpg",
        tmp_path / ".hidden.jpg",
    ]


def test_a_folder_with_nothing_else_holds_no_image(tmp_path):
    touch(tmp_path, "._1.jpg")
    with pytest.raises(FrameError, match="no image in"):
        list_images([tmp_path])


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("1488_c1s6_023021_00.jpg.jpg", "1488_c1s6_023021_00"),
        ("0001_c1.JPG", "0001_c1"),
        ("0001.c1.png", "0001.c1"),
        ("jpg", "jpg"),
    ],
)
def test_a_name_is_bare_without_all_suffixes_of_images(name, bare):
    assert bare_name(Path(name)) == bare
