import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from reid_edge.datasets.attributes import Attributes
from reid_edge.errors import DatasetError
from reid_edge.training.evaluator import AttributeScore, CategoryScore, RankingScore, endings, named
from reid_edge.training.readable import readable_attributes
from reid_edge.training.resolve import resolve
from reid_edge.training.task import _border, load_training_data
from tests.training.people import values, write_people


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"), identities=6, images=4)


def training_data(root, recipe="scratch", **more):
    return load_training_data(resolve(recipe, {}, values(root, **more))[0])


def test_the_last_identities_are_held_out_with_a_query_for_each_camera(people):
    held = training_data(people, data__validation=2)
    trained = {path.parent.name for path in held.images}
    judged = {path.parent.name for path in held.held_out.images}
    assert (trained, judged) == ({"001", "002", "003", "004"}, {"005", "006"})
    assert held.held_out.score.queries == 4
    assert held.classes == 4
    assert held.names == ()


def test_all_splits_are_trained_on_on_request(tmp_path):
    root = write_people(tmp_path, identities=4, images=4)
    shutil.copytree(root / "train" / "001", root / "query" / "005")
    shutil.copytree(root / "train" / "002", root / "gallery" / "005")
    (root / "gallery" / "0").mkdir()
    (root / "train" / "002" / "0_c1.png").rename(root / "gallery" / "0" / "0_c1.png")
    assert training_data(root, data__validation=0).classes == 4
    held = training_data(root, data__validation=0, data__combineall=True)
    assert held.classes == 5
    assert {path.parent.parent.name for path in held.images} == {"train", "query", "gallery"}
    assert not any(path.parent.name == "0" for path in held.images)


@pytest.mark.parametrize(
    ("identities", "fault"),
    [("one", "images of one identity only"), ("other", "leave|can be matched"), ("-1", "nothing but junk")],
)
def test_images_without_labels_are_told_what_they_need(people, tmp_path, identities, fault):
    paths = sorted(people.rglob("*.png"))
    rows = [f"{path},{place if identities == 'other' else identities}," for place, path in enumerate(paths, 1)]
    (tmp_path / "images.csv").write_text("\n".join(["path,identity,camera", *rows]))
    more = {"data__dataset": "csv", "loss__cross_entropy": 0, "distill__teachers": ["t.npy"]}
    with pytest.raises(DatasetError, match=rf"({fault}).*--set data\.validation=0 and any identities, at least two"):
        training_data(tmp_path, **more, data__validation=20 if identities == "other" else 0)
    if identities == "other":
        assert training_data(tmp_path, **more, data__validation=0).classes == len(paths)


def test_targets_count_from_zero_and_go_with_the_images(people):
    held = training_data(people, data__identities=3)
    assert held.targets.dtype == torch.int64
    assert [int(path.parent.name) - 1 for path in held.images] == held.targets.tolist()
    assert held.classes == 3


def test_the_fingerprint_tells_names_and_labels(people, tmp_path):
    same = write_people(tmp_path / "same", identities=6, images=4)
    assert training_data(people).fingerprint == training_data(same).fingerprint
    (same / "train/001/0_c1.png").rename(same / "train/001/0_c2.png")
    assert training_data(people).fingerprint != training_data(same).fingerprint
    assert training_data(people).fingerprint != training_data(people, data__validation=3).fingerprint


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 elsewhere")
def test_a_file_name_need_not_be_utf8(tmp_path):
    people = write_people(tmp_path / "people", identities=6, images=4)
    first = next((people / "train/001").glob("*.png"))
    first.rename(os.fsdecode(os.fsencode(first.parent) + b"/caf\xe9_c1.png"))
    assert training_data(people).fingerprint


def test_categories_hold_out_the_same_images_whatever_the_seed(tmp_path):
    write_people(tmp_path, identities=3, images=8)
    (tmp_path / "train").rename(tmp_path / "moved")
    for part in ("train", "test"):
        (tmp_path / part).symlink_to(tmp_path / "moved")
    more = {"data__validation": 6, "batch__size": 4, "model__size": "32x32"}
    one, other = (training_data(tmp_path, "classify", run__seed=seed, **more) for seed in (1, 2))
    assert one.held_out.images == other.held_out.images
    assert len(one.images) == 18
    assert len(one.held_out.images) == 6
    assert not set(one.images) & set(one.held_out.images)
    assert one.names == ("001", "002", "003")
    assert [one.names[target] for target in one.targets] == [path.parent.name for path in one.images]
    with pytest.raises(DatasetError, match=r"data\.validation: 24 images"):
        training_data(tmp_path, "classify", **(more | {"data__validation": 24}))


