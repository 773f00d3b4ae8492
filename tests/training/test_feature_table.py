"""Features of another network as a teacher."""

import numpy as np
import pytest
import torch

from reid_edge.errors import DatasetError, SettingsError
from reid_edge.features import write_features
from reid_edge.training.feature_table import read_table
from reid_edge.training.run import train
from reid_edge.training.task import load_training_data
from reid_edge.training.teachers import load_teachers
from reid_edge.training.teaching import known_features
from tests.training.people import write_people
from tests.training.test_run import rows
from tests.training.test_teaching import CPU, configured, refused, taught

RELATIONS = {"distill__feature": 0.0, "distill__relations": 20.0}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture
def images(people):
    return load_training_data(configured(people)).images


def write_table(path, images, size=3, *, seed=0):
    """Features of images, in a random order, after those of two other images."""
    features = np.random.default_rng(seed).normal(size=(len(images), size)).astype(np.float32)
    order = np.random.default_rng(1).permutation(len(images))
    sources = [
        "elsewhere/else_1.jpg",
        "elsewhere/else_2.jpg",
        *(f"copied/{'/'.join(images[row].parts[-2:])}" for row in order),
    ]
    write_features(path, sources, np.concatenate([np.zeros((2, size), np.float32), features[order]]), "")
    return features


def test_rows_are_put_in_the_order_of_the_images(images, tmp_path):
    features = write_table(tmp_path / "t.npy", images)
    largest = np.abs(features).max(axis=1, keepdims=True)
    np.testing.assert_allclose(read_table(tmp_path / "t.npy", images), features / largest, rtol=1e-6)


@pytest.mark.parametrize("factor", [1e-35, 1e35])
def test_features_of_any_size_teach_the_same(images, tmp_path, factor):
    features = write_table(tmp_path / "t.npy", images)
    np.save(tmp_path / "t.npy", np.load(tmp_path / "t.npy").astype(np.float64) * factor)
    largest = np.abs(features).max(axis=1, keepdims=True)
    np.testing.assert_allclose(read_table(tmp_path / "t.npy", images), features / largest, rtol=1e-6)


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path):
    images = [tmp_path / person / "c1_1.jpg" for person in ("anna", "ben")]
    write_features(tmp_path / "t.npy", ["x/ben/c1_1.jpg", "x/anna/c1_1.jpg"], np.eye(2, dtype=np.float32), "")
    assert read_table(tmp_path / "t.npy", images).tolist() == [[0, 1], [1, 0]]


def test_a_network_learns_features_of_any_length_and_their_relations(people, images, tmp_path):
    tables = tmp_path / "long.npy", tmp_path / "short.npy"
    for table, size in zip(tables, (700, 3), strict=True):
        write_table(table, images, size)
    plain = {"augment__patch": 0, "augment__translate": 0, "optimiser__name": "amsgrad", "schedule__epochs": 6}
    train(taught(people, *tables, distill__feature=1000.0, distill__relations=20.0, **plain), tmp_path / "run")
    first, *_, last = rows(tmp_path / "run")
    assert 0 < float(last["taught_feature"]) < 0.9 * float(first["taught_feature"])
    assert float(last["taught_relations"]) > 0


def test_features_of_several_lengths_keep_their_cosines(people, images, tmp_path):
    short = write_table(tmp_path / "short.npy", images, 3)
    long = write_table(tmp_path / "long.npy", images, 700, seed=4)
    config = taught(people, tmp_path / "short.npy", tmp_path / "long.npy", **RELATIONS)
    teachers = load_teachers(config, load_training_data(config), tmp_path / "run", None)
    found = known_features(teachers, images, config.augment, CPU, half=False).float()
    assert found.shape == (len(images), 2, 700)
    for number, wanted in enumerate((short, long)):
        units = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        torch.testing.assert_close(
            found[:, number] @ found[:, number].T, torch.tensor(units @ units.T), rtol=0, atol=2e-3
        )


def test_what_features_cannot_teach_is_refused(people, images, tmp_path):
    write_table(tmp_path / "t.npy", images)
    table = tmp_path / "t.npy"
    config = taught(people, table, distill__logits=1.0)
    refused(config, tmp_path / "run", SettingsError, "has features and no predictions")
    config = taught(people, table, distill__view="same")
    refused(config, tmp_path / "run", SettingsError, "has features only")


def test_a_table_that_does_not_fit_the_images_is_refused(images, tmp_path):
    table = tmp_path / "t.npy"
    features = write_table(table, images)
    names = table.with_suffix(".sources.txt")
    lines = names.read_text().splitlines()

    def refuses(message):
        with pytest.raises(DatasetError, match=message):
            read_table(table, images)

    names.write_text("\n".join(lines[:-1]))
    refuses("lines; give N×D")
    names.write_text("\n".join([*lines[:-1], "copied/other.jpg"]))
    refuses("has no features of ")
    names.write_text("\n".join([lines[-1], *lines[1:]]))
    refuses("has 2 rows of ")
    names.unlink()
    refuses("which names the image of each row")
    write_features(
        table, ["/".join(image.parts[-2:]) for image in images], np.where(features > 1, np.nan, features), ""
    )
    refuses("not finite")
    np.save(table, np.zeros((len(lines), 0), np.float32))
    table.with_suffix(".sources.txt").write_text("\n".join(lines))
    refuses("has the shape .*, D at least 1")
    np.save(table, np.zeros((len(images), 3), np.int64))
    refuses("not floating-point")
    table.write_bytes(table.read_bytes()[:-1])
    refuses("cannot read .*it is damaged, or no .npy file of numbers")
    with pytest.raises(DatasetError, match="this dataset has none"):
        read_table(table, np.zeros((2, 4, 4, 3), np.uint8))
