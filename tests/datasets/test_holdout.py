import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reid_edge.datasets.holdout import first_identities, hold_out
from reid_edge.datasets.labelled_images import LabelledImage
from reid_edge.datasets.loading import load_split
from reid_edge.errors import DatasetError
from reid_edge.evaluation.comparison import Labelled
from reid_edge.evaluation.ranking import rank
from tests.datasets import trees

REPOSITORY = Path(__file__).parents[2]


def image(identity, camera, number, member=0):
    return LabelledImage(Path(f"{identity:04d}_{camera}_{number}.jpg"), identity, camera, member)


def names(images):
    return [image.path.name for image in images]


def test_the_last_people_are_held_out_with_one_query_for_each_view():
    images = [image(p, c, n) for n in (2, 1) for c in (2, 1) for p in (9, 3, 5, 4)]
    held = hold_out(images, 2)
    assert {i.identity for i in held.train} == {3, 4}
    assert len(held.train) == 8
    assert names(held.query) == [f"{p:04d}_{c}_1.jpg" for p in (5, 9) for c in (1, 2)]
    assert names(held.gallery) == [f"{p:04d}_{c}_2.jpg" for p in (5, 9) for c in (1, 2)]


def test_where_a_view_has_one_image_the_first_cameras_are_searched_for_in_the_others():
    held = hold_out([image(p, c, 1) for p in range(1, 6) for c in (2, 1)], 2)
    assert names(held.query) == ["0004_1_1.jpg", "0005_1_1.jpg"]
    assert names(held.gallery) == ["0004_2_1.jpg", "0005_2_1.jpg"]


def test_nothing_is_held_out_on_request():
    images = [image(p, 1, 1) for p in (1, 2)]
    held = hold_out(images, 0)
    assert held.train == tuple(images)
    assert held.query == held.gallery == ()


def test_a_unions_members_give_evenly():
    people = {0: range(1, 11), 1: range(101, 103), 2: range(201, 207)}
    views = [(c, n) for c in (1, 2) for n in (1, 2)]
    held = hold_out([image(p, c, n, member) for member in people for p in people[member] for c, n in views], 7)
    assert sorted({i.identity for i in held.query}) == [8, 9, 10, 101, 102, 205, 206]
    assert not {i.identity for i in held.train} & {i.identity for i in held.query}


def test_too_few_people_left_is_an_error():
    images = [image(p, c, n) for p in (1, 2, 3) for c in (1, 2) for n in (1, 2)]
    assert {i.identity for i in hold_out(images, 1).train} == {1, 2}
    for count in (2, 3, 50):
        with pytest.raises(DatasetError, match=r"leave [01] to train on; at least 2"):
            hold_out(images, count)


def test_people_who_cannot_be_matched_are_an_error():
    images = [image(p, 1, n) for p in (1, 2, 3) for n in (1, 2, 3)]
    with pytest.raises(DatasetError, match=r"none of the identities held out .* can be matched across cameras"):
        hold_out(images, 1)


def test_images_of_unknown_camera_can_be_ranked():
    held = hold_out([image(p, 0, n) for p in (1, 2, 3, 4) for n in (1, 2, 3)], 2)
    features = {3: [1.0, 0.0], 4: [0.0, 1.0]}
    query, gallery = (
        Labelled(
            np.array([features[i.identity] for i in images]),
            np.array([i.identity for i in images]),
            np.array([i.camera for i in images]),
        )
        for images in (held.query, held.gallery)
    )
    ranking = rank(query, gallery)
    assert (ranking.queries, ranking.mean_ap) == (2, 1.0)


def test_the_first_people_are_taken_in_order_of_number():
    images = [image(p, 1, 1) for p in (7, 1, 5)]
    assert names(first_identities(images, 2)) == ["0001_1_1.jpg", "0005_1_1.jpg"]
    assert first_identities(images, None) == tuple(images)
    with pytest.raises(DatasetError, match=r"4 identities asked for .* there are only 3"):
        first_identities(images, 4)


def test_the_script_makes_a_tree_of_the_same_images(tmp_path):
    people = [f"{p:04d}_c{c}s1_00000{n}_00.jpg" for p in (2, 7, 10) for c in (1, 2) for n in (1, 2)]
    trees.touch(tmp_path / "bounding_box_train", *people)
    script = REPOSITORY / "benchmarks" / "make_heldout.py"
    subprocess.run(
        [sys.executable, script, tmp_path, tmp_path / "out", "--identities", "1"], check=True, cwd=REPOSITORY
    )
    query, gallery = (load_split("market1501", tmp_path / "out", s, partial=True) for s in ("query", "gallery"))
    assert names(query) == ["0010_c1s1_000001_00.jpg", "0010_c2s1_000001_00.jpg"]
    assert names(gallery) == ["0010_c1s1_000002_00.jpg", "0010_c2s1_000002_00.jpg"]


def test_the_real_train_splits_last_hundred(real_data):
    held = hold_out(load_split("market1501", real_data / "market1501", "train"), 100)
    # What benchmarks/README.md told before this rule was a function.
    assert (len(held.train), len(held.query), len(held.gallery)) == (11_509, 443, 984)
