"""Tracklets by the names of files, and by a column of a CSV file."""

from pathlib import Path

import pytest

from reid_edge.datasets.labelled_images import LabelledImage
from reid_edge.datasets.loading import load_split
from reid_edge.datasets.tracklets import tracklets_of
from reid_edge.errors import DatasetError
from tests.datasets import trees


def groups(images, **options):
    """File names of each tracklet, in order of number."""
    numbers = tracklets_of(images, **options)
    found = {}
    for path, number in numbers.items():
        found.setdefault(number, []).append(path.name)
    assert sorted(found) == list(range(len(found)))
    return [found[number] for number in sorted(found)]


def test_market1501s_names_tell_camera_sequence_and_frame(tmp_path):
    names = (
        "0001_c1s1_000100_01.jpg", "0001_c1s1_000125_01.jpg", "0001_c1s1_000376_01.jpg",
        "0001_c1s2_000376_01.jpg", "0001_c2s1_000100_01.jpg", "0002_c1s1_000125_01.jpg",
    )  # fmt: skip
    trees.touch(tmp_path / "query", "0003_c1s1_000001_00.jpg")
    trees.touch(tmp_path / "bounding_box_test", *names)
    images = load_split("market1501", tmp_path, "gallery", partial=True)
    # 376 is 251 frames after 125: another tracklet.
    assert groups(images) == [[names[0], names[1]], [names[2]], [names[3]], [names[4]], [names[5]]]
    assert groups(images, gap=251)[0] == list(names[:3])
    assert len(groups(images, gap=0)) == 6


def test_a_distractor_is_a_tracklet_of_its_own(tmp_path):
    trees.touch(tmp_path / "bounding_box_test", "0000_c1s1_000100_01.jpg", "0000_c1s1_000100_02.jpg")
    assert len(groups(load_split("market1501", tmp_path, "gallery", partial=True))) == 2


def test_dukemtmcs_names_tell_camera_and_frame(tmp_path):
    trees.touch(tmp_path / "query", "0001_c2_f0046182.jpg", "0001_c2_f0046302.jpg", "0001_c2_f0046782.jpg")
    assert [len(group) for group in groups(load_split("dukemtmc", tmp_path, "query", partial=True))] == [2, 1]


def test_a_csv_file_names_them_in_a_column(tmp_path):
    trees.touch(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    (tmp_path / "images.csv").write_text(
        "path,identity,camera,split,tracklet\na.jpg,ann,1,gallery,x\nb.jpg,ann,1,gallery,x\nc.jpg,ann,1,gallery,y\n"
        "d.jpg,ben,1,gallery,x\n"
    )
    images = load_split("csv", tmp_path, "gallery", partial=True)
    assert groups(images) == [["a.jpg", "b.jpg"], ["c.jpg"], ["d.jpg"]]


def test_an_image_of_query_and_gallery_has_one_number():
    image = LabelledImage(Path("a"), 1, 1, sequence="s1", frame=5)
    assert tracklets_of([image, image]) == {Path("a"): 0}


def test_images_without_sequence_are_an_error():
    with pytest.raises(DatasetError, match=r"tracklets of 1 of 2 images are not known, e\.g\. of b: .*'tracklet'"):
        tracklets_of([LabelledImage(Path("a"), 1, 1, sequence="s1"), LabelledImage(Path("b"), 1, 1)])