@pytest.mark.parametrize("recipe", ["scratch", "classify"])
def test_bad_images_are_left_out_on_request_with_their_labels(tmp_path, recipe, caplog):
    write_people(tmp_path, identities=4, images=4)
    bad = [tmp_path / "train" / name for name in ("001/0_c1.png", "004/1_c2.png")]
    more = {"data__validation": 2, "batch__size": 4, "model__size": "32x32"}
    before = training_data(tmp_path, recipe, **more)
    for path in bad:
        path.write_bytes(path.read_bytes()[:99])
    after = training_data(tmp_path, recipe, data__skip_bad=True, **more)
    assert "2 of 16 images left out, unreadable" in caplog.text
    both = [*after.images, *after.held_out.images]
    assert len(both) == 14
    assert not set(both) & set(bad)
    assert after.names == before.names
    label_of = dict(zip(before.images, before.targets.tolist(), strict=True))
    kept = [(path, label) for path, label in zip(after.images, after.targets.tolist(), strict=True) if path in label_of]
    assert kept
    assert all(label_of[path] == label for path, label in kept)


def test_attributes_of_bad_images_go_with_them(tmp_path):
    paths = (tmp_path / "1.png", tmp_path / "2.png", tmp_path / "3.png")
    for path in paths:
        cv2.imwrite(str(path), np.zeros((4, 2, 3), np.uint8))
    paths[1].write_bytes(b"")
    attributes = Attributes(images=paths, values=np.array([[0], [1], [1]], np.uint8), names=("hat",))
    kept = readable_attributes(attributes)
    assert kept.images == (paths[0], paths[2])
    assert kept.values.tolist() == [[0], [1]]
    for path in paths:
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match="none of 3 images can be read"):
        readable_attributes(attributes)


def test_no_person_with_attributes_is_on_both_sides():
    images = [Path(f"{name}.jpg") for name in ("0002_c1", "0002_c2", "0007_c1", "0007_c2", "0007_c3")]
    assert [_border(images, border) for border in range(6)] == [0, 0, 2, 2, 2, 5]
    assert _border([Path("1.jpg"), Path("2.jpg"), Path("3.jpg")], 2) == 2


def test_ranking_is_scored_as_people_would():
    score = RankingScore(identities=np.array([1, 2, 1, 2]), cameras=np.array([1, 1, 2, 2]), queries=2)
    right, wrong = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1]
    assert score.figures(np.concatenate([right, right]), right) == {"mAP": 1.0, "R1": 1.0}
    assert score.figures(np.concatenate([right, wrong]), right) == {"mAP": 0.5, "R1": 0.0}


def test_categories_and_attributes_are_scored_by_their_logits():
    logits = np.array([[2, 1], [0, 1], [3, 1]], np.float32)
    none = np.zeros((3, 4), np.float32)
    assert CategoryScore(categories=np.array([0, 1, 1])).figures(none, logits) == {"top1": pytest.approx(2 / 3)}
    found = AttributeScore(values=np.array([[1, 1], [0, 1], [1, 0]], np.uint8)).figures(none, logits)
    # Both attributes are found in all images but the first in the second one: 1 and 1/2 of (right ⁺ + right ⁻) / 2.
    assert found["mA"] == pytest.approx((1 + 0.5) / 2)
    assert found["Rec"] == 1.0


def test_figures_of_several_networks_have_names_of_their_own():
    assert endings(1) == ("",)
    assert named([{"mAP": 1.0}], 1) == {"mAP": 1.0}
    assert named([{"mAP": 1.0}, {"mAP": 2.0}, {"mAP": 3.0}], 2) == {"mAP-1": 1.0, "mAP-2": 2.0, "mAP-both": 3.0}
    assert named([], 1) == {}
