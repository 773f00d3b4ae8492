import cv2
import numpy as np
import pytest

from reid_edge.datasets.categories import load_categories
from reid_edge.errors import DatasetError
from tests.datasets import trees

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def cifar10(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for batch in range(5):
        labels = [((2 * batch + place) % 10,) for place in range(2)]
        (folder / f"data_batch_{batch + 1}.bin").write_bytes(trees.cifar_rows(labels, 10 * batch))
    (folder / "test_batch.bin").write_bytes(trees.cifar_rows([(9,), (3,), (3,)], 100))
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10_NAMES) + "\n\n")
    return tmp_path


def test_cifar10s_planes_become_images(cifar10):
    train = load_categories("cifar10", cifar10, "train", partial=True)
    assert train.names == tuple(CIFAR10_NAMES)
    assert train.labels.dtype == np.int64
    assert train.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert train.images.shape == (10, 32, 32, 3)
    for place in range(10):
        expected = cv2.cvtColor(trees.cifar_image(10 * (place // 2) + place % 2), cv2.COLOR_RGB2BGR)
        np.testing.assert_array_equal(train.images[place], expected)
    assert load_categories("cifar10", cifar10, "test", partial=True).labels.tolist() == [9, 3, 3]


def test_a_byte_order_mark_is_no_part_of_a_name(cifar10):
    names = cifar10 / "cifar-10-batches-bin" / "batches.meta.txt"
    names.write_text("\r\n".join(CIFAR10_NAMES), encoding="utf-8-sig")
    assert load_categories("cifar10", cifar10, "train", partial=True).names == tuple(CIFAR10_NAMES)


def test_cifar100_takes_the_fine_label(tmp_path):
    (tmp_path / "train.bin").write_bytes(trees.cifar_rows([(4, 77), (1, 0)], 5))
    (tmp_path / "test.bin").write_bytes(trees.cifar_rows([(0, 99)], 7))
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"kind_{number}" for number in range(100)))
    train = load_categories("cifar100", tmp_path, "train", partial=True)
    assert train.labels.tolist() == [77, 0]
    assert train.names[77] == "kind_77"
    np.testing.assert_array_equal(train.images[1], trees.cifar_image(6)[:, :, ::-1])


def test_cifar_that_is_not_whole_is_an_error(cifar10):
    with pytest.raises(DatasetError, match=r"10 images of 10 categories; cifar10's train split has 50,000 of 10"):
        load_categories("cifar10", cifar10, "train")
    batch = cifar10 / "cifar-10-batches-bin" / "data_batch_3.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"data_batch_3\.bin has 6,145 bytes, which is not a multiple of 3,073"):
        load_categories("cifar10", cifar10, "train", partial=True)
    batch.unlink()
    with pytest.raises(DatasetError, match=r"data_batch_3\.bin cannot be read"):
        load_categories("cifar10", cifar10, "train", partial=True)


def test_a_label_without_a_name_is_an_error(cifar10):
    (cifar10 / "cifar-10-batches-bin" / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(DatasetError, match="label 9 has no name among the 2"):
        load_categories("cifar10", cifar10, "test", partial=True)


@pytest.fixture
def tree(tmp_path):
    trees.touch(tmp_path / "train", "n01440764/a.JPEG", "n01440764/b.JPEG", "n01443537/c.JPEG", "n01443537/note.txt")
    trees.touch(tmp_path / "val", "n01443537/d.JPEG")
    return tmp_path


@pytest.mark.parametrize("name", ["imagenet", "folder", "cifar10"])
def test_folders_are_categories(tree, name):
    train = load_categories(name, tree, "train", partial=True)
    assert [path.name for path in train.images] == ["a.JPEG", "b.JPEG", "c.JPEG"]
    assert train.labels.tolist() == [0, 0, 1]
    test = load_categories(name, tree, "test", partial=True)
    assert test.names == train.names == ("n01440764", "n01443537")
    assert test.labels.tolist() == [1]


def test_a_folder_of_ones_own_may_have_any_size(tree):
    assert len(load_categories("folder", tree, "train").labels) == 3
    with pytest.raises(DatasetError, match=r"3 images of 2 categories; imagenet's train split has 1,281,167 of 1,000"):
        load_categories("imagenet", tree, "train")


def test_categories_that_training_does_not_know_are_an_error(tree):
    trees.touch(tree / "val", "cat/e.JPEG")
    with pytest.raises(DatasetError, match=r"holds categories that .*train does not: cat"):
        load_categories("folder", tree, "test")


def test_a_category_that_no_checkpoint_could_name_is_an_error(tree):
    trees.touch(tree / "train", "two\nlines/e.JPEG")
    with pytest.raises(DatasetError, match="must be printable text"):
        load_categories("folder", tree, "train")


def test_wrong_layouts_are_errors(tmp_path):
    with pytest.raises(DatasetError, match=r"'mnist' is not a known dataset of categories; known: cifar10"):
        load_categories("mnist", tmp_path, "train")
    with pytest.raises(DatasetError, match="does not hold CIFAR-100"):
        load_categories("cifar100", tmp_path, "train")
    trees.touch(tmp_path / "train", "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DatasetError, match="holds no folders: expected one for each category"):
        load_categories("imagenet", tmp_path, "train")
    trees.touch(tmp_path / "train", "cat/a.jpg")
    with pytest.raises(DatasetError, match=r"one category only \(cat\)"):
        load_categories("folder", tmp_path, "train")
    trees.touch(tmp_path / "train", "dog/a.jpg")
    with pytest.raises(DatasetError, match="holds no test split"):
        load_categories("folder", tmp_path, "test")
